"""A part of the page: paragraphs, a table, and one chart of lines, dots or bars, or a map."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup, escape

from signstep.auditing.sections import MARKED, Chart, Line, Section
from signstep.plain import one_line
from signstep.report.charts import round_step
from signstep.report.table import Column, Table

# Wider than the charts of shares: trajectories need room.
_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 544, 30, 248
_ROLES = 6


@dataclass(frozen=True)
class Part:
    """A section, ready for the page."""

    ident: str
    title: str
    text: tuple[Markup, ...]
    table: Table | None
    chart: Markup | None
    caption: str
    legend: tuple[tuple[Markup, str], ...]


def parts(sections: Sequence[Section]) -> tuple[Part, ...]:
    """The sections with anchors, charts and tables."""
    return tuple(_part(f"domain-{number}", section) for number, section in enumerate(sections, start=1))


def _part(ident: str, section: Section) -> Part:
    table = None
    if section.rows:
        numeric = [all(_number(row[place]) for row in section.rows) for place in range(len(section.header))]
        columns = tuple(
            Column(name, numeric=place > 0 and flag)
            for place, (name, flag) in enumerate(zip(section.header, numeric, strict=True))
        )
        table = Table(f"table-{ident}", section.title, columns, tuple(tuple(map(shown, row)) for row in section.rows))
    chart = section.chart
    return Part(
        ident,
        section.title,
        tuple(map(shown, section.text)),
        table,
        None if chart is None else drawn(f"chart-{ident}", chart),
        "" if chart is None else chart.title,
        ()
        if chart is None or chart.kind == "cells"
        else tuple((_sample(chart.kind, role), line.name) for role, line in _roles(chart.lines)),
    )


def shown(text: str) -> Markup:
    """Text of a section, escaped, with the pieces that are marked between ``mark`` tags."""
    return Markup(MARKED.sub(r"<mark>\1</mark>", str(escape(one_line(text)))))


def _number(text: str) -> bool:
    """Whether a cell is a number, perhaps with a unit or an interval, or stands for none."""
    return text in ("", "-", "none") or text[:1] in "+-−.0123456789"


def drawn(ident: str, chart: Chart) -> Markup:
    """The chart as inline SVG."""
    draw = {"bars": _bars, "cells": _cells}.get(chart.kind, _curves)
    return Markup(
        '<svg class="chart wide" viewBox="0 0 {} {}" role="img" aria-labelledby="{ident}-t {ident}-d">'
        '<title id="{ident}-t">{}</title><desc id="{ident}-d">{}</desc>{}'
        '<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>'
        '<text class="label" x="0" y="{}">{}</text></svg>'
    ).format(
        _WIDTH,
        _HEIGHT,
        chart.title,
        chart.description,
        Markup("").join(draw(chart)),
        (_LEFT + _RIGHT) / 2,
        _HEIGHT - 6,
        chart.x_label,
        _TOP - 16,
        chart.y_label,
        ident=ident,
    )


def _curves(chart: Chart) -> Iterator[Markup]:
    xs = [value for line in chart.lines for value in line.x] or [0.0, 1.0]
    ys = _heights(chart)
    left, right = min(xs), max(xs)
    low, high = _span(min(ys), max(ys))

    def x(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (value - left) / ((right - left) or 1.0)

    y = _vertical(low, high)
    yield from _grid(low, high, y)
    for value in _marks(left, right):
        yield _tick(x(value), f"{value:g}")
    for name, value in chart.limits:
        yield _limit(y(value), name)
    # What is drawn last lies on top: the first line is the one to look at.
    for role, line in reversed(_roles(chart.lines)):
        yield Markup('<g class="trace t{}">').format(role)
        for points in _pieces(line):
            if chart.kind == "lines" and len(points) > 1:
                yield Markup('<polyline points="{}"/>').format(" ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points))
            if chart.kind == "dots" or len(points) <= 12:
                yield from (Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.8"/>').format(x(a), y(b)) for a, b in points)
        yield Markup("</g>")


def _bars(chart: Chart) -> Iterator[Markup]:
    ys = [*_heights(chart), 0.0]
    low, high = _span(min(ys), max(ys))
    y = _vertical(low, high)
    yield from _grid(low, high, y)
    groups, lines = max(1, len(chart.categories)), max(1, len(chart.lines))
    slot = (_RIGHT - _LEFT) / groups
    width = min(34.0, 0.76 * slot / lines)
    for number, name in enumerate(chart.categories):
        middle = _LEFT + slot * (number + 0.5)
        yield _tick(middle, _short(name, slot))
        for role, line in _roles(chart.lines):
            value = line.y[number]
            if value is None:
                continue
            start = middle + (role - lines / 2) * width
            top, bottom = sorted((y(value), y(max(low, 0.0))))
            yield Markup(
                '<rect class="block t{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                "<title>{}, {}: {}</title></rect>"
            ).format(role, start, top, max(1.0, width - 2), max(0.8, bottom - top), name, line.name, f"{value:.4g}")
    for name, value in chart.limits:
        yield _limit(y(value), name)


def _cells(chart: Chart) -> Iterator[Markup]:
    """A map: the darker, the larger; what lies below 0 in another colour."""
    columns, count = chart.lines[0].x if chart.lines else (), max(1, len(chart.lines))
    values = [abs(value) for line in chart.lines for value in line.y if value is not None]
    most = max([*values, *(value for _, value in chart.limits)], default=0.0) or 1.0
    side = min((_RIGHT - _LEFT) / max(1, len(columns)), (_BOTTOM - _TOP) / count)
    for row, line in enumerate(chart.lines):
        for column, value in enumerate(line.y):
            if value is None:
                continue
            yield Markup(
                '<rect class="block t{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.2f}">'
                "<title>{:.4g}</title></rect>"
            ).format(
                int(value < 0), _LEFT + side * column, _TOP + side * row, side, side, min(1.0, abs(value) / most), value
            )
    beside = _LEFT + side * len(columns) + 12
    for place, text in enumerate((f"darkest {most:.3g}", *(["below 0: the other colour"] if _negative(chart) else []))):
        yield Markup('<text x="{:.1f}" y="{}">{}</text>').format(beside, _TOP + 14 + 18 * place, text)


def _negative(chart: Chart) -> bool:
    return any(value is not None and value < 0 for line in chart.lines for value in line.y)


def _roles(lines: Sequence[Line]) -> list[tuple[int, Line]]:
    return [(number % _ROLES, line) for number, line in enumerate(lines)]


def _heights(chart: Chart) -> list[float]:
    values = [value for line in chart.lines for value in line.y if value is not None]
    return [*values, *(value for _, value in chart.limits)] or [0.0, 1.0]


def _span(low: float, high: float) -> tuple[float, float]:
    """A little air above and below; a constant gets a span of its own."""
    if low == high:
        return low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    air = 0.04 * (high - low)
    return (0.0 if 0 <= low < 0.3 * high else low - air), high + air


def _vertical(low: float, high: float) -> Callable[[float], float]:
    return lambda value: _BOTTOM - (_BOTTOM - _TOP) * (value - low) / (high - low)


def _marks(low: float, high: float) -> list[float]:
    """Round numbers between the ends."""
    step = round_step(((high - low) or 1.0) / 5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _grid(low: float, high: float, y: Callable[[float], float]) -> Iterator[Markup]:
    for value in _marks(low, high):
        yield Markup(
            '<path class="grid" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
        ).format(_LEFT, y(value), _RIGHT, _LEFT - 6, y(value) + 4, f"{value:.4g}".replace("-", "−"))


def _tick(x: float, text: str) -> Markup:
    return Markup(
        '<path class="axis" d="M{x:.1f} {bottom}v4"/><text x="{x:.1f}" y="{below}" text-anchor="middle">{text}</text>'
    ).format(x=x, bottom=_BOTTOM, below=_BOTTOM + 17, text=text.replace("-", "−") if text[:1] == "-" else text)


def _limit(y: float, name: str) -> Markup:
    return Markup('<path class="mark" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
        _LEFT, y, _RIGHT, _RIGHT, y - 4, name
    )


def _short(name: str, room: float) -> str:
    letters = max(3, int(room / 6.6))
    return name if len(name) <= letters else name[: letters - 1] + "…"


def _pieces(line: Line) -> list[list[tuple[float, float]]]:
    """The runs of points between gaps."""
    points = zip(line.x, line.y, strict=True)
    return [
        [(x, y) for x, y in run if y is not None]
        for there, run in groupby(points, key=lambda point: point[1] is not None)
        if there
    ]


def _sample(kind: str, role: int) -> Markup:
    """What the legend shows of a line."""
    inside = {
        "lines": '<g class="trace t{}"><polyline points="1,6 23,6"/></g>',
        "dots": '<g class="trace t{}"><circle cx="12" cy="6" r="3"/></g>',
        "bars": '<rect class="block t{}" x="6" y="1" width="11" height="11"/>',
    }[kind]
    return Markup('<svg class="sample" width="24" height="12" aria-hidden="true">{}</svg>').format(
        Markup(inside).format(role)
    )
