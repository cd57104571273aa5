"""Tables in text files: ``.csv``, plain or compressed with gzip. Whatever reads such a file here reads it through this.

The first line names the columns, each with a name of its own. Cells are separated by comma, semicolon or tab, whichever
the first line has most of outside quotes; numbers have a decimal point. The text is UTF-8, with or without a byte order
mark. Python's ``csv`` reads it, so quoting follows RFC 4180. Whether a file is compressed is told by its first bytes,
not by its name. Lines that are empty, or hold blanks alone, are passed over.

Files are written by strangers: a line is at most `LONGEST` characters, a cell as long as ``csv.field_size_limit`` says,
and a compressed file gives at most `INFLATED` times its size, or `INFLATED_LEAST` bytes where that is more.
"""

import codecs
import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, cast

import numpy as np

from signstep.data.tables import BLOCK_ROWS, Rows, refuse_names
from signstep.data.targets import spelled
from signstep.errors import LoadError

if TYPE_CHECKING:
    from _csv import Reader

SUFFIXES = (".csv", ".csv.gz")

LONGEST = 1 << 24
INFLATED, INFLATED_LEAST = 100, 1 << 28

_QUOTED = re.compile(r'"[^"]*"')
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")


class Line(NamedTuple):
    """A row: the line on which it ends, its cells without blanks around them, and why it cannot be read ("": it can).

    Where it cannot, there are no cells.
    """

    number: int
    cells: list[str]
    fault: str


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

    def lines(self) -> Iterator[Line]:
        """All rows, as texts.

        Raises:
            LoadError: The file cannot be read on.
        """
        with text_lines(self.path) as texts:
            reader = _csv(texts, self.delimiter)
            with _named_lines(self.path, reader):
                next(reader)
                for cells in reader:
                    if len(cells) < 2 and not "".join(cells).strip():
                        continue
                    if len(cells) != len(self.columns):
                        yield Line(reader.line_num, [], f"{len(cells)} cells instead of {len(self.columns)}")
                        continue
                    yield Line(reader.line_num, [cell.strip() for cell in cells], "")

    def rows(self, target: str) -> Iterator[Rows]:
        """All rows as numbers, a block at a time."""
        at = self.columns.index(target)
        features = [column for column in self.columns if column != target]
        lines = self.lines()
        while block := list(islice(lines, BLOCK_ROWS)):
            values = np.zeros((len(block), len(features)))
            faults: dict[int, str] = {}
            targets: list[str | None] = []
            for position, (_, cells, fault) in enumerate(block):
                if fault:
                    faults[position] = fault
                    targets.append(None)
                    continue
                targets.append(cells.pop(at))
                numbers = _numbers(cells)
                if isinstance(numbers, int):
                    faults[position] = f"column {features[numbers]!r} {no_number(cells[numbers])}"
                else:
                    values[position] = numbers
            yield Rows([line.number for line in block], values, targets, faults)


def open_comma(path: Path) -> CommaFile:
    """Read the header.

    Raises:
        LoadError: If the file cannot be read as text, is empty, its first line holds numbers only, or two columns have
            one name or one has none.
    """
    with text_lines(path) as texts:
        first = next(texts, "")
    delimiter = max(",;\t", key=_QUOTED.sub("", first).count)
    with text_lines(path) as texts:
        reader = _csv(texts, delimiter)
        with _named_lines(path, reader):
            columns = tuple(cell.strip() for cell in next(reader, []))
    if not any(columns):
        raise LoadError(f"{path} is empty or starts with an empty line", remedy="name the columns in its first line")
    counted = columns == tuple(map(str, range(len(columns))))  # the names that pandas gives to columns without any
    if isinstance(_numbers(list(columns)), list) and not counted:
        raise LoadError(
            f"{path} starts with numbers ({first.strip()[:40]})", remedy="write a first line that names the columns"
        )
    refuse_names(path, columns)
    return CommaFile(path, columns, delimiter)


def number_of(cell: str) -> float | None:
    """The finite number that a cell spells with a decimal point, or None.

    >>> number_of("1.5e3"), number_of("1_000"), number_of("nan"), number_of("1,5")
    (1500.0, None, None, None)
    """
    number = spelled(cell)
    return number if number is not None and math.isfinite(number) else None


def has_decimal_comma(cell: str) -> bool:
    """Whether a cell would be a number if its one comma were a point."""
    return _DECIMAL_COMMA.fullmatch(cell.strip()) is not None


def no_number(cell: str) -> str:
    """What is said of a cell that holds no finite number."""
    if not cell.strip():
        return "is empty"
    shown = repr(cell if len(cell) <= 40 else f"{cell[:40]}...")
    if has_decimal_comma(cell):
        return f"is {shown}, not a number: write a decimal point for its comma"
    return f"is {shown}, not a number" if spelled(cell) is None else f"is {shown}, not a finite number"


def _numbers(cells: list[str]) -> list[float] | int:
    """All cells as numbers, or the position of the first that is none."""
    numbers = []
    for position, cell in enumerate(cells):
        number = spelled(cell)
        if number is None:
            return position
        numbers.append(number)
    return numbers


def _csv(texts: Iterable[str], delimiter: str) -> "Reader":
    return csv.reader(texts, delimiter=delimiter, skipinitialspace=True, strict=True)


@contextmanager
def _named_lines(path: Path, reader: "Reader") -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise LoadError(
            f"{path} cannot be read as a table ({error}) at line {reader.line_num}, where a quote may be missing",
            remedy="write it again",
        ) from error


@contextmanager
def text_lines(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a text in UTF-8, plain or compressed, with their ends, which ``csv`` asks for.

    Raises:
        LoadError: It cannot be read, is no such text, or grows beyond what this module allows.
    """
    count = _Count()
    try:
        with path.open("rb", buffering=0) as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            most = max(INFLATED_LEAST, INFLATED * path.stat().st_size) if packed else math.inf
            content = cast("io.RawIOBase", gzip.GzipFile(fileobj=file)) if packed else file
            with (
                io.BufferedReader(content) as raw,
                io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text,
            ):
                if raw.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                    raise LoadError(f"{path} is UTF-16 text, not UTF-8", remedy="save it as UTF-8")
                yield _lines(path, text, raw, most, count)
    except UnicodeDecodeError as error:
        raise LoadError(
            f"{path} is no UTF-8 text ({error.reason} after line {count.lines}; Latin-1 perhaps)",
            remedy="save it as UTF-8",
        ) from error
    except (EOFError, OSError, zlib.error) as error:
        raise LoadError(f"{path} cannot be read as a table ({error})", remedy="write it again") from error


@dataclass
class _Count:
    lines: int = 0


def _lines(path: Path, text: io.TextIOWrapper, raw: IO[bytes], most: float, count: _Count) -> Iterator[str]:
    """Line after line; a carriage return alone ends one as well."""
    while line := text.readline(LONGEST):
        count.lines += 1
        where = f"{path}, line {count.lines}"
        if "\0" in line:
            raise LoadError(f"{where} holds a zero byte, so it is no text in UTF-8", remedy="save it as UTF-8")
        if len(line) == LONGEST:
            raise LoadError(f"{where} is longer than {LONGEST} characters", remedy="break it into rows")
        if most < math.inf and raw.tell() > most:
            raise LoadError(
                f"{path} grows to more than {most / 2**20:.0f} MiB when it is decompressed",
                remedy="unpack it first, if you trust it",
            )
        yield line
