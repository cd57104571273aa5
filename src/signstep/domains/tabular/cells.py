"""The cells of a CSV or Parquet file as texts, column by column."""

import csv
import gzip
import importlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from signstep.core.files import expanded
from signstep.data.comma import SUFFIXES, open_comma
from signstep.errors import InputError, LoadError, MissingExtraError


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
    raise InputError(f"data={str(path)!r} is no table that can be read; pass a .csv, .csv.gz or .parquet file")


def _comma(path: Path, limit: int | None) -> Cells:
    head = open_comma(path)
    _refuse_twice(head.columns, path)
    columns: dict[str, list[str]] = {name: [] for name in head.columns}
    numbers: list[int] = []
    faults: dict[int, str] = {}
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            reader = csv.reader(text, delimiter=head.delimiter, skipinitialspace=True, strict=True)
            next(reader)
            for cells in reader:
                if not cells:
                    continue
                if limit is not None and len(numbers) == limit:
                    break
                if len(cells) != len(head.columns):
                    faults[len(numbers)] = f"has {len(cells)} cells instead of {len(head.columns)}"
                    cells = [""] * len(head.columns)  # noqa: PLW2901
                numbers.append(reader.line_num)
                for name, cell in zip(head.columns, cells, strict=True):
                    columns[name].append(cell.strip())
    except (csv.Error, EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise LoadError(f"{path} cannot be read as a table ({error}): write it again") from error
    return Cells(str(path), "line", tuple(numbers), columns, faults)


def _parquet(path: Path, limit: int | None) -> Cells:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError("pyarrow", "tabular") from error
    try:
        table = parquet.read_table(path)
    except (importlib.import_module("pyarrow").ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LoadError(f"{path} cannot be read as a Parquet file ({reason}): write it again") from error
    table = table if limit is None else table.slice(0, limit)
    _refuse_twice(tuple(table.schema.names), path)
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


def _refuse_twice(names: tuple[str, ...], path: Path) -> None:
    twice = next(_twice(names), None)
    if twice is not None:
        raise LoadError(f"{path} has two columns named {twice!r}: give each column a name of its own")


def _twice(names: tuple[str, ...]) -> Iterator[str]:
    return (name for name in names if names.count(name) > 1)
