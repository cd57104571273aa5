"""The loss and the margin along the attacker's direction and along random ones, beside what the gradient predicts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.auditing.sections import Chart, Line, Section
from signstep.diagnosing.bench import Bench, flat, median
from signstep.diagnosing.landscape.curvature import ITERATIONS, PLACES, largest
from signstep.diagnosing.landscape.plane import plane
from signstep.diagnosing.view import Shown, View
from signstep.engine.keys import Key
from signstep.engine.tree import Tree, tree_map
from signstep.model.subject import Question

FEW, POINTS, RANDOM = 32, 9, 3
TITLE = "The loss around the examples"


@dataclass(frozen=True)
class Walk:
    """Loss and margin (points, R) on the way along a direction."""

    loss: Tensor
    margin: Tensor


def _run(bench: Bench) -> Shown:
    with bench.asking(bench.some(FEW)) as question:
        key = Key(bench.search.seed).fold("landscape")
        here, gradient = bench.gradient(question, question.x, key)
        step = question.region.step(None, question.region.restrict(gradient), question.region.radius)
        draws = key.draws(question.problem.ids, question.problem.ids.device)
        along = walked(bench, question, step, key)
        others = [walked(bench, question, question.region.vertex(draws.of(n)), key) for n in range(RANDOM)]
        moved = flat(question.region.land(step)) - flat(question.x)
        gain = (flat(gradient) * moved).sum(1).cpu()
        beta, how = largest(bench, question, step, key)
        area = plane(bench, question, step, question.region.vertex(draws.of("aside")), key)
    shares = torch.linspace(0, 1, POINTS, dtype=torch.float64, device="cpu")
    start = here.loss.detach().double().cpu()
    predicted = start + shares.unsqueeze(1) * gain
    missed = (along.loss[-1] - predicted[-1]).abs()
    bound = 0.5 * beta.cpu() * moved.cpu().square().sum(1)
    overshot = along.loss[-1] < along.loss[:-1].amax(0) - 1e-6 * along.loss.abs().amax(0).clamp_min(1e-12)
    turned = float(overshot.double().mean())
    within = float((missed <= bound * (1 + 1e-4) + 1e-6 * start.abs()).double().mean())
    rest = median(missed / gain.abs().clamp_min(1e-12))
    random = torch.stack([walk.loss for walk in others]).mean(0)
    text = (
        f"On {len(start)} examples. Along the step of FGSM the linear model predicts a rise of the loss by "
        f"{median(gain):.3g} (median), and it rises by {median(along.loss[-1] - start):.3g}; along {RANDOM} random "
        f"directions of the same size by {median(random[-1] - start):.3g}.",
        f"The loss misses its linear model by {rest:.0%} of what that predicts. With beta {median(beta):.3g}, from "
        f"{how} ({ITERATIONS} at each of {len(PLACES)} points of the segment, an estimate from below), "
        f"1/2 beta ||d||^2 is {median(bound):.3g}, and covers the rest for {within:.0%} of the examples.",
        f"Overshoot: for {int(overshot.sum())} of {len(start)} examples the loss is lower at the end than on the way."
        if bool(overshot.any())
        else f"No overshoot: the loss of none of {len(start)} examples is lower at the end than on the way.",
    )
    eps = [float(share) for share in shares]
    lines = (
        Line("actual", tuple(eps), _middle(along.loss)),
        Line("predicted by the linear model", tuple(eps), _middle(predicted)),
        Line(f"{RANDOM} random directions", tuple(eps), _middle(random)),
    )
    margins = (
        Line("along the step", tuple(eps), _middle(along.margin)),
        Line("random directions", tuple(eps), _middle(torch.stack([walk.margin for walk in others]).mean(0))),
    )
    drawn = Chart("lines", "Loss, median", "Loss over the share of the step", "share of the step", "loss", lines)
    below = Chart(
        "lines", "Margin, median", "Margin over the share of the step; below 0 it is wrong", "share of the step",
        "margin", margins, limits=(("the answer changes", 0.0),),
    )  # fmt: skip
    sections = [Section(TITLE, text, chart=drawn), Section("The margin on the way", chart=below)]
    sections += [] if area is None else [area]
    return Shown(
        tuple(sections),
        {
            "overshoot": turned,
            "missed by the linear model": rest,
            "curvature": median(beta),
            "covered by 1/2 beta d^2": within,
        },
    )


@torch.no_grad()
def walked(bench: Bench, question: Question, d: Tree, key: Key) -> Walk:
    """Loss and margin at even shares of a displacement; one forward pass for each example and share.

    Raises:
        TooDearError: it would cost more than is left.
    """
    losses, margins = [], []
    for share in torch.linspace(0, 1, POINTS, dtype=torch.float64, device="cpu").tolist():
        bench.need(len(question.problem.ids))
        bench.spend(len(question.problem.ids))
        score = question.problem(question.region.land(tree_map(lambda part, share=share: part * share, d)), key)
        losses.append(torch.nan_to_num(score.loss.double().cpu()))
        margins.append(torch.nan_to_num(score.ways.double().amin(1).cpu(), 0.0, 0.0, 0.0))
    return Walk(torch.stack(losses), torch.stack(margins))


def _middle(values: Tensor) -> tuple[float, ...]:
    return tuple(float(part) for part in values.median(1).values.clamp(-1e290, 1e290))


ROW = View(
    "landscape",
    TITLE,
    "How does the loss go where the attacker goes, and does its gradient say so?",
    "Goodfellow et al. 2015 (arXiv:1412.6572), section 3; Li et al. 2018 (arXiv:1712.09913)",
    f"{(1 + RANDOM) * POINTS} forwards for lines and {4 * len(PLACES) * (ITERATIONS + 1)} passes for the curvature, on "
    f"{FEW} examples; 81 forwards for the plane",
    _run,
)
