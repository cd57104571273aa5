"""Is the gradient local noise?"""

from contextlib import suppress

import torch

from signstep.diagnosing.bench import Bench, Cure, TooDearError, cosine, median
from signstep.diagnosing.student import imitated
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.engine.keys import Key
from signstep.engine.threat import ThreatModel
from signstep.engine.tree import tree_map
from signstep.errors import GradientError

FEW, DRAWS = 32, 3
# Of eps: how far away the neighbours are.
REACH = 1 / 8
# Median cosine between the gradient at a point and at its neighbours; below, gradients are noise.
ALIKE = 0.3

CAUSE = "shattered gradients"


def _run(bench: Bench) -> Observed:
    if not bench.seen.get("path", True):
        return not_asked("there is no gradient, see graph")
    try:
        with bench.asking(bench.few(FEW)) as question:
            key, region = Key(bench.search.seed).fold("smoothness"), question.region
            draws = key.draws(question.problem.ids, question.problem.ids.device)
            d = region.sample(draws.of("place"))
            here, first = bench.gradient(question, region.land(d), key)
            near = region.resized(region.radius * REACH)
            turned, moved = [], []
            for number in range(DRAWS):
                there = region.land(region.project(tree_map(torch.add, d, near.sample(draws.of(number)))))
                score, other = bench.gradient(question, there, key)  # the same draws of a random model
                turned.append(cosine(first, other))
                moved.append((score.loss - here.loss).abs() / here.loss.abs().clamp_min(1e-12))
    except GradientError:
        return not_asked("there is no path for gradients, see graph")
    alike = median(torch.stack(turned).mean(0))
    change = float(torch.nan_to_num(torch.stack(moved).mean(0), 0.0, 1.0, 1.0).clamp_max(1).mean())
    told = (
        f"gradients {REACH:g} eps apart have a median cosine of {alike:.2f}; the loss changes by {change:.0%} of itself"
    )
    if alike >= ALIKE:
        return Observed(alike, False, told)
    cures = [Cure("averaged-pgd:steps=20,samples=8,reach=1"), *_smoothed(bench)]
    return Observed(alike, True, told, suspects=(Suspect(CAUSE, told, tuple(cures)),))


def _smoothed(bench: Bench) -> list[Cure]:
    """What does not look at gradients of the model: differences over a part of eps, and a student."""
    eps = bench.threat.eps if isinstance(bench.threat, ThreatModel) else None
    found = [Cure(f"spsa:queries=1000,samples=40,sigma={eps / 4:.6g}")] if isinstance(eps, float) and eps > 0 else []
    with suppress(TooDearError):
        found += imitated(bench)
    return found


ROW = Test(
    "smoothness",
    "Is the gradient local noise?",
    f"median cosine of the gradients at a point and {REACH:g} eps away; the relative change of the loss",
    f"cosine below {ALIKE}",
    "Pintor et al. 2022 (arXiv:2106.09947), F2; Tramèr et al. 2020 (arXiv:2002.08347), section 5",
    (CAUSE,),
    "averaged-pgd, differences of the loss over a part of eps (spsa), a student",
    f"{DRAWS + 1} forwards and backwards on {FEW} examples",
    _run,
)
