"""How accuracy falls as the change grows: the security curve, and the smallest size for each example."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from signstep.auditing.record import CurvePoint
from signstep.auditing.result import Result
from signstep.certify.methods import TITLES
from signstep.engine.statistics import wilson
from signstep.report.attacks import strongest, targeted
from signstep.report.charts import round_step
from signstep.report.numerals import fraction, interval, percent, share, size, unit
from signstep.report.table import Column, Table

_BINS = 12  # at most


@dataclass(frozen=True)
class Series:
    """One attack over sizes: eps, robust accuracy over all examples, and the ends of its interval.

    A curve begins at 0 with clean accuracy; an attack at one size alone is one point. ``counts`` are the examples
    behind each point. ``role`` is "strongest", "other", "control" or "proved"; it decides how the line is drawn. What
    is proved is no attack: its points have as upper end what the attacks leave, so that the truth lies in between.
    """

    name: str
    role: str
    points: tuple[tuple[float, float, float, float], ...]
    counts: tuple[int, ...]


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


def measure(result: Result) -> str:
    """What the curve shows, in words.

    Targeted attacks tell nothing about accuracy: an example that is led to a third class was not led to its target.
    """
    return "right and kept off the target" if targeted(result) else "accuracy"


def series(result: Result) -> tuple[Series, ...]:
    """The curves, the strongest first and controls last.

    An attack that ran at one size alone appears as one point if it is the strongest; so does a ladder.
    """
    curves = {name: _held(result, name, points) for name, points in result.curves.items() if points}
    best, eps = strongest(result), result.terms.get("eps_value")
    first, held_there = (best.name, result.left_by(best)) if best is not None else ("", 0)
    if result.ladder:  # its rungs met different examples: they count together
        first, held_there = f"ladder {result.ladder}", result.held
    if curves and best is not None and first not in curves and eps is not None:
        curves[first] = ((float(eps), held_there),)
    controls = [name for name in curves if name.partition(":")[0] == "random-sign"]
    ranked = sorted(
        (name for name in curves if name not in controls),
        key=lambda name: (not result.ladder or name != first, min(held for _, held in curves[name]), name != first),
    )
    roles = {name: "strongest" if rank == 0 else "other" for rank, name in enumerate(ranked)}
    whole = result.examples
    drawn = tuple(
        Series(
            name,
            roles.get(name, "control"),
            tuple((at, share(held, whole), *wilson(held, whole)) for at, held in curves[name] if whole),
            tuple(held for _, held in curves[name] if whole),
        )
        for name in (*ranked, *controls)
    )
    return (*drawn, *_proved(result, drawn))


def _proved(result: Result, drawn: tuple[Series, ...]) -> tuple[Series, ...]:
    """What bounds prove at each size, below what the attacks leave there."""
    counts = ((0.0, result.clean_right), *result.proved_curve)
    if not result.proved_curve or not drawn:
        return ()
    least = {at: min(p[1] for line in drawn for p in line.points if p[0] == at) for at, _ in counts}
    title = TITLES.get(result.terms["bounds"]["method"], "bounds")
    whole = result.examples
    points = tuple((at, share(count, whole), share(count, whole), least[at]) for at, count in counts)
    return (Series(f"proved ({title})", "proved", points, tuple(count for _, count in counts)),)


def _held(result: Result, name: str, points: Sequence[CurvePoint]) -> tuple[tuple[float, int], ...]:
    """Sizes and how many examples are right and held there: not fooled, and not undetermined.

    How many are undetermined is known at the size of the audit. At larger sizes those that fall first are taken to be
    of them, so that none is subtracted twice: an upper bound, as all robust accuracy is.
    """
    entry = next((entry for entry in result.attacks if entry.name == name), None)
    unclear = result.undetermined if entry is None else entry.undetermined
    eps = result.terms.get("eps_value")
    at_eps = max((point.fooled for point in points if eps is not None and point.eps <= eps * (1 + 1e-9)), default=0)
    left = []
    for point in points:
        larger = eps is not None and point.eps > eps * (1 + 1e-9)
        still = max(0, unclear - max(0, point.fooled - at_eps)) if larger else unclear
        left.append((point.eps, max(0, result.clean_right - point.fooled - still)))
    return ((0.0, result.clean_right), *left)


def curve_table(result: Result, drawn: tuple[Series, ...]) -> Table:
    """The same numbers: one row for each size, one column for each attack."""
    label = result.terms.get("eps", "")
    counts = {line.name: {at[0]: held for at, held in zip(line.points, line.counts, strict=True)} for line in drawn}
    sizes = sorted({at for line in drawn for at in counts[line.name]})
    columns = (Column("eps", numeric=False), *(Column(line.name) for line in drawn))

    def cell(name: str, at: float) -> str | Markup:
        held = counts[name].get(at)
        if held is None:
            return ""
        return Markup('{} ({})<span class="quiet">{}</span>').format(
            percent(share(held, result.examples)), held, interval(held, result.examples)
        )

    rows = tuple((size(at, label), *(cell(line.name, at) for line in drawn)) for at in sizes)
    what = "Share that is right and kept off the target" if targeted(result) else "Accuracy"
    caption = f"{what} at each size, over all {result.examples} examples, with the count and the 95 % interval."
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
