"""The attacks side by side: what they found, what they cost, what their gradients were worth, what they need."""

import math

from signstep.auditing.record import EXACT_SEARCH, AttackResult
from signstep.auditing.result import Result
from signstep.auditing.table import iterated
from signstep.engine.statistics import wilson
from signstep.report.numerals import NONE, fraction, interval, number, percent, seconds, share
from signstep.report.table import Column, Table


def targeted(result: Result) -> bool:
    """Whether the attacks led towards classes of their choice."""
    return bool(result.terms.get("goal") == "targeted")


def success(result: Result, entry: AttackResult) -> tuple[int, int]:
    """Successes of an attack and the examples that could be one.

    Untargeted: the fooled of the examples right untouched. Targeted: those led to the target, of those not there
    before.
    """
    if targeted(result):
        return entry.reached or 0, result.examples - (entry.already or 0)
    return entry.fooled, result.clean_right


def strongest(result: Result) -> AttackResult | None:
    """The attack with the most successes; among equals the one that searched longest.

    On a ladder the rungs met different examples: this is the one that felled the most.
    """
    return max(result.attacks, key=lambda entry: (success(result, entry)[0], entry.backwards), default=None)


def overview(result: Result) -> Table:
    """What each attack found, and all of them combined."""
    aim = targeted(result)
    columns = (
        Column("Attack", numeric=False),
        Column("Led to the target, of those not there" if aim else "Fooled, of the right"),
        Column("Right and kept off the target" if aim else "Robust accuracy"),
        Column("95 % interval"),
        Column("Accuracy where attacked"),
        Column("Undetermined"),
        Column("Median size of the change"),
        Column("Passes per example, forward + backward"),
        Column("Seconds"),
    )
    rows = [_found(result, entry) for entry in result.attacks]
    worst = f"{percent(result.success_rate)} ({fraction(result.fooled, result.clean_right)})"
    rows.append(
        (
            "all combined",
            NONE if aim else worst,
            f"{percent(result.robust_accuracy)} ({fraction(result.held, result.examples)})",
            interval(result.held, result.examples),
            *(NONE,),
            str(result.undetermined),
            *(NONE, NONE),
            number(result.seconds),
        )
    )
    caption = (
        f"Attacks on {result.examples} examples, {result.clean_right} of them right untouched. Combined: for each "
        "example the worst that any attack did; the seconds there are those of the whole audit."
    )
    return Table("table-attacks", caption, columns, tuple(rows), total=True)


def cost(result: Result) -> Table:
    """Passes and time of each attack."""
    columns = (
        Column("Attack", numeric=False),
        Column("Forward passes per example"),
        Column("Backward passes per example"),
        Column("Seconds"),
        Column("Time per example"),
        Column("Time per success"),
    )
    rows = []
    for entry in result.attacks:
        hits, _ = success(result, entry)
        rows.append(
            (
                entry.name,
                f"{entry.forwards:.2f}",
                f"{entry.backwards:.2f}",
                number(entry.seconds),
                _time_each(entry),
                seconds(entry.seconds / hits) if hits else NONE,
            )
        )
    caption = (
        f"Cost on {result.terms.get('device', 'an unrecorded device')}; means over all examples. Passes count the "
        "verdict on the returned point, and those of surrogates."
    )
    return Table("table-cost", caption, columns, tuple(rows))


def health(result: Result) -> Table:
    """What the gradients were like."""
    columns = (
        Column("Attack", numeric=False),
        Column("Gradients looked at"),
        Column("Of these dead"),
        Column("Coordinates exactly zero"),
        Column("NaN or infinite"),
        Column("Underflow"),
    )
    rows = [
        (
            entry.name,
            str(entry.gradients),
            fraction(entry.dead_gradients, entry.gradients),
            *(percent(part) for part in (entry.zero, entry.nonfinite, entry.underflow)),
        )
        if entry.gradients
        else (entry.name, "uses none", *(NONE,) * 4)
        for entry in result.attacks
    ]
    caption = (
        "Gradient health. A gradient is dead when none of its coordinates can be used; underflow means too small for "
        "full precision. Shares are of all coordinates of all gradients."
    )
    return Table("table-health", caption, columns, tuple(rows))


def comparison(result: Result) -> Table:
    """The attributes by which the field compares attacks, as measured on this model."""
    columns = (
        Column("Attack", numeric=False),
        Column("Needs", numeric=False),
        Column("Steps (backward passes per example)"),
        Column("Median distance"),
        Column("Time per example"),
        Column("Goal", numeric=False),
        Column("Share of successes"),
        Column("Transfers", numeric=False),
        Column("Sensitive to masked gradients", numeric=False),
    )
    rows = [
        (
            entry.name,
            _knowledge(result, entry),
            _steps(entry),
            number(entry.distance),
            _time_each(entry),
            "targeted" if targeted(result) else "untargeted",
            percent(share(*_met(result, entry))),
            _carries_over(entry),
            _masking(result, entry),
        )
        for entry in result.attacks
    ]
    moved = "surrogate" in str(result.terms.get("gradients_from"))
    if any(entry.transfers for entry in result.attacks):
        transfer = (
            "Transfers: of the examples that the other model answers rightly untouched, those it gets wrong there."
        )
    else:
        transfer = "Whether the points transfer to other models was not measured (--transfer-to)."
    if moved:
        transfer = f"Every row is a transfer attack: its gradients come from other models. {transfer}"
    rungs = " A rung's figures are those on the examples it met." if result.ladder else ""
    caption = f"The usual comparison of attacks, measured on this model and these examples. {transfer}{rungs}"
    return Table("table-comparison", caption, columns, tuple(rows))


def _found(result: Result, entry: AttackResult) -> tuple[str, ...]:
    hits, of = success(result, entry)
    left = result.left_by(entry)
    return (
        entry.name,
        f"{percent(share(hits, of))} ({fraction(hits, of)})",
        f"{percent(share(left, result.examples))} ({fraction(left, result.examples)})",
        interval(left, result.examples),
        NONE if entry.right_after is None else percent(share(entry.right_after, result.examples)),
        str(entry.undetermined),
        number(entry.distance),
        f"{entry.forwards:.1f} + {entry.backwards:.1f}",
        number(entry.seconds),
    )


def _met(result: Result, entry: AttackResult) -> tuple[int, int]:
    """Successes, and the examples that could be one: on a ladder those that the rung met."""
    hits, of = success(result, entry)
    return hits, min(of, entry.entered) if result.ladder else of


def _steps(entry: AttackResult) -> str:
    word = "one" if entry.steps == 1 else f"{entry.steps}" if entry.steps else "none"
    return f"{word} ({entry.backwards:.2f})"


def _carries_over(entry: AttackResult) -> str:
    if not entry.transfers:
        return "not measured"
    return "; ".join(
        f"{other}: {percent(share(fooled, able))} ({fraction(fooled, able)})"
        for other, (fooled, able) in entry.transfers.items()
    )


def _time_each(entry: AttackResult) -> str:
    return seconds(entry.seconds / entry.entered) if entry.entered else NONE


def _knowledge(result: Result, entry: AttackResult) -> str:
    if entry.needs == "scores":
        return "scores of the model"
    if entry.needs == "labels":
        return "the model's answer alone"
    if entry.name == EXACT_SEARCH:
        return "the layers and their weights"
    if entry.needs == "nothing":
        return "nothing; the model only judges"
    return "gradients of a surrogate" if result.terms.get("gradients_from") == "surrogate" else "gradients of the model"


def _masking(result: Result, entry: AttackResult) -> str:
    """What this result itself shows about it; the catalogue of findings has the thresholds for alarm."""
    if entry.needs != "gradients":
        return "no: it uses no gradient"
    if entry.dead_gradients or entry.undetermined:
        return (
            f"yes: {fraction(entry.dead_gradients, entry.gradients)} gradients dead, {entry.undetermined} undetermined"
        )
    if result.ladder:
        return "see the findings: rungs meet different examples"
    hits, of = success(result, entry)
    for other in result.attacks:
        if other is entry or not _clearly_more(success(result, other), (hits, of)):
            continue
        if other.needs != "gradients" or (iterated(entry) and not iterated(other)):
            return f"yes: {other.name}, which sees less, has {success(result, other)[0]} successes against {hits}"
        if iterated(other) and not iterated(entry) and 2 * hits < success(result, other)[0]:
            return f"yes: one step has {hits} successes, {other.name} {success(result, other)[0]}"
    return "no sign of it here"


def _clearly_more(one: tuple[int, int], other: tuple[int, int]) -> bool:
    if math.isnan(share(*one)) or math.isnan(share(*other)):
        return False
    return wilson(*one)[0] > wilson(*other)[1]
