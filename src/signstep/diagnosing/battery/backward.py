"""Is the gradient that of the loss? Autograd believes every backward pass; differences of the loss believe none."""

from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from signstep.diagnosing.battery import graph
from signstep.diagnosing.battery.numerics import unfit, widened
from signstep.diagnosing.battery.smoothness import smoothed
from signstep.diagnosing.bench import Bench, Cure, TooDearError, flat
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.engine.keys import Key
from signstep.engine.tree import Tree, tree_map
from signstep.errors import GradientError, ModelError, VictimError

FEW, WAYS = 16, 3
# Of eps: half of the way over which the loss is compared. A ripple shows its own slope over the shortest.
PARTS = (1e-2, 1e-4, 1e-6)
# |g.d - difference| / the larger of both: beyond, they disagree.
MISSED = 0.5
# Between two differences over ways of different length, which must agree before they are believed.
STEADY = 0.1
# Of the examples.
MANY = 0.25


def _run(bench: Bench) -> Observed:
    wide = widened(bench)
    why = "a step without a gradient is known, see graph" if bench.seen.get("cut") else unfit(bench)
    if why or wide is None:
        return not_asked(why)
    held = bench.model
    try:
        bench.model = wide
        missed, of = _compared(bench)
    except GradientError:
        return not_asked("there is no path for gradients, see graph")
    except (ModelError, RuntimeError) as error:
        if isinstance(error, VictimError):
            raise
        return not_asked(f"the model does not run in float64 ({type(error).__name__})")
    finally:
        bench.model = held
    share = missed / max(1, of)
    told = f"on {missed} of {of} examples the gradient is not the slope of the loss, by differences in float64"
    if share <= MANY:
        return Observed(share, False, told)
    cures = [Cure("bpda-pgd:steps=40")]
    with suppress(TooDearError):
        cures += smoothed(bench)
    cures.append(Cure("square:queries=2000", last=True))
    remedy = "differentiate what the model computes: leave out its own backward passes and hooks on gradients"
    return Observed(share, True, told, suspects=(Suspect(graph.CAUSE, told, tuple(cures), remedy, True),))


def _compared(bench: Bench) -> tuple[int, int]:
    """On how many examples gradient and differences disagree in most directions, and of how many."""
    index = bench.few(FEW)
    bench.need(len(index) * (3 + 2 * WAYS * len(PARTS)))
    with bench.asking(index) as question:
        key, region = Key(bench.search.seed).fold("backward"), question.region
        draws = key.draws(question.problem.ids, question.problem.ids.device)
        problem = replace(question.problem, warm=None)
        place: Tree = tree_map(Tensor.double, region.land(region.sample(draws.of("place"))))
        gradient = flat(bench.gradient(question, place, key)[1])
        wrong = []
        for number in range(WAYS):
            way: Tree = tree_map(Tensor.double, region.vertex(draws.of("way", number)))
            slope = (gradient * flat(way)).sum(1)
            found = []
            for part in PARTS:
                bench.spend(2 * len(index))
                with torch.no_grad():
                    ahead, back = (
                        problem(tree_map(lambda x, d, h=sign * part: x + h * d, place, way), key).loss.double()
                        for sign in (1, -1)
                    )
                found.append(((ahead - back) / (2 * part)).to(slope.device))
            wrong.append(_disagree(slope, torch.stack(found)))
    most = torch.stack(wrong).double().mean(0) > 0.5
    return int(most.sum()), len(index)


def _disagree(slope: Tensor, found: Tensor) -> Tensor:
    """Where g.d (R,) is none of the differences (n, R), and two of these agree with each other (R,)."""
    found = found.nan_to_num(0.0, 0.0, 0.0)
    size = torch.maximum(found.abs(), slope.abs())
    floor = 1e-6 * size.amax().clamp_min(1e-30)
    missed = ((found - slope).abs() > MISSED * size) & (size > floor)
    near = (found[1:] - found[:-1]).abs() <= STEADY * torch.maximum(found[1:].abs(), found[:-1].abs()) + floor
    return missed.all(0) & near.any(0)


ROW = Test(
    "backward",
    "Is the gradient the slope of the loss?",
    "share of examples on which g.d is none of the differences of the loss along d, over three lengths, in float64",
    f"above {MANY}",
    "Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 3 (incorrect gradients)",
    (graph.CAUSE,),
    "bpda-pgd, which differentiates what is computed; differences over a part of eps (spsa), a student, square",
    f"{2 * WAYS * len(PARTS) + 2} forwards and 1 backward on {FEW} examples",
    _run,
)
