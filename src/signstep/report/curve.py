"""How success grows with the size of the change: the security curve, and the smallest size for each example."""

import math
from dataclasses import dataclass

from markupsafe import Markup

from signstep.auditing.result import CurvePoint, Result
from signstep.core.statistics import wilson
from signstep.report.attacks import strongest, targeted
from signstep.report.charts import round_step
from signstep.report.numerals import fraction, interval, percent, share, size, unit
from signstep.report.table import Column, Table

_BINS = 12  # at most


@dataclass(frozen=True)
class Series:
    """One attack over sizes: eps, share of the right answers that fell, and the ends of its interval.

    ``role`` is "strongest", "other" or "control"; it decides how the line is drawn.
    """

    name: str
    role: str
    points: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Histogram:
    """How many right examples first fall in each bin of sizes on the FGSM ray, and how many never do.

    ``edges`` are round numbers; the last may lie above ``top``, the largest size tried.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    never: int
    top: float


def fallen(result: Result) -> str:
    """What happens to an example that counts, in words."""
    return "led to the target" if targeted(result) else "changed"


def series(result: Result) -> tuple[Series, ...]:
    """The curves, the strongest first and controls last.

    An attack that ran at one size alone appears as one point if it is the strongest.
    """
    curves = {name: points for name, points in result.curves.items() if points}
    best, eps = strongest(result), result.terms.get("eps_value")
    if curves and best is not None and best.name not in curves and eps is not None:
        curves[best.name] = (CurvePoint(float(eps), best.fooled),)
    controls = [name for name in curves if name.partition(":")[0] == "random-sign"]
    first = best.name if best is not None else ""
    ranked = sorted(
        (name for name in curves if name not in controls),
        key=lambda name: (-max(point.fooled for point in curves[name]), name != first),
    )
    roles = {name: "strongest" if rank == 0 else "other" for rank, name in enumerate(ranked)}
    return tuple(
        Series(
            name,
            roles.get(name, "control"),
            tuple(
                (p.eps, share(p.fooled, result.clean_right), *wilson(p.fooled, result.clean_right))
                for p in curves[name]
                if result.clean_right
            ),
        )
        for name in (*ranked, *controls)
    )


def curve_table(result: Result, drawn: tuple[Series, ...]) -> Table:
    """The same numbers: one row for each size, one column for each attack."""
    label = result.terms.get("eps", "")
    counts = {name: {point.eps: point.fooled for point in points} for name, points in result.curves.items()}
    best, eps = strongest(result), result.terms.get("eps_value")
    for line in drawn:
        if line.name not in counts and best is not None and eps is not None:
            counts[line.name] = {float(eps): best.fooled}
    sizes = sorted({point for line in drawn for point in counts[line.name]})
    columns = (Column("eps", numeric=False), *(Column(line.name) for line in drawn))

    def cell(name: str, at: float) -> str | Markup:
        count = counts[name].get(at)
        if count is None:
            return ""
        return Markup('{} ({})<span class="quiet">{}</span>').format(
            percent(share(count, result.clean_right)), count, interval(count, result.clean_right)
        )

    rows = tuple((size(at, label), *(cell(line.name, at) for line in drawn)) for at in sizes)
    caption = (
        f"Share of the {result.clean_right} right answers that are {fallen(result)} at each size, with the count and "
        "the 95 % interval."
    )
    return Table("table-curve", caption, columns, rows)


def histogram(result: Result) -> Histogram | None:
    """The smallest sizes of the right examples; None where the ray was not looked at."""
    if not result.curve or result.clean_right == 0:
        return None
    found = [
        eps
        for eps, clean in zip(result.per_example.smallest_eps, result.per_example.clean, strict=True)
        if clean == "r"
    ]
    fell = [eps for eps in found if eps is not None]
    top, counted = max([result.curve[-1].eps, *fell]), unit(result.terms.get("eps", ""))
    step = round_step(top / counted / _BINS) * counted
    counts = [0] * max(1, math.ceil(top / step * (1 - 1e-9)))
    for eps in fell:
        counts[min(len(counts) - 1, max(0, math.ceil(eps / step * (1 - 1e-6)) - 1))] += 1
    return Histogram(tuple(step * k for k in range(len(counts) + 1)), tuple(counts), len(found) - len(fell), top)


def histogram_table(result: Result, bins: Histogram) -> Table:
    """The counts of the histogram and their running share."""
    label = result.terms.get("eps", "")
    rows, total = [], 0
    for low, high, count in zip(bins.edges, bins.edges[1:], bins.counts, strict=False):
        total += count
        rows.append(
            (f"{size(low, label)} to {size(high, label)}", str(count), percent(share(total, result.clean_right)))
        )
    rows.append((f"never up to {size(bins.top, label)}", str(bins.never), ""))
    caption = (
        f"Smallest eps along the FGSM direction at which each of the {result.clean_right} right answers is "
        f"{fallen(result)}; {fraction(bins.never, result.clean_right)} never are. An upper bound: other directions may "
        "need less."
    )
    columns = (Column("Smallest eps (above, to)", numeric=False), Column("Examples"), Column("So far"))
    return Table("table-smallest", caption, columns, tuple(rows))
