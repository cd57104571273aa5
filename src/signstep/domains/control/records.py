"""Long records of a plant, one row for each sample: cut into windows that an alarm looks at."""

import csv
import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from signstep.domains.control.series import Faults, Series, number_of
from signstep.errors import InputError, LoadError

# Tennessee Eastman (Downs & Vogel 1993; the simulated records of Chiang, Russell & Braatz 2001): 41 measurements and 11
# manipulated variables; in test records of a fault it begins after 160 rows.
TENNESSEE = (*(f"XMEAS({k})" for k in range(1, 42)), *(f"XMV({k})" for k in range(1, 12)))
ONSET = 160
ALARM = ("normal", "fault")
_FILE = re.compile(r"d(\d\d)(_te)?\.dat(\.gz)?")


@dataclass(frozen=True, eq=False)
class Record:
    """Samples ``values`` (N, C) with labels (N,); ``bad`` (N,) marks rows that cannot be used."""

    values: NDArray[np.float64]
    labels: NDArray[np.int64]
    bad: NDArray[np.bool_]


def windows(
    records: Sequence[Record],
    *,
    names: tuple[str, ...],
    classes: tuple[str, ...],
    samples: int,
    stride: int,
    faults: Faults,
) -> Series:
    """Every window of ``samples`` rows that lies within one label and has no bad row.

    Raises:
        InputError: no record is so long.
    """
    parts, labels, lost = [], [], 0
    for record in records:
        for first in range(0, len(record.values) - samples + 1, stride):
            piece = slice(first, first + samples)
            if len(set(record.labels[piece].tolist())) > 1:
                continue
            if record.bad[piece].any():
                lost += 1
                continue
            parts.append(record.values[piece])
            labels.append(int(record.labels[first]))
    notes = faults.notes("rows")
    if lost:
        notes = (*notes, f"{lost} windows with such rows left out")
    if not parts:
        longest = max((len(record.values) for record in records), default=0)
        raise InputError(f"no window of {samples} samples fits ({longest} rows at most); write a smaller window")
    x = torch.from_numpy(np.stack(parts)).float()
    return Series(x, torch.tensor(labels, dtype=torch.int64, device="cpu"), classes, names, notes)


def read_tennessee(folder: Path, *, test: bool, samples: int, stride: int, skip_bad: bool = False) -> Series:
    """The records d00, d01, ... of a folder, or their test halves, as windows that are normal or faulty.

    Raises:
        LoadError: there are none, or one cannot be read.
        InputError: a row that is not 52 numbers, unless skip_bad.
    """
    found = [
        path for path in sorted(folder.iterdir()) if (match := _FILE.fullmatch(path.name)) and bool(match[2]) == test
    ]
    if not any(path.name.startswith("d00") for path in found) or len(found) < 2:
        kind = "d00_te.dat and d01_te.dat" if test else "d00.dat and d01.dat"
        raise LoadError(f"{folder} has no Tennessee Eastman records such as {kind} (.gz as well); pass their folder")
    faults = Faults(skip=skip_bad)
    records = []
    for path in found:
        values, bad = _numbers(path, faults)
        labels = np.zeros(len(values), dtype=np.int64)
        if not path.name.startswith("d00"):
            labels[ONSET if test else 0 :] = 1
        records.append(Record(values, labels, bad))
    return windows(records, names=TENNESSEE, classes=ALARM, samples=samples, stride=stride, faults=faults)


def read_csv(path: Path, *, label: str, samples: int, stride: int, skip_bad: bool = False) -> Series:
    """A table with one row for each sample: a column for each sensor, named, and one of labels.

    Raises:
        LoadError: the file cannot be read.
        InputError: a column is missing, or a row is bad, unless skip_bad.
    """
    rows = [cells for cells in csv.reader(_text(path).splitlines()) if cells]
    if len(rows) < 2:
        raise LoadError(f"{path} has no rows; pass a table whose first line names the columns")
    header = [cell.strip() for cell in rows[0]]
    if label not in header:
        raise InputError(
            f"{path.name} has no column {label!r} of labels, it has {', '.join(header)}; pass --label-column"
        )
    at = header.index(label)
    names = tuple(name for name in header if name != label)
    faults = Faults(skip=skip_bad)
    values, bad = np.zeros((len(rows) - 1, len(names))), np.zeros(len(rows) - 1, dtype=bool)
    words: list[str] = []
    for number, cells in enumerate(rows[1:]):
        where = f"{path.name}, row {number + 1}"
        words.append(cells[at].strip() if len(cells) == len(header) else "")
        if len(cells) != len(header):
            faults.add(f"{where} has {len(cells)} cells instead of {len(header)}")
            bad[number] = True
            continue
        read = [number_of(cell) for place, cell in enumerate(cells) if place != at]
        if None in read:
            column = read.index(None)
            faults.add(
                f"{where}, column {names[column]!r}: {cells[header.index(names[column])]!r} is not a finite number"
            )
            bad[number] = True
            continue
        values[number] = read
    classes = tuple(sorted({word for word, wrong in zip(words, bad, strict=True) if not wrong}))
    labels = np.array([classes.index(word) if word in classes else -1 for word in words], dtype=np.int64)
    record = Record(values, _filled(labels, bad), bad)
    return windows([record], names=names, classes=classes, samples=samples, stride=stride, faults=faults)


def _filled(labels: NDArray[np.int64], bad: NDArray[np.bool_]) -> NDArray[np.int64]:
    """A bad row belongs to the label before it, so that the window it spoils is counted as spoilt."""
    filled = labels.copy()
    for number in range(1, len(filled)):
        if bad[number]:
            filled[number] = filled[number - 1]
    return filled


def _numbers(path: Path, faults: Faults) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The rows of a file of numbers, and which are bad; a file of 52 lines is transposed, as d00.dat is."""
    lines = [line.split() for line in _text(path).splitlines() if line.strip()]
    wanted = len(TENNESSEE)
    if len(lines) == wanted and len(lines[0]) != wanted:
        lengths = {len(line) for line in lines}
        if len(lengths) > 1:
            raise InputError(f"{path.name} is transposed, and its lines have {min(lengths)} to {max(lengths)} numbers")
        lines = [list(cells) for cells in zip(*lines, strict=True)]
    values, bad = np.zeros((len(lines), wanted)), np.zeros(len(lines), dtype=bool)
    for number, cells in enumerate(lines):
        where = f"{path.name}, row {number + 1}"
        read = [number_of(cell) for cell in cells]
        if len(cells) != wanted:
            faults.add(f"{where} has {len(cells)} columns instead of {wanted}")
        elif None in read:
            column = read.index(None)
            faults.add(f"{where}, column {column + 1} ({TENNESSEE[column]}): {cells[column]!r} is not a finite number")
        else:
            values[number] = read
            continue
        bad[number] = True
    return values, bad


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise LoadError(f"{path} cannot be read ({error}); pass a text file, plain or compressed with gzip") from error
