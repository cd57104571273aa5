"""Is the gradient local noise?"""

from contextlib import suppress

import torch

from signstep.diagnosing.battery.health import SATURATED, VANISHED
from signstep.diagnosing.bench import Bench, Cure, TooDearError, cosine, flat, median
from signstep.diagnosing.student import imitated
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.engine.keys import Key
from signstep.engine.threat import ThreatModel
from signstep.engine.tree import Tree, tree_map
from signstep.errors import GradientError
from signstep.model.subject import Question

FEW, DRAWS = 32, 3
# Of eps: how far away the neighbours are.
REACH = 1 / 8
# Median cosine between the gradient at a point and at its neighbours; below, gradients are noise.
ALIKE = 0.6
# Parts of a way of length eps over which the gradient is summed up.
PARTS = 8
# Of what the gradients sum up to, what the loss may miss; beyond, it jumps between them.
JUMPS = 0.5
# Of the examples on which it jumps.
MANY = 0.2

# Rows with gradients that can be compared, or nothing is said.
LEAST = 4

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
            alive = flat(first).abs().sum(1) > 0
            for number in range(DRAWS):
                there = region.land(region.project(tree_map(torch.add, d, near.sample(draws.of(number)))))
                score, other = bench.gradient(question, there, key)  # the same draws of a random model
                turned.append(cosine(first, other))
                alive &= flat(other).abs().sum(1) > 0
                moved.append((score.loss - here.loss).abs() / here.loss.abs().clamp_min(1e-12))
            missed = _missed(bench, question, region.vertex(draws.of("way")), key)
    except GradientError:
        return not_asked("there is no path for gradients, see graph")
    if int(alive.sum()) < LEAST:
        return not_asked(f"of {len(alive)} gradients {int(alive.sum())} are there to be compared, see health")
    alike = median(torch.stack(turned).mean(0)[alive])
    change = float(torch.nan_to_num(torch.stack(moved).mean(0)[alive], 0.0, 1.0, 1.0).clamp_max(1).mean())
    told = (
        f"gradients {REACH:g} eps apart have a median cosine of {alike:.2f}; the loss changes by {change:.0%} of "
        f"itself; on a way of length eps it jumps on {missed:.0%} of examples"
    )
    if alike >= ALIKE and missed <= MANY:
        return Observed(alike, False, told)
    cures = [Cure("averaged-pgd:steps=20,samples=8,reach=1"), *smoothed(bench)]
    cause = bench.seen.get("dead", CAUSE)  # where most are dead, what is left of them is no noise of its own
    return Observed(alike, True, told, suspects=(Suspect(cause, told, tuple(cures)),))


def _missed(bench: Bench, question: Question, d: Tree, key: Key) -> float:
    """On which share of examples |J(x + d) - J(x) - sum g.part| / sum |g.part| is large, over the parts of a way.

    g is the gradient in the middle of a part. By the fundamental theorem of calculus this vanishes with the length of
    the parts, for a loss without jumps.
    """

    def at(share: float) -> Tree:
        return question.region.land(tree_map(lambda part: part * share, d))

    bench.need(2 * len(question.problem.ids))
    bench.spend(2 * len(question.problem.ids))
    with torch.no_grad():
        start, end = (question.problem(at(share), key).loss.double() for share in (0.0, 1.0))
    total = torch.zeros_like(start)
    size = torch.zeros_like(start)
    for number in range(PARTS):
        way = flat(tree_map(torch.sub, at((number + 1) / PARTS), at(number / PARTS)))
        g = flat(bench.gradient(question, at((number + 0.5) / PARTS), key)[1])
        total += (g * way).sum(1)
        size += (g * way).sum(1).abs()
    miss = (end - start - total).abs() / size.clamp_min(1e-30)
    return float((miss.nan_to_num(0.0, 1.0, 1.0) > JUMPS).double().mean())


def smoothed(bench: Bench) -> list[Cure]:
    """What does not look at gradients of the model: differences over a part of eps, and a student."""
    eps = bench.threat.eps if isinstance(bench.threat, ThreatModel) else None
    found = [Cure(f"spsa:queries=1000,samples=40,sigma={eps / 4:.6g}")] if isinstance(eps, float) and eps > 0 else []
    with suppress(TooDearError):
        found += imitated(bench)
    return found


ROW = Test(
    "smoothness",
    "Is the gradient local noise?",
    f"median cosine of the gradients at a point and {REACH:g} eps away; share of examples on which the loss jumps",
    f"cosine below {ALIKE}, or jumps on more than {MANY:.0%}",
    "Pintor et al. 2022 (arXiv:2106.09947), F2; Tramèr et al. 2020 (arXiv:2002.08347), section 5",
    (CAUSE, SATURATED, VANISHED),
    "averaged-pgd, differences of the loss over a part of eps (spsa), a student",
    f"{DRAWS + PARTS + 1} forwards and backwards, 2 forwards more, on {FEW} examples",
    _run,
)
