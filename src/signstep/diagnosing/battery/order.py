"""Do things stand in the right order? More steps, larger eps, gradients: each must find no less than the other."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from signstep.attacks.recipes import needs_of, recipe
from signstep.diagnosing.battery.pairs import LEVEL, Pair, adjusted, pair
from signstep.diagnosing.bench import Bench, Cure, Spec, TooDearError, ladder_of
from signstep.diagnosing.student import imitated
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.engine.keys import Key
from signstep.engine.threat import ThreatModel
from signstep.errors import GradientError
from signstep.model.subject import Subject

MASKED, WEAK, STEP, FAULT = "masked gradients", "attack too weak", "step size", "set-up fault"
QUERIES, FEW = 300, 16
NOISE = "random-sign:restarts=5"
DEAR = (Cure("square:queries=2000", last=True),)


def _run(bench: Bench) -> Observed:
    assert bench.named is not None
    ladder = ladder_of(bench.attack) is not None
    gradients = not ladder and needs_of(recipe(bench.attack)) == "gradients"
    own, spec = bench.named.fooled, bench.named.spec
    pairs: list[Pair] = []
    suspects: list[Suspect | None] = []
    left: list[str] = []

    def put(said: str, other: Tensor | None, cause: str, *cures: Cure, remedy: str = "") -> None:
        if other is None:
            return
        found = pair(said, other, own)
        pairs.append(found)
        because = f"{said}: {found.won} to {found.lost}"
        suspects.append(Suspect(cause, because, cures, remedy))

    def fooled(wanted: Spec, **how: Any) -> Tensor | None:
        try:
            return bench.run(wanted, **how).fooled
        except TooDearError:
            left.append(str(wanted))
            return None

    if gradients:
        put("random signs beat the gradient", fooled(NOISE), MASKED, Cure(NOISE), *DEAR)
        steps = recipe(bench.attack).steps
        if steps > 1 and not bench.random:  # of one draw the order says nothing
            single = fooled("fgsm")
            put("one step beats many", single, STEP, Cure("apgd:loss=margin,steps=50"), Cure("fgsm"))
            put(
                "fewer steps beat more",
                fooled(f"pgd:steps={max(2, steps // 4)}"),
                STEP,
                Cure("apgd:loss=margin,steps=50"),
            )
        if isinstance(bench.threat, ThreatModel) and isinstance(bench.threat.eps, float) and bench.threat.eps > 0:
            half = bench.threat.with_eps(bench.threat.eps / 2)
            put(
                "half of eps beats the whole",
                fooled(bench.attack, threat=half),
                MASKED,
                Cure("apgd:loss=margin,steps=50"),
            )
    if bench.search.surrogates and gradients:
        put("its own gradients beat those of the surrogate", fooled("pgd:steps=20", changes={"surrogate": None}), WEAK)
    if bench.form != "labels":
        queries = fooled(f"square:queries={QUERIES}")
        put("queries beat the attack", queries, MASKED, Cure(f"square:queries={QUERIES}"), *DEAR)
    if bench.classes is not None and isinstance(bench.x, Tensor):
        _by_student(bench, put, fooled)
    unverified = bench.named.unverified
    if not pairs:
        return not_asked(f"nothing to compare with{f'; left out for their cost: {left}' if left else ''}")
    ps = adjusted(pairs)
    out = [number for number, p in enumerate(ps) if p < LEVEL]
    told = "; ".join(suspects[number].because for number in out) or f"{len(pairs)} orders hold against {spec}"  # type: ignore[union-attr]
    found = [suspects[number] for number in out]
    if unverified:
        told += f"; {unverified} of its points lie outside ball or box"
        why = f"{unverified} points of {spec} fail verification{_outside(bench)}"
        found.append(Suspect(FAULT, why, (Cure("pgd:steps=40"),), "let the attack project onto ball and box"))
    told += f"; left out for their cost: {', '.join(left)}" if left else ""
    worst = min(range(len(ps)), key=lambda number: ps[number])
    won = float(pairs[worst].won - pairs[worst].lost)
    return Observed(won, bool(out) or unverified > 0, told, ps[worst], tuple(filter(None, found)))


def _outside(bench: Bench) -> str:
    """Which rule points of the attack break, asked once more: of the ball, by its projection; of the box, by clipping.

    Where that cannot be asked, that it is one of the two.
    """
    threat, wrong = bench.threat, ": it projects or clips wrongly"
    if not isinstance(threat, ThreatModel) or not isinstance(bench.x, Tensor) or ladder_of(bench.attack) is not None:
        return wrong
    attack = recipe(bench.attack, oracle=Subject.of(bench.model, bench.search).oracle)
    try:
        with bench.asking(bench.few(FEW)) as question:
            outcome = question.run(attack, Key(bench.search.seed).fold(attack.name))
            bench.spend(int(outcome.forwards.sum() + outcome.backwards.sum()))
            assert isinstance(outcome.x, Tensor)
            assert isinstance(outcome.distance, Tensor)
            point, room = outcome.x.flatten(1).double(), outcome.tolerance
            far = int((outcome.distance.double() > question.region.radius.double() + room).sum())
            out = torch.zeros(len(point), dtype=torch.bool, device=point.device)
            for end, sign in ((threat.low, -1), (threat.high, 1)):
                if isinstance(end, float):
                    out |= (sign * (point - end)).amax(1) > room
    except (TooDearError, GradientError):
        return wrong
    found = [f"{far} of {len(point)} leave the ball: it does not project"] * bool(far)
    found += [f"{int(out.sum())} of {len(point)} leave the box: it does not clip"] * bool(out.any())
    return f"; {', '.join(found)}" if found else wrong


def _by_student(bench: Bench, put: Callable[..., None], fooled: Callable[..., Tensor | None]) -> None:
    """Transfer from a small network that was trained on the model's answers."""
    with suppress(TooDearError):
        cures = imitated(bench)
        if cures:
            found = fooled(cures[0].rung, changes=cures[0].changes, name=cures[0].name)
            put("a student's gradients beat the attack", found, MASKED, *cures)


ROW = Test(
    "order",
    "Do things stand in the right order?",
    "examples felled by the weaker attack alone, less those by the attack alone, for each pair",
    f"exact paired p < {LEVEL}, by Holm's rule over the pairs",
    "Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 3.1; Carlini et al. 2019 (arXiv:1902.06705)",
    (MASKED, WEAK, STEP, FAULT),
    "the stronger of each pair",
    f"random signs, FGSM, fewer steps, half of eps, {QUERIES} queries of square, a student and 20 steps along it",
    _run,
)
