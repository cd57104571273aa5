"""Tables in Arrow's types: ``.parquet`` files, and the columns of saved data sets."""

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from signstep.data.tables import BLOCK_ROWS, Rows
from signstep.data.targets import REAL
from signstep.errors import LoadError, MissingExtraError


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file as a table; rows are counted from 0."""

    path: Path
    schema: Any
    unit: str = "row"

    @property
    def place(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns."""
        return tuple(self.schema.names)

    def check(self, target: str, *, real: bool) -> None:
        """Refuse types that hold no numbers, or no labels."""
        check_types(self.place, self.schema, target, real=real)

    def rows(self, target: str) -> Iterator[Rows]:
        """All rows, a block at a time."""
        with reading(self.path):
            start = 0
            with importlib.import_module("pyarrow.parquet").ParquetFile(self.path) as file:
                for batch in file.iter_batches(BLOCK_ROWS):
                    yield arrow_rows(batch, target, start)
                    start += batch.num_rows


def open_parquet(path: Path) -> ParquetFile:
    """Read the schema.

    Raises:
        MissingExtraError: Without pyarrow.
        LoadError: If the file is no Parquet file.
    """
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError("pyarrow", "tables") from error
    with reading(path):
        return ParquetFile(path, parquet.read_schema(path))


def check_types(place: str, fields: Iterable[Any], target: str, *, real: bool = False) -> None:
    """Refuse columns whose type holds no numbers, and a target whose type holds no labels, or no ``real`` numbers.

    Raises:
        LoadError: Naming the column and its type.
    """
    types = importlib.import_module("pyarrow").types
    for field in fields:
        kind = field.type
        numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
        if field.name != target and not numeric:
            raise LoadError(
                f"{place}: column {field.name!r} holds {kind}, not numbers",
                remedy="encode it as numbers or leave it out",
            )
        if field.name == target and real and not (numeric and not types.is_boolean(kind)):
            raise LoadError(
                f"{place}: the target column {target!r} holds {kind}, and a regression needs numbers",
                remedy=("name another column, or leave out", REAL),
            )
        inner = kind.value_type if types.is_dictionary(kind) else kind
        text = types.is_string(inner) or types.is_large_string(inner)
        if field.name == target and not (numeric or text or types.is_integer(inner)):
            raise LoadError(
                f"{place}: the target column {target!r} holds {kind}", remedy="write class names or class numbers"
            )


def arrow_rows(batch: Any, target: str, start: int) -> Rows:
    """The rows of a record batch or table whose types were checked.

    Args:
        batch: pyarrow's RecordBatch or Table.
        target: The column with the labels.
        start: What the first row is called.
    """
    wide = importlib.import_module("pyarrow").float64()
    features = [column for name, column in zip(batch.schema.names, batch.columns, strict=True) if name != target]
    values = np.empty((batch.num_rows, len(features)))
    for position, column in enumerate(
        features
    ):  # a cast turns null into NaN; safe=False lets large integers be rounded
        values[:, position] = column.cast(wide, safe=False).to_numpy(zero_copy_only=False)
    return Rows(range(start, start + batch.num_rows), values, batch.column(target).to_pylist(), {})


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever pyarrow raises inside is an error about the file.

    Raises:
        LoadError: it cannot be read.
    """
    try:
        yield
    except LoadError:
        raise
    except (importlib.import_module("pyarrow").ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LoadError(f"{path} cannot be read as a Parquet file ({reason})", remedy="write it again") from error
