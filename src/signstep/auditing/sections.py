"""What a domain adds to a record in the words of its users: paragraphs, tables and one figure, as plain data.

The report draws them and the table prints them; neither knows any domain.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

from signstep.errors import InputError
from signstep.messages import Arg

# What stands between these is marked: by the page with a highlight, in a terminal by the brackets themselves.
_OPEN, _CLOSE = "\u27e6", "\u27e7"
MARKED = re.compile(f"{_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}")

# Differences and sums of numbers below are finite, with all that an axis makes of them.
_LARGEST = 1e300


def marked(text: str) -> str:
    """A piece of a paragraph or of a cell that is to stand out, such as a word that an attack changed.

    >>> f"the {marked('film')} was {marked('good → fine')}"
    'the ⟦film⟧ was ⟦good → fine⟧'
    """
    return _OPEN + text.replace(_OPEN, "").replace(_CLOSE, "") + _CLOSE


@dataclass(frozen=True)
class Line:
    """One line, or one group of bars, of a chart: numbers ``x`` and ``y`` of equal length; None leaves a gap in y."""

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        kind: "lines"; "dots", without lines between them; "bars", one group for each of ``categories``; or "cells", a
            map whose rows are the lines, the first one on top, each with the same ``x``.
        title: short.
        description: what is to be seen, for those who do not see it.
        x_label: under the axis, with the unit.
        y_label: above the axis, with the unit.
        lines: what is drawn; for bars ``x`` is 0, 1, ... over the categories.
        categories: names under the bars.
        limits: horizontal lines to mark, each with its name; of a map what its darkest cell stands for, where several
            maps are to be compared.
    """

    kind: Literal["lines", "dots", "bars", "cells"]
    title: str
    description: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    categories: tuple[str, ...] = ()
    limits: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("lines", "dots", "bars", "cells"):
            raise InputError(Arg("kind", self.kind), remedy="pass lines, dots, bars or cells")
        if self.kind == "cells" and any(line.x != self.lines[0].x for line in self.lines):
            raise InputError("the rows of a map have different x", remedy="give each row the same")
        if any(not abs(level) <= _LARGEST for _, level in self.limits):
            raise InputError(f"a limit lies beyond {_LARGEST:g}", remedy="pass another unit")
        for line in self.lines:
            if len(line.x) != len(line.y):
                raise InputError(
                    f"the line {line.name!r} has {len(line.x)} x and {len(line.y)} y", remedy="pass as many"
                )
            numbers = [*line.x, *(value for value in line.y if value is not None)]
            if any(abs(value) > _LARGEST for value in numbers if math.isfinite(value)):
                raise InputError(f"the line {line.name!r} has numbers beyond {_LARGEST:g}", remedy="pass another unit")
            if not all(map(math.isfinite, numbers)):
                raise InputError(f"the line {line.name!r} has numbers that are not finite", remedy="leave gaps as None")
            if self.kind == "bars" and len(line.y) != len(self.categories):
                raise InputError(
                    f"the bars {line.name!r} are {len(line.y)} for {len(self.categories)} categories",
                    remedy="pass as many",
                )


@dataclass(frozen=True)
class Section:
    """A part of a report: a title, paragraphs, and perhaps a table and a chart.

    ``header`` and ``rows`` are the table, every row as long as the header. Pieces that `marked` gave stand out, in
    paragraphs and cells.
    """

    title: str
    text: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    chart: Chart | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise InputError(
                    f"a row of {self.title!r} has {len(row)} cells, its header {len(self.header)}",
                    remedy="pass as many",
                )
