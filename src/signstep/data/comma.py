"""Tables in text files: ``.csv``, plain or compressed with gzip.

The first line names the columns. Cells are separated by comma, semicolon or tab, whichever the first line has most of;
numbers have a decimal point. The text is UTF-8. Python's ``csv`` reads it, so quoting follows RFC 4180.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from signstep.data.tables import BLOCK_ROWS, Rows
from signstep.errors import LoadError

SUFFIXES = (".csv", ".csv.gz")


@dataclass(frozen=True)
class CommaFile:
    """A text file as a table; rows are named by the line on which they end."""

    path: Path
    columns: tuple[str, ...]
    delimiter: str
    unit: str = "line"

    @property
    def place(self) -> str:
        """The path."""
        return str(self.path)

    def check(self, target: str, *, real: bool) -> None:
        """Text has no types: each row is checked."""

    def rows(self, target: str) -> Iterator[Rows]:
        """All rows but blank lines."""
        at = self.columns.index(target)
        features = [column for column in self.columns if column != target]
        with _reading(self.path) as stream:
            reader = csv.reader(stream, delimiter=self.delimiter, skipinitialspace=True, strict=True)
            next(reader)
            numbered = ((reader.line_num, cells) for cells in reader if cells)
            while block := list(islice(numbered, BLOCK_ROWS)):
                values = np.zeros((len(block), len(features)))
                faults: dict[int, str] = {}
                targets: list[str | None] = []
                for position, (_, cells) in enumerate(block):
                    if len(cells) != len(self.columns):
                        faults[position] = f"{len(cells)} cells instead of {len(self.columns)}"
                        targets.append(None)
                        continue
                    targets.append(cells.pop(at).strip())
                    numbers = _numbers(cells)
                    if isinstance(numbers, int):
                        faults[position] = f"column {features[numbers]!r} {_what(cells[numbers])}"
                    else:
                        values[position] = numbers
                yield Rows([number for number, _ in block], values, targets, faults)


def open_comma(path: Path) -> CommaFile:
    """Read the header.

    Raises:
        LoadError: If the file cannot be read as text, is empty, or its first line holds numbers only.
    """
    with _reading(path) as stream:
        first = stream.readline()
    delimiter = max(",;\t", key=first.count)
    with _reading(path) as stream:
        reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
        columns = tuple(cell.strip() for cell in next(reader, []))
    if not columns:
        raise LoadError(f"{path} is empty or starts with an empty line: its first line must name the columns")
    counted = columns == tuple(map(str, range(len(columns))))  # the names that pandas gives to columns without any
    if isinstance(_numbers(list(columns)), list) and not counted:
        raise LoadError(f"{path} starts with numbers ({first.strip()[:40]}): write a first line that names the columns")
    return CommaFile(path, columns, delimiter)


def _numbers(cells: list[str]) -> list[float] | int:
    """All cells as numbers, or the position of the first that is none."""
    try:
        numbers = list(map(float, cells))
    except ValueError:
        return next(position for position, cell in enumerate(cells) if not _is_number(cell))
    # Python reads 1_000 as a number; in a table it is a slip.
    return next((position for position, cell in enumerate(cells) if "_" in cell), numbers)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _what(cell: str) -> str:
    shown = cell if len(cell) <= 40 else f"{cell[:40]}..."
    return f"is {shown!r}, not a number" if cell.strip() else "is empty"


@contextmanager
def _reading(path: Path) -> Iterator[TextIO]:
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as raw:
            # newline="" leaves line ends to csv, as its documentation asks
            yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
    except UnicodeDecodeError as error:
        raise LoadError(f"{path} is no UTF-8 text ({error.reason}): save it as UTF-8") from error
    except (csv.Error, EOFError, OSError, zlib.error) as error:
        raise LoadError(f"{path} cannot be read as a table ({error}): write it again") from error
