"""Columns of dates and times: which they are, and how far apart their rows lie.

A column is one if more than half of its filled cells are no numbers, and the first of these reads as a date or time in
one of `FORMS`; every other cell must read in the same form. ISO 8601 comes first, with or without a time zone; dates as
3/4/2024 are read month first where every row allows it. A time without a zone is taken as UTC: only differences are
used.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from signstep.data.targets import spelled

_DAYS = ("%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%d-%m-%Y", "%d %b %Y", "%b %d %Y", "%b %d, %Y", "%d-%b-%Y")
_HOURS = ("%H:%M:%S.%f", "%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p")
_ZONED = tuple(f"{hours}{zone}" for hours in _HOURS for zone in (" %z", "%z", " %Z"))
ISO = "ISO 8601"
FORMS = (ISO, *(f"{day} {hours}" for day in _DAYS for hours in (*_HOURS, *_ZONED)), *_DAYS, *_HOURS)
"""ISO 8601, and forms as `datetime.strptime` writes them."""

_LONGEST = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Times(NamedTuple):
    """Seconds of each row (None where a cell is not of the form), and the form."""

    seconds: list[float | None]
    form: str


def read_times(cells: Sequence[str]) -> Times | None:
    """The times of a column, or None where it is no column of times."""
    texts = [cell for cell in cells if cell and spelled(cell) is None]
    if 2 * len(texts) <= sum(map(bool, cells)):
        return None
    first = texts[0]
    best: Times | None = None
    for form in (form for form in FORMS if _seconds(first, form) is not None):
        found = Times([_seconds(cell, form) for cell in cells], form)
        if best is None or found.seconds.count(None) < best.seconds.count(None):
            best = found
        if best.seconds.count(None) == 0:
            break
    return best


def interval_of(seconds: Sequence[float | None]) -> float | None:
    """The usual time from one row to the next, in seconds, or None where time does not go on."""
    pairs = pairwise(seconds)
    steps = [after - before for before, after in pairs if before is not None and after is not None]
    usual = median(steps) if steps else 0.0
    return usual if usual > 0 else None


def breaks_of(seconds: Sequence[float | None], interval: float) -> list[int]:
    """The rows to which time jumps: back, on the spot, or by more than one and a half intervals."""
    jumps, last = [], None
    for row, now in enumerate(seconds):
        if now is None:
            last = None if last is None else last + interval  # a row without its time takes the place that is free
            continue
        if last is not None and not 0.5 * interval < now - last < 1.5 * interval:
            jumps.append(row)
        last = now
    return jumps


def _seconds(cell: str, form: str) -> float | None:
    if not cell or len(cell) > _LONGEST or not cell.isascii():
        return None
    try:
        read = datetime.fromisoformat(cell) if form == ISO else datetime.strptime(cell, form)
        zoned = read if read.tzinfo is not None else read.replace(tzinfo=UTC)
        return (zoned - _EPOCH).total_seconds()
    except (ValueError, OverflowError):
        return None
