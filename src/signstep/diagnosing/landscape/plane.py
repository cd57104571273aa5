"""The margin on a plane through an example: along the attacker's direction and along a random one."""

import torch

from signstep.auditing.sections import Chart, Line, Section
from signstep.diagnosing.bench import Bench
from signstep.engine.keys import Key
from signstep.engine.tree import Tree, take, tree_map
from signstep.model.subject import Question

SIDE = 9


@torch.no_grad()
def plane(bench: Bench, question: Question, step: Tree, aside: Tree, key: Key) -> Section | None:
    """The margin of the first example on a grid of displacements a * step + b * aside, a, b from -1 to 1.

    Points are put back into the ball where both together would leave it. One forward pass for each.

    Raises:
        TooDearError: it would cost more than is left.
    """
    one = torch.zeros(1, dtype=torch.int64, device=question.problem.ids.device)
    problem, region = question.problem.take(one), question.region.take(one)
    first, second = take(step, one), take(aside, one)
    shares = torch.linspace(-1, 1, SIDE, dtype=torch.float64, device="cpu").tolist()
    lines = []
    for b in reversed(shares):
        found = []
        for a in shares:
            bench.need(1)
            bench.spend(1)
            d = region.project(tree_map(lambda s, t, a=a, b=b: a * s + b * t, first, second))
            found.append(float(problem(region.land(d), key).ways.double().amin()))
        if not all(abs(value) < 1e290 for value in found):
            return None
        lines.append(Line(f"{b:+.2f}", tuple(shares), tuple(found)))
    wrong = sum(value is not None and value <= 0 for line in lines for value in line.y)
    text = (
        f"One example. Across: the attacker's step, from its opposite to the whole. Upwards: a random direction. The "
        f"answer is wrong at {wrong} of {SIDE * SIDE} points."
    )
    chart = Chart(
        "cells", "Margin on a plane", "The margin on a plane through one example", "share of the attacker's step",
        "share of a random step", tuple(lines),
    )  # fmt: skip
    return Section("The margin on a plane", (text,), chart=chart)
