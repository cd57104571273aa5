"""What a diagnosis gives back: its record, what it shows beside the verdict, and the student that it trained."""

import json
import shlex
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from signstep.auditing.diagnosed import Cause, Cost, Diagnosed, Tested, Verdict, Word
from signstep.auditing.reading import made, parse
from signstep.auditing.result import Result
from signstep.auditing.sections import Section
from signstep.errors import InputError, LoadError
from signstep.io.files import write_whole
from signstep.model.declaration import Model
from signstep.plain import plain_json

__all__ = ["Cause", "Cost", "Diagnosis", "Tested", "Verdict", "Word"]

SCHEMA = 2
# A record has some for each test and chart; one that is larger is none.
_LARGEST = 2**26
_AUDIT = ("signstep", "audit")


@dataclass(frozen=True)
class Diagnosis(Diagnosed):
    """Whether the number that an attack gives can be believed.

    Attributes:
        sections: further parts for a report: what was shown beside the verdict.
        student: the network that was trained on the model's answers; not part of the record as plain values.
        schema: version of this record.
    """

    sections: tuple[Section, ...] = ()
    student: Model | None = field(default=None, repr=False, compare=False)
    schema: int = SCHEMA

    @property
    def record(self) -> Diagnosed:
        """What a result keeps of it: all but the sections, which stand among the result's own."""
        return Diagnosed(**{part.name: getattr(self, part.name) for part in fields(Diagnosed)})

    def attach(self, result: Result) -> Result:
        """The result of an audit with this diagnosis in its record, and its sections behind those of the report.

        Raises:
            InputError: the audit is of another model or another threat, or has a diagnosis already.
        """
        stated = (result.model, result.terms.get("threat"))
        if (self.model, self.threat) != stated:
            raise InputError(
                f"the diagnosis is of {self.model} under {self.threat}, the audit of {stated[0]} under {stated[1]}",
                remedy="diagnose the model that was audited, under the same threat",
            )
        if result.diagnosis is not None:
            raise InputError("the result has a diagnosis already", remedy="attach it to the result of the audit")
        return replace(result, diagnosis=self.record, sections=(*result.sections, self.section(), *self.sections))

    def plain(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        plain = asdict(replace(self, student=None)) | {"commands": list(self.commands_text)}
        del plain["student"]
        return plain

    def to_json(self) -> str:
        """The record as JSON; `from_json` gives an equal one back."""
        return plain_json(json.dumps(self.plain(), indent=2, allow_nan=False, ensure_ascii=False))

    @classmethod
    def from_json(cls, text: str) -> "Diagnosis":
        """Read a record: exactly what `to_json` writes, or one sentence.

        Raises:
            LoadError: not such a record, or of a schema that this version does not read.
        """
        if len(text) > _LARGEST:
            raise _no_diagnosis(f"it has {len(text)} characters, a diagnosis at most {_LARGEST}")
        try:
            plain = parse(text)
            if not isinstance(plain, dict) or type(plain.get("schema")) is not int:
                raise _no_diagnosis("it does not say which schema it has")
            if plain["schema"] != SCHEMA:
                raise LoadError(
                    f"this diagnosis has schema {plain['schema']}, this version of signstep reads {SCHEMA}",
                    remedy="read it with the version that wrote it",
                )
            parts = {"schema", "sections"}
            inner = {name: part for name, part in plain.items() if name not in parts}
            record = made(Diagnosed, {**inner, "commands": _split(plain)})
            sections = made(_Sections, {"sections": plain.get("sections")}).sections
        except LoadError as error:
            raise LoadError(
                error.text.replace("this is not a signstep result", "this is not a signstep diagnosis"),
                remedy="pass the diagnosis.json that signstep diagnose wrote",
            ) from error
        return cls(**{part.name: getattr(record, part.name) for part in fields(Diagnosed)}, sections=sections)

    def save(self, path: str | Path) -> Path:
        """Write the record; the file appears whole or not at all.

        Raises:
            LoadError: it cannot be written.
        """
        write_whole(Path(path), self.to_json() + "\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "Diagnosis":
        """Read a record from a file.

        Raises:
            LoadError: the file is missing or not such a record.
        """
        path = Path(path)
        try:
            if path.exists() and not path.is_file():
                raise LoadError(f"{path} cannot be read: it is no plain file", remedy="pass a diagnosis.json")
            if path.is_file() and path.stat().st_size > 4 * _LARGEST:
                raise LoadError(f"{path} cannot be read: it is larger than any diagnosis", remedy="pass another")
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise LoadError(f"{path} cannot be read: {error}", remedy="check the path") from error


@dataclass(frozen=True)
class _Sections:
    sections: tuple[Section, ...]


def _split(plain: dict[str, Any]) -> list[list[str]]:
    """The commands as options beside those that are stated.

    Raises:
        LoadError: one of them is no such command.
    """
    stated, texts = plain.get("stated"), plain.get("commands")
    if not isinstance(stated, list) or not isinstance(texts, list):
        raise _no_diagnosis("its commands are no list")
    found = []
    for text in texts:
        try:
            words = shlex.split(text) if isinstance(text, str) else []
        except ValueError as error:
            raise _no_diagnosis(f"a command cannot be split ({error})") from error
        before = len(_AUDIT) + len(stated)
        if words[:before] != [*_AUDIT, *stated]:
            raise _no_diagnosis("a command is not of signstep audit with what is stated")
        found.append(words[before:])
    return found


def _no_diagnosis(why: str) -> LoadError:
    return LoadError(f"this is not a signstep diagnosis: {why}", remedy="pass a diagnosis.json")
