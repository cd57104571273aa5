"""The record of an audit: frozen, versioned, the same after a round trip through JSON."""

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from signstep.auditing.findings import Finding, examine
from signstep.auditing.reading import LARGEST, made, not_a_result, parse
from signstep.auditing.record import SCHEMA, Record
from signstep.auditing.table import table
from signstep.errors import LoadError, MissingExtraError
from signstep.io.files import write_whole
from signstep.plain import plain_json

# What records before this schema lack, and are read as having; schema 2 has no sections either.
_READ = (2, 3, SCHEMA)
_LACKED: dict[str, Any] = {"date": "", "gates": [], "knob": None, "detection": None, "diagnosis": None}


@dataclass(frozen=True)
class Result(Record):
    """Everything an audit found, under the terms it was found: a `Record` that can be printed, saved and read."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What should make the reader doubt or act, in the order of the codes; `examine` can set some aside."""
        return examine(self)

    def __str__(self) -> str:
        return "\n".join([table(self), *map(str, self.findings)])

    def log(self, prefix: str = "signstep") -> None:
        """Log the figures and the record to the active MLflow run.

        Raises:
            MissingExtraError: MLflow is not installed.
        """
        try:
            import mlflow
        except ImportError as error:
            raise MissingExtraError("mlflow", "mlflow") from error
        figures = {"clean_accuracy": self.clean_accuracy, "robust_accuracy": self.robust_accuracy}
        # Names of rungs hold more than MLflow allows in names of metrics.
        if self.certified_accuracy is not None:
            figures["certified_accuracy"] = self.certified_accuracy
        figures |= {
            f"{re.sub(r'[^0-9A-Za-z.-]+', '_', entry.name)}.fooled": float(entry.fooled) for entry in self.attacks
        }
        mlflow.log_metrics({f"{prefix}.{name}": value for name, value in figures.items() if not math.isnan(value)})
        mlflow.log_text(self.to_json(), f"{prefix}/result.json")
        mlflow.log_text(str(self), f"{prefix}/table.txt")

    def to_json(self) -> str:
        """The record as JSON; `from_json` gives an equal one back."""
        return plain_json(json.dumps(asdict(self), indent=1, allow_nan=False, ensure_ascii=False))

    @classmethod
    def from_json(cls, text: str) -> "Result":
        """Read a record, as strictly as `signstep.auditing.reading` does.

        Raises:
            LoadError: not such a record, or of a schema that this version does not read.
        """
        return cls.from_plain(parse(text))

    @classmethod
    def from_plain(cls, plain: Any) -> "Result":
        """The same from what JSON gave (`signstep.auditing.reading.parse`).

        Raises:
            LoadError: not such a record, or of a schema that this version does not read.
        """
        schema = plain.get("schema") if isinstance(plain, dict) else None
        if type(schema) is not int:
            raise not_a_result("it does not say which schema it has")
        if schema not in _READ:
            made_by = plain.get("versions")
            by = f" (signstep {made_by.get('signstep')})" if isinstance(made_by, dict) else ""
            raise LoadError(
                f"this record has schema {schema}{by}, this version of signstep reads {SCHEMA}",
                remedy="read it with the version that wrote it",
            )
        if schema < SCHEMA:
            plain = _brought_up(plain, schema)
        return made(cls, plain)

    def save(self, path: str | Path) -> Path:
        """Write the record; the file appears whole or not at all.

        Raises:
            LoadError: the folder cannot be written.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LoadError(
                f"{path} cannot be written ({error.strerror or error})", remedy="pass another folder"
            ) from error
        write_whole(path, self.to_json() + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Result":
        """Read a record from a file.

        Raises:
            LoadError: the file is missing or not such a record.
        """
        path = Path(path)
        try:
            if path.exists() and not path.is_dir() and not path.is_file():  # a pipe would keep its reader waiting
                raise LoadError(f"{path} cannot be read: it is no plain file", remedy="pass a result.json")
            if path.is_file() and path.stat().st_size > LARGEST:
                raise LoadError(
                    f"{path} cannot be read: it is larger than the {LARGEST} bytes of the largest record",
                    remedy="pass a result.json",
                )
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise LoadError(f"{path} cannot be read: {error}", remedy="check the path") from error


def _brought_up(plain: dict[str, Any], schema: int) -> dict[str, Any]:
    """What an older record says, as one of this schema.

    Raises:
        LoadError: it says what its schema has no word for.
    """
    lacked = _LACKED if schema == 3 else {**_LACKED, "sections": []}
    if early := sorted(set(lacked) & set(plain)):
        raise not_a_result(f"it has {early[0]}, and schema {schema} has none")
    examples = plain.get("per_example")
    if not isinstance(examples, dict):
        raise not_a_result("it has no examples")
    if "bounds" in examples or "proved_eps" in examples:
        raise not_a_result(f"it has bounds, and schema {schema} has none")
    return {**plain, **lacked, "schema": SCHEMA, "per_example": {**examples, "bounds": "", "proved_eps": []}}
