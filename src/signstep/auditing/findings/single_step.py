"""FGSM beside attacks of several steps: what the two say of each other, and of the model."""

from collections.abc import Sequence
from dataclasses import replace

from signstep.auditing.findings.counting import felled, more, named, only, singles
from signstep.auditing.findings.rule import FindingRow, Rule
from signstep.auditing.findings.specimens import changed, healthy, with_attack
from signstep.auditing.record import AttackResult, CurvePoint, Record
from signstep.auditing.table import iterated
from signstep.engine.statistics import wilson


def _iterated_weaker(result: Record) -> str:
    # On a ladder the two never met the same examples.
    for single, others in () if result.ladder else singles(result):
        for entry in others:
            fgsm_only, other_only = only(felled(result, single), felled(result, entry))
            if more(fgsm_only, other_only):
                return (
                    f"{entry.name} fools {entry.fooled} of {result.clean_right}, {single.name} {single.fooled}; "
                    f"{fgsm_only} fall to {single.name} only, {other_only} to {entry.name} only"
                )
    return ""


ITERATED_WEAKER = FindingRow(
    Rule(
        "SS101",
        "iterated attack weaker than FGSM",
        "PGD contains FGSM's step; if it finds less, its step size, projection, mode or loss is wrong for this model, "
        "or gradients away from the clean input are masked.",
        "Try more steps with a smaller step (pgd:steps=100), other losses (--loss margin), and restarts; attack the "
        "whole pipeline.",
    ),
    _iterated_weaker,
    # Of 300 that fall to FGSM, PGD misses 10 and finds 2 others; of 13 so different, 3 others may be chance.
    provoked=lambda: changed("pgd", "h" * 10 + "f" * 292 + "h" * 698),
    just_not=lambda: changed("pgd", "h" * 10 + "f" * 293 + "h" * 697),
)


def _single_step_fails(result: Record) -> str:
    return next(filter(None, (_fails(result, single, others) for single, others in singles(result))), "")


def _fails(result: Record, single: AttackResult, others: Sequence[AttackResult]) -> str:
    if not others or not result.clean_right:
        return ""
    if result.ladder:
        # A rung that met all right examples, beside what fell to it and to the iterated rungs together.
        count = sum(felled(result, single, *others)) if single.entered >= result.clean_right else 0
        best, name = count, "with the iterated rungs"
    else:
        strongest = max(others, key=lambda entry: entry.fooled)
        best, name = strongest.fooled, strongest.name
    gap = (best - single.fooled) / result.clean_right
    if gap < 0.25 or best < 2 * single.fooled:
        return ""
    return f"{single.name} fools {single.fooled} of {result.clean_right}, {name} {best}"


SINGLE_STEP_FAILS = FindingRow(
    Rule(
        "SS102",
        "FGSM fails where PGD succeeds",
        "The loss is strongly curved or masked around the data, as after FGSM training that collapsed: one step says "
        "nothing about this model.",
        "Never report the FGSM figure alone; for training see catastrophic overfitting (random start, N-FGSM, "
        "GradAlign).",
    ),
    _single_step_fails,
    # PGD fools 400 of 900: a quarter more than 175.
    provoked=lambda: changed("fgsm", "f" * 175 + "h" * 825),
    just_not=lambda: changed("fgsm", "f" * 176 + "h" * 824),
)


def _success_falls(result: Record) -> str:
    for before, after in zip(result.curve, result.curve[1:], strict=False):
        if before.fooled > after.fooled and result.clean_right:
            low, _ = wilson(before.fooled, result.clean_right)
            _, high = wilson(after.fooled, result.clean_right)
            if high < low:
                return f"fgsm fools {before.fooled} at eps {before.eps:.4g} and {after.fooled} at eps {after.eps:.4g}"
    return ""


def _curve(*fooled: int) -> Record:
    points = tuple(CurvePoint(0.1 * place, count) for place, count in enumerate(fooled, start=1))
    return replace(healthy(), curves={"fgsm": points})


SUCCESS_FALLS = FindingRow(
    Rule(
        "SS103",
        "success falls as eps grows",
        "A larger ball contains the smaller one, so a sound attack cannot find less; FGSM alone may overshoot, and "
        "label leaking makes it worse.",
        "Rely on attacks that search inside the ball (pgd), not on the single step, at these sizes.",
    ),
    _success_falls,
    # From 442 on the two intervals touch.
    provoked=lambda: _curve(500, 441),
    just_not=lambda: _curve(500, 442),
)


def _labels_leak(result: Record) -> str:
    single = named(result, "fgsm")
    if single is None or single.right_after is None or single.right_after <= result.clean_right:
        return ""
    return f"{single.right_after} of {result.examples} right at the FGSM points, {result.clean_right} untouched"


LABELS_LEAK = FindingRow(
    Rule(
        "SS105",
        "accuracy under FGSM above clean accuracy",
        "The perturbation tells the model the right label (label leaking): the sign of FGSM training from the clean "
        "point that has collapsed.",
        "Look at PGD; retrain with a random start and watch a held-out PGD accuracy.",
    ),
    _labels_leak,
    provoked=lambda: with_attack("fgsm", right_after=901),
    just_not=lambda: with_attack("fgsm", right_after=900),
)


def _none_iterated(result: Record) -> str:
    if any(iterated(entry) for entry in result.tried):
        return ""
    return f"attacks run: {', '.join(entry.name for entry in result.tried) or 'none'}"


NONE_ITERATED = FindingRow(
    Rule(
        "SS109",
        "no iterated attack was run",
        "FGSM is one linear step. Models that survive it often fall to PGD entirely.",
        "Add pgd, with steps and restarts.",
    ),
    _none_iterated,
    provoked=lambda: with_attack("pgd", steps=1),
    just_not=lambda: with_attack("pgd", steps=2),
)


ROWS = (ITERATED_WEAKER, SINGLE_STEP_FAILS, SUCCESS_FALLS, LABELS_LEAK, NONE_ITERATED)
