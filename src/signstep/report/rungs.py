"""A ladder: its rungs, how robust accuracy fell with time, and what attacks that only ask cost an attacker."""

from markupsafe import Markup

from signstep.auditing.figures import Step, steps
from signstep.auditing.record import AttackResult
from signstep.auditing.result import Result
from signstep.auditing.table import asks
from signstep.engine.statistics import quantile, wilson
from signstep.report.charts import line_chart
from signstep.report.numerals import NONE, fraction, interval, number, percent, seconds, share
from signstep.report.table import Column, Table

# Needs of an attack as a reader asks for them.
_ASKS = {"scores": "scores", "labels": "the answer alone"}


def ladder_table(result: Result) -> Table:
    """One row for each rung: whom it met, what it found, what was known after it, what it cost."""
    columns = (
        Column("Rung", numeric=False),
        Column("Examples entered"),
        Column("Fallen"),
        Column("Kept off the target after it" if _targeted(result) else "Robust accuracy after it"),
        Column("95 % interval"),
        Column("Passes per example entered, forward + backward"),
        Column("Seconds"),
    )
    rows = [_rung(result, step) for step in steps(result)]
    undetermined = f" {result.undetermined} are undetermined." if result.undetermined else ""
    passes = [sum(part) for part in zip(*((e.forwards, e.backwards) for e in result.attacks), strict=True)] or [
        0.0,
        0.0,
    ]
    rows.append(
        (
            "whole ladder",
            str(result.clean_right),
            str(result.fooled),
            f"{percent(result.robust_accuracy)} ({fraction(result.held, result.examples)})",
            interval(result.held, result.examples),
            f"{passes[0]:.1f} + {passes[1]:.1f}",
            number(sum(entry.seconds for entry in result.attacks)),
        )
    )
    caption = (
        f"The ladder {result.ladder} on {result.examples} examples, {result.clean_right} of them right untouched. Each "
        f"rung attacks those of them that the rungs before have left standing.{undetermined} Passes count the verdict; "
        "in the last row they are those per example of the data."
    )
    return Table("table-attacks", caption, columns, tuple(rows), total=True)


def time_chart(result: Result) -> Markup:
    """Robust accuracy against the time spent, falling at the end of each rung."""
    found = steps(result)
    points = [_point(result, 0.0, result.clean_right), *(_point(result, step.elapsed, step.held) for step in found)]
    return line_chart(
        "time",
        "Robust accuracy against time",
        f"From {percent(points[0][1])} before the first rung to {percent(points[-1][1])} after "
        f"{seconds(points[-1][0])}. The table beside it has all numbers.",
        [("strongest", points)],
        mark=None,
        x_label="seconds of attack, over all examples",
        y_label="right and kept off the target" if _targeted(result) else "robust accuracy",
        unit=1.0,
        stairs=True,
    )


def time_table(result: Result) -> Table:
    """The numbers of the chart."""
    columns = (
        Column("After", numeric=False),
        Column("Time so far"),
        Column("Right and kept off the target" if _targeted(result) else "Robust accuracy"),
        Column("Fell by"),
    )
    before, rows = result.clean_right, [_moment(result, "no attack", 0.0, result.clean_right, NONE)]
    for step in steps(result):
        rows.append(_moment(result, step.name, step.elapsed, step.held, _points(result, before - step.held)))
        before = step.held
    caption = f"What was known after each rung, over all {result.examples} examples, with the 95 % interval."
    return Table("table-time", caption, columns, tuple(rows))


def settled(result: Result) -> str:
    """How the last rungs went, in numbers and without a forecast."""
    tried = {entry.name for entry in result.tried}
    found = [step for step in steps(result) if step.name in tried]
    last = [step for step in found if step.fallen]
    if not found or not last:
        return "No rung felled any example."
    tail = found[-3:]
    said = "; ".join(f"{step.name} {fraction(step.fallen, step.entered)}" for step in tail)
    return f"Of those they met the last rungs felled: {said}. What further rungs would find is not known."


def queries_table(result: Result) -> Table | None:
    """What attacks that only ask the model cost an attacker; None if there was none."""
    asked = [entry for entry in result.attacks if asks(entry) and entry.queries is not None]
    if not asked:
        return None
    columns = (
        Column("Attack", numeric=False),
        Column("Asks for", numeric=False),
        Column("Examples"),
        Column("First quartile"),
        Column("Median"),
        Column("Third quartile"),
        Column("Median where it succeeded"),
    )
    caption = (
        "Queries an attacker needs, for each example: until it fell, or until the attack gave up. The verdict on the "
        "returned point is one of them."
    )
    return Table("table-queries", caption, columns, tuple(_asked(result, entry) for entry in asked))


def nearest_table(result: Result) -> Table | None:
    """How far the nearest point that fools lies, by the attacks that look for it; None if none did."""
    found = [entry for entry in result.attacks if entry.nearest is not None]
    if not found:
        return None
    columns = (
        Column("Attack", numeric=False),
        Column("Right examples searched"),
        Column("First quartile"),
        Column("Median"),
        Column("Third quartile"),
    )
    rows = []
    for entry in found:
        column = result.per_example.verdicts[entry.name]
        searched = sum(a == "r" and b != "-" for a, b in zip(result.per_example.clean, column, strict=True))
        lengths = ("nowhere" if length is None else number(length) for length in entry.nearest or ())
        rows.append((entry.name, str(searched), *lengths))
    caption = (
        f"Length of the nearest change found that fools ({result.terms.get('norm', '')}), also beyond eps: quartiles "
        "over the right examples that the attack met. “Nowhere” where none was found."
    )
    return Table("table-nearest", caption, columns, tuple(rows))


def _targeted(result: Result) -> bool:
    return bool(result.terms.get("goal") == "targeted")


def _rung(result: Result, step: Step) -> tuple[str, ...]:
    aside = () if step.entered else result.set_aside
    return (
        step.name,
        "not run" if step.name in aside else str(step.entered),
        NONE if step.name in aside else str(step.fallen),
        f"{percent(share(step.held, result.examples))} ({fraction(step.held, result.examples)})",
        interval(step.held, result.examples),
        f"{step.forwards:.1f} + {step.backwards:.1f}" if step.entered else NONE,
        number(step.seconds),
    )


def _moment(result: Result, name: str, elapsed: float, held: int, fell: str) -> tuple[str | Markup, ...]:
    shown = Markup('{} ({})<span class="quiet">{}</span>').format(
        percent(share(held, result.examples)), held, interval(held, result.examples)
    )
    return name, seconds(elapsed) if elapsed else "0", shown, fell


def _points(result: Result, count: int) -> str:
    return f"{100 * share(count, result.examples):.1f}\u00a0points" if count else "0"


def _point(result: Result, elapsed: float, held: int) -> tuple[float, float, float, float]:
    return (elapsed, share(held, result.examples), *wilson(held, result.examples))


def _asked(result: Result, entry: AttackResult) -> tuple[str, ...]:
    column, passes = result.per_example.verdicts[entry.name], result.per_example.passes[entry.name]
    felled = quantile([float(count) for count, letter in zip(passes, column, strict=True) if letter == "f"], 0.5)
    quartiles = (f"{count:.0f}" for count in entry.queries or ())
    said = _ASKS.get(entry.needs, entry.needs)
    return entry.name, said, str(entry.entered), *quartiles, NONE if felled is None else f"{felled:.0f}"
