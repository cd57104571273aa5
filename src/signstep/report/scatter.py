"""Clean against robust accuracy of several results as an SVG file that stands alone."""

from collections.abc import Mapping
from html import escape

from signstep.auditing.result import Result
from signstep.plain import one_line
from signstep.report.charts import round_step

_WIDTH, _HEIGHT = 560, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 430, 24, 350
_STYLE = (
    "svg{background:#fff;font:12px sans-serif;color:#222}.grid{stroke:#ddd}.axis{stroke:#888;fill:none}"
    ".span{stroke:#1565c0;opacity:.45}.point{fill:#1565c0}text{fill:#222}"
)


def scatter(results: Mapping[str, Result]) -> str:
    """One point for each result, with both 95 % Wilson intervals as whiskers, numbered as in the legend beside it."""
    spans = [(r.interval(r.clean_right), r.interval(r.held)) for r in results.values()]
    x_axis, y_axis = (_axis([end for pair in spans for end in pair[side]]) for side in (0, 1))
    parts = [_grid(x_axis, "x"), _grid(y_axis, "y")]
    for number, (name, result) in enumerate(((one_line(name), result) for name, result in results.items()), 1):
        clean, robust = spans[number - 1]
        x = _at(result.clean_accuracy, x_axis, _LEFT, _RIGHT)
        y = _at(result.robust_accuracy, y_axis, _BOTTOM, _TOP)
        across = [_at(end, x_axis, _LEFT, _RIGHT) for end in clean]
        down = [_at(end, y_axis, _BOTTOM, _TOP) for end in robust]
        said = f"{name}: clean {100 * result.clean_accuracy:.1f} %, robust {100 * result.robust_accuracy:.1f} %"
        parts.append(
            f'<g><title>{escape(said)}</title><path class="span" d="M{across[0]:.1f} {y:.1f}H{across[1]:.1f}'
            f'M{x:.1f} {down[0]:.1f}V{down[1]:.1f}"/><circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
            f'<text x="{x + 6:.1f}" y="{y - 6:.1f}">{number}</text></g>'
        )
        shown = name if len(name) <= 17 else f"{name[:16]}…"
        parts.append(f'<text x="{_RIGHT + 14}" y="{_TOP + 18 * number}">{number} {escape(shown)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
        f"<title>Clean against robust accuracy</title><desc>One numbered point for each result; lines are 95 % "
        f"intervals. The axes do not begin at zero.</desc><style>{_STYLE}</style>{''.join(parts)}"
        f'<path class="axis" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>'
        f'<text x="{(_LEFT + _RIGHT) / 2:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">clean accuracy</text>'
        f'<text x="4" y="{_TOP - 8}">robust accuracy</text></svg>\n'
    )


def _axis(ends: list[float]) -> tuple[float, float, float]:
    """Low end, high end and step of an axis that holds all ends."""
    low, high = min(ends), max(ends)
    step = round_step(max(high - low, 0.02) / 4)
    first = max(0, int(low / step + 1e-9))
    last = min(int(1 / step + 1e-9), int(high / step - 1e-9) + 1)
    return first * step, max(last, first + 1) * step, step


def _at(value: float, axis: tuple[float, float, float], begin: int, end: int) -> float:
    return begin + (end - begin) * (value - axis[0]) / (axis[1] - axis[0])


def _grid(axis: tuple[float, float, float], which: str) -> str:
    low, high, step = axis
    lines = []
    for k in range(round((high - low) / step) + 1):
        text = f"{100 * (low + k * step):.4g} %"
        if which == "x":
            x = _at(low + k * step, axis, _LEFT, _RIGHT)
            lines.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{_BOTTOM}"/>')
            lines.append(f'<text x="{x:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{text}</text>')
        else:
            y = _at(low + k * step, axis, _BOTTOM, _TOP)
            lines.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
            lines.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return "".join(lines)
