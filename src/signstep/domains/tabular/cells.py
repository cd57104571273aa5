"""The cells of a CSV or Parquet file as texts, column by column."""

import importlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from signstep.data.csv_text import SUFFIXES, open_comma
from signstep.data.tables import refuse_names
from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.io.files import expanded
from signstep.messages import Arg


@dataclass(frozen=True)
class Cells:
    """A table of texts.

    Attributes:
        place: the file.
        unit: what row numbers count: "line" or "row".
        numbers: what each row is called.
        columns: texts by column; "" where a cell is empty.
        faults: why a row cannot be read at all, by position.
    """

    place: str
    unit: str
    numbers: tuple[int, ...]
    columns: dict[str, list[str]]
    faults: dict[int, str]

    def __len__(self) -> int:
        return len(self.numbers)

    def row(self, position: int) -> str:
        """What messages call a row."""
        return f"{self.place}, {self.unit} {self.numbers[position]}"


def read_cells(path: str | Path, limit: int | None = None) -> Cells:
    """Read a table, at most ``limit`` rows of it.

    Raises:
        InputError: the name of the file ends in nothing known.
        LoadError: the file cannot be read.
        MissingExtraError: a Parquet file, and pyarrow is not installed.
    """
    path = expanded(path)
    if path.name.lower().endswith(SUFFIXES):
        return _comma(path, limit)
    if path.suffix.lower() == ".parquet":
        return _parquet(path, limit)
    raise InputError(
        Arg("data", str(path)), "is no table that can be read", remedy="pass a .csv, .csv.gz or .parquet file"
    )


def _comma(path: Path, limit: int | None) -> Cells:
    table = open_comma(path)
    lines = list(islice(table.lines(), limit))
    faults = {row: f"has {line.fault}" for row, line in enumerate(lines) if line.fault}
    none = [""] * len(table.columns)
    cells = zip(*(line.cells or none for line in lines), strict=True) if lines else iter([()] * len(table.columns))
    columns = {name: list(texts) for name, texts in zip(table.columns, cells, strict=True)}
    return Cells(str(path), "line", tuple(line.number for line in lines), columns, faults)


def _parquet(path: Path, limit: int | None) -> Cells:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError("pyarrow", "tabular") from error
    try:
        table = parquet.read_table(path)
    except (importlib.import_module("pyarrow").ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LoadError(f"{path} cannot be read as a Parquet file ({reason})", remedy="write it again") from error
    table = table if limit is None else table.slice(0, limit)
    refuse_names(path, table.schema.names)
    columns = {name: list(map(_cell, table.column(name).to_pylist())) for name in table.schema.names}
    return Cells(str(path), "row", tuple(range(table.num_rows)), columns, {})


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
