"""The records of the Tennessee Eastman process: normal operation and faults, cut into windows."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from signstep.data.csv_text import number_of, text_lines
from signstep.domains.control.series import Faults, Series
from signstep.domains.control.windows import Record, windows
from signstep.errors import InputError, LoadError

# Tennessee Eastman (Downs & Vogel 1993; the simulated records of Chiang, Russell & Braatz 2001): 41 measurements and 11
# manipulated variables; in test records of a fault it begins after 160 rows.
TENNESSEE = (*(f"XMEAS({k})" for k in range(1, 42)), *(f"XMV({k})" for k in range(1, 12)))
ONSET = 160
ALARM = ("normal", "fault")
_FILE = re.compile(r"d(\d\d)(_te)?\.dat(\.gz)?")


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
        raise LoadError(
            f"{folder} has no Tennessee Eastman records such as {kind} (.gz as well)", remedy="pass their folder"
        )
    faults = Faults(skip=skip_bad)
    records = []
    for path in found:
        values, bad = _numbers(path, faults)
        labels = np.zeros(len(values), dtype=np.int64)
        if not path.name.startswith("d00"):
            labels[ONSET if test else 0 :] = 1
        records.append(Record(values, labels, bad))
    return windows(records, names=TENNESSEE, classes=ALARM, samples=samples, stride=stride, faults=faults)


def _numbers(path: Path, faults: Faults) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The rows of a file of numbers, and which are bad; a file of 52 lines is transposed, as d00.dat is."""
    with text_lines(path) as texts:
        lines = [line.split() for line in texts if line.strip()]
    wanted = len(TENNESSEE)
    if len(lines) == wanted and len(lines[0]) != wanted:
        lengths = {len(line) for line in lines}
        if len(lengths) > 1:
            raise InputError(
                f"{path.name} is transposed, and its lines have {min(lengths)} to {max(lengths)} numbers",
                remedy="download it again",
            )
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
