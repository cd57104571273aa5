"""A long record as a table, one row for each sample: columns of sensors, of labels, of times, and some to ignore."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from signstep.data.csv_text import Line, no_number, number_of, open_comma
from signstep.data.tables import listed, refuse_unknown
from signstep.data.targets import Targets, is_missing, real_number
from signstep.data.times import Times, breaks_of, interval_of, read_times
from signstep.domains.control.series import Faults, Series, classes_of
from signstep.domains.control.windows import Record, windows
from signstep.errors import InputError, LoadError
from signstep.messages import Arg

_MOST = float(np.finfo(np.float32).max)


def read_csv(
    path: Path,
    *,
    label: str,
    samples: int,
    stride: int,
    skip_bad: bool = False,
    ignore: Sequence[str] = (),
    real: bool = False,
) -> Series:
    """Windows of a table.

    Columns of dates and times are no sensors: the first of them is the time axis, which gives the interval and the
    places at which no window may cross a gap; all are left out and noted.

    Args:
        path: a .csv file, see `signstep.data.csv_text`.
        label: the column of labels.
        samples: of a window.
        stride: samples from one window to the next.
        skip_bad: leave bad rows out, and the windows that they lie in.
        ignore: columns to leave out.
        real: labels are real numbers, and a window has that of its last row.

    Raises:
        LoadError: the file cannot be read.
        InputError: a column is missing or holds texts, or a row is bad, unless skip_bad.
    """
    table = open_comma(path)
    if label not in table.columns:
        raise InputError(
            f"{path.name} has no column {label!r} of labels, it has {listed(table.columns)}",
            remedy=("pass", Arg("label_column")),
        )
    refuse_unknown(ignore, [name for name in table.columns if name != label])
    lines = list(table.lines())
    if not lines:
        raise LoadError(f"{path} has no rows", remedy="pass a table whose first line names the columns")
    faults, bad = Faults(skip=skip_bad), np.zeros(len(lines), dtype=bool)
    columns = _columns(lines, len(table.columns))
    cells = dict(zip(table.columns, columns, strict=True))
    words = cells.pop(label)
    for name in ignore:
        del cells[name]
    times = {name: found for name, texts in cells.items() if (found := read_times(texts)) is not None}
    names = tuple(name for name in cells if name not in times)
    _refuse_texts(path, {name: cells[name] for name in names}, lines, ignore)
    values = np.zeros((len(lines), len(names)))
    labels, targets = np.zeros(len(lines)), Targets(label)
    for number, line in enumerate(lines):
        read = [number_of(cells[name][number]) for name in names]
        wrong = _fault(line, names, read, [cells[name][number] for name in names])
        wrong = wrong or _time_fault(times, cells, number) or _label_fault(label, words[number], real=real)
        if wrong:
            faults.add(f"{path.name}, line {line.number}{wrong}")
            bad[number] = True
            continue
        values[number] = read
        labels[number] = (real_number(words[number]) or 0.0) if real else 0.0
        targets.add(words[number], partial(_place, path, line.number))
    kept, classes = (labels, ()) if real else _numbered(targets, bad, path.name)
    interval, breaks, notes = _axis(times)
    pieces = np.split(np.arange(len(lines)), breaks)
    records = [Record(values[piece], kept[piece], bad[piece]) for piece in pieces]
    made = windows(records, names=names, classes=classes, samples=samples, stride=stride, faults=faults)
    if ignore:
        notes = (f"columns left out as asked: {listed(tuple(ignore))}", *notes)
    return replace(made, interval=interval, skipped=(*notes, *made.skipped))


def _place(path: Path, line: int) -> str:
    return f"{path.name}, line {line}"


def _columns(lines: Sequence[Line], width: int) -> list[list[str]]:
    none = [""] * width
    return [list(texts) for texts in zip(*(line.cells or none for line in lines), strict=True)]


def _refuse_texts(path: Path, cells: dict[str, list[str]], lines: Sequence[Line], ignored: Sequence[str]) -> None:
    """A column without a single number is no sensor with bad rows: it is another kind of column."""
    if not cells:
        raise InputError(
            f"{path.name} has no column of numbers beside the label", remedy="leave at least one for a sensor"
        )
    for name, texts in cells.items():
        first = next((row for row, text in enumerate(texts) if text), None)
        if first is not None and number_of(texts[first]) is None and all(number_of(text) is None for text in texts):
            raise InputError(
                f"{path.name}, line {lines[first].number}, column {name!r} {no_number(texts[first])}, nor is "
                "any other of its cells",
                remedy=(
                    "leave the column out with",
                    Arg("ignore_column", [*ignored, name]),
                    "(or ignore in the schema)",
                ),
            )


def _fault(line: Line, names: Sequence[str], read: Sequence[float | None], texts: Sequence[str]) -> str:
    if line.fault:
        return f" has {line.fault}"
    for name, number, text in zip(names, read, texts, strict=True):
        if number is None:
            return f", column {name!r} {no_number(text)}"
        if abs(number) > _MOST:
            return f", column {name!r} is {number:g}, which float32 cannot hold"
    return ""


def _time_fault(times: dict[str, Times], cells: dict[str, list[str]], row: int) -> str:
    for name, found in times.items():
        if cells[name][row] and found.seconds[row] is None:
            shown = cells[name][row][:40]
            return f", column {name!r} is {shown!r}, no date or time in the form of the others ({found.form})"
    return ""


def _label_fault(column: str, text: str, *, real: bool) -> str:
    if is_missing(text):
        return f", column {column!r} holds no {'number' if real else 'label'}"
    if real and real_number(text) is None:
        return f", column {column!r} {no_number(text)}, and a regression needs one"
    return ""


def _numbered(targets: Targets, bad: NDArray[np.bool_], place: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Classes of the rows; a bad row has the label before it, so that the window it spoils is counted as spoilt."""
    numbers, classes = classes_of(targets, place)
    labels = np.full(len(bad), -1, dtype=np.int64)
    labels[~bad] = numbers.numpy()
    for row in np.flatnonzero(bad).tolist():
        labels[row] = labels[row - 1] if row else -1
    return labels, classes


def _axis(times: dict[str, Times]) -> tuple[float | None, list[int], tuple[str, ...]]:
    """The interval, the rows before which time jumps, and what to say."""
    if not times:
        return None, [], ()
    axis, found = next(iter(times.items()))
    interval = interval_of(found.seconds)
    said = f"the column {axis!r} holds dates and times ({found.form}) and is no sensor"
    if interval is None:
        notes = [f"{said}; time does not go on in it, so it gives no interval"]
        breaks = []
    else:
        breaks = breaks_of(found.seconds, interval)
        notes = [f"{said}: rows lie {interval:g} s apart"]
    if breaks:
        notes.append(f"time jumps at {len(breaks)} rows, and no window crosses these")
    if len(times) > 1:
        others = [name for name in times if name != axis]
        notes.append(f"{len(others)} more columns of dates and times left out: {listed(tuple(others))}")
    return interval, breaks, tuple(notes)
