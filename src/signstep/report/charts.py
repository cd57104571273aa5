"""Charts as inline SVG: no script, colours from the page's style sheet, a title and a description for each."""

import math
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise

from markupsafe import Markup

from signstep.engine.statistics import wilson
from signstep.plain import one_line
from signstep.report.numerals import percent

# Drawn 420 units wide and shown at 340 to 520 pixels, so that letters are never much smaller than on paper.
_WIDTH, _HEIGHT = 420, 284
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 404, 28, 240

Point = tuple[float, float, float, float]


def line_chart(
    ident: str,
    title: str,
    description: str,
    lines: Sequence[tuple[str, Sequence[Point]]],
    *,
    mark: float | None,
    x_label: str,
    y_label: str,
    unit: float,
    stairs: bool = False,
) -> Markup:
    """Shares over sizes, or over time.

    Args:
        ident: for the ids of title and description; unique on the page.
        title: short.
        description: what is to be seen, for those who do not see it.
        lines: role and points (eps, share, low end, high end) of each.
        mark: a size to mark with a vertical line.
        x_label: under the axis.
        y_label: above the axis of shares.
        unit: in which sizes are counted at the axis: 1, or 1/255.
        stairs: a share stays what it is until the next point.
    """
    top = max((point[0] for _, points in lines for point in points), default=1.0) or 1.0
    top = max(top, mark or 0.0)

    def x(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * value / top

    def y(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value

    parts = [_shares_axis(y)]
    parts += [_tick(x(value * unit), f"{value:g}") for value in ticks(top / unit)]
    if mark is not None:
        parts.append(Markup('<path class="mark" d="M{0:.1f} {1}V{2}"/>').format(x(mark), _TOP, _BOTTOM))
    for role, points in reversed(lines):
        if not points:
            continue
        drawn = _staircase(points) if stairs else points
        band = [f"{x(p[0]):.1f},{y(p[3]):.1f}" for p in drawn]
        band += [f"{x(p[0]):.1f},{y(p[2]):.1f}" for p in reversed(drawn)]
        path = " ".join(f"{x(p[0]):.1f},{y(p[1]):.1f}" for p in drawn)
        parts.append(Markup('<g class="line {}">').format(role))
        if len(points) > 1:
            parts.append(Markup('<polygon class="band" points="{}"/>').format(" ".join(band)))
            parts.append(Markup('<polyline points="{}"/>').format(path))
        else:
            whisker = (x(points[0][0]), y(points[0][3]), y(points[0][2]))
            parts.append(Markup('<path d="M{:.1f} {:.1f}V{:.1f}"/>').format(*whisker))
        parts += [_symbol(role, x(p[0]), y(p[1])) for p in points]
        parts.append(Markup("</g>"))
    return _svg(ident, title, description, parts, (x_label, y_label), (_LEFT + _RIGHT) / 2)


def bar_chart(
    ident: str,
    title: str,
    description: str,
    edges: Sequence[float],
    counts: Sequence[int],
    never: int,
    *,
    mark: float | None,
    x_label: str,
    y_label: str,
    unit: float,
) -> Markup:
    """A histogram of sizes, with a bar apart for those that never fall."""
    top = edges[-1]
    most = max(1, *counts, never)
    right = _RIGHT - 62  # what lies right of it belongs to "never"

    def x(value: float) -> float:
        return _LEFT + (right - _LEFT) * value / top

    def y(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value / most

    parts = []
    for value in ticks(most):
        if value == int(value):
            parts.append(_grid_line(y(value), str(int(value))))
    parts += [_tick(x(value * unit), f"{value:g}") for value in ticks(top / unit, 4)]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        parts.append(_rect("bar", x(low) + 1, x(high) - 1, y(count)))
    parts.append(_rect("bar never", right + 20, right + 56, y(never)))
    parts.append(_tick(right + 38, "never"))
    if mark is not None and mark <= top:
        parts.append(Markup('<path class="mark" d="M{0:.1f} {1}V{2}"/>').format(x(mark), _TOP, _BOTTOM))
    return _svg(ident, title, description, parts, (x_label, y_label), (_LEFT + right) / 2)


def bar(held: int, right: int, whole: int) -> Markup:
    """A small bar for a cell: what is robust, inside what is right, of the whole; the numbers stand beside it."""
    low, high = wilson(held, whole)
    width = 120
    return Markup(
        '<svg class="cell-bar" viewBox="0 0 120 14" width="120" height="14" aria-hidden="true">'
        '<path class="rail" d="M0 13.5H120"/>'
        '<rect class="ghost" x="0.5" y="2.5" width="{ghost:.1f}" height="8"/>'
        '<rect class="bar" x="0" y="2" width="{solid:.1f}" height="9"/>'
        '<path class="halo" d="M{low:.1f} 6.5H{high:.1f}"/><path class="whisker" d="M{low:.1f} 6.5H{high:.1f}"/></svg>'
    ).format(
        ghost=max(0.0, width * right / max(1, whole) - 1),
        solid=width * held / max(1, whole),
        low=width * low,
        high=width * high,
    )


def sample(role: str) -> Markup:
    """A piece of a line for the legend."""
    return Markup(
        '<svg class="sample" viewBox="0 0 34 12" width="34" height="12" aria-hidden="true"><g class="line {}">'
        '<polyline points="1,6 33,6"/>{}</g></svg>'
    ).format(role, _symbol(role, 17, 6))


def ticks(top: float, wanted: int = 5) -> list[float]:
    """Round numbers from 0 to ``top``, about so many.

    >>> ticks(0.6), ticks(100, 3)
    ([0.0, 0.2, 0.4, 0.6], [0.0, 50.0, 100.0])
    """
    step = round_step(top / wanted)
    return [round(k * step, 12) for k in range(int(top / step * (1 + 1e-9)) + 1)]


def round_step(rough: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, 50 and so on, also below 1, that is no smaller.

    >>> round_step(0.03), round_step(7.0)
    (0.05, 10.0)
    """
    rough = max(rough, sys.float_info.min)  # what is smaller has no logarithm, or no tenth
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))


def _svg(
    ident: str, title: str, description: str, parts: Sequence[Markup], labels: tuple[str, str], middle: float
) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-labelledby="{ident}-title {ident}-desc">'
        '<title id="{ident}-title">{title}</title><desc id="{ident}-desc">{description}</desc>{body}'
        '<path class="axis" d="M{left} {bottom}H{right}"/>'
        '<text class="label" x="{middle}" y="{below}" text-anchor="middle">{x_label}</text>'
        '<text class="label" x="4" y="{above}">{y_label}</text></svg>'
    ).format(
        width=_WIDTH,
        height=_HEIGHT,
        ident=ident,
        title=one_line(title),
        description=one_line(description),
        body=Markup("").join(parts),
        left=_LEFT,
        right=_RIGHT,
        bottom=_BOTTOM,
        middle=middle,
        below=_HEIGHT - 6,
        x_label=one_line(labels[0]),
        above=_TOP - 14,
        y_label=one_line(labels[1]),
    )


def _staircase(points: Sequence[Point]) -> list[Point]:
    """The points, and before each fall the corner above it."""
    corners = [(after[0], *before[1:]) for before, after in pairwise(points)]
    return [points[0], *(point for pair in zip(corners, points[1:], strict=True) for point in pair)]


def _shares_axis(y: Callable[[float], float]) -> Markup:
    levels = (0.0, 0.25, 0.5, 0.75, 1.0)
    return Markup("").join(_grid_line(y(level), percent(level).replace(".0", "")) for level in levels)


def _grid_line(y: float, text: str) -> Markup:
    return Markup(
        '<path class="grid" d="M{left} {y:.1f}H{right}"/>'
        '<text x="{text_at}" y="{low:.1f}" text-anchor="end">{text}</text>'
    ).format(left=_LEFT, right=_RIGHT, y=y, text_at=_LEFT - 6, low=y + 4, text=text)


def _tick(x: float, text: str) -> Markup:
    return Markup(
        '<path class="axis" d="M{x:.1f} {bottom}v4"/><text x="{x:.1f}" y="{below}" text-anchor="middle">{text}</text>'
    ).format(x=x, bottom=_BOTTOM, below=_BOTTOM + 17, text=text)


def _rect(kind: str, left: float, right: float, top: float) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        kind, left, top, max(0.0, right - left), max(0.0, _BOTTOM - top)
    )


def _symbol(role: str, x: float, y: float) -> Markup:
    """Circle, square or diamond: lines are told apart without colour."""
    if role == "strongest":
        return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.4"/>').format(x, y)
    if role == "other":
        return Markup('<rect x="{:.1f}" y="{:.1f}" width="6" height="6"/>').format(x - 3, y - 3)
    return Markup('<path class="symbol" d="M{:.1f} {:.1f}l4 4l-4 4l-4 -4z"/>').format(x, y - 4)
