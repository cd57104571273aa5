"""The smallest sensor error that causes failure: halving the size, with an attack at each."""

from typing import NamedTuple

import torch
from torch import Tensor

from signstep.api import attack
from signstep.domains.control.rollout import ClosedLoop
from signstep.domains.control.threat import SensorThreat
from signstep.engine.attack import Attack
from signstep.engine.tasks import Objective
from signstep.model.declaration import Model
from signstep.model.search import Search


class Smallest(NamedTuple):
    """For each start (R,): the smallest eps that was seen to fail, inf where none was; and that error (R, T, S).

    An upper bound: a stronger attack may need less. ``when`` (R,) is the sample at which the state passes the limit, -1
    where it never does.
    """

    eps: Tensor
    error: Tensor
    when: Tensor


def smallest_error(
    loop: ClosedLoop,
    start: Tensor,
    steps: int,
    *,
    threat: SensorThreat,
    recipe: str | Attack = "pgd",
    largest: float = 2.0,
    halvings: int = 6,
    seed: int = 0,
) -> Smallest:
    """Halve the bracket (0, largest] of each start ``halvings`` times; eps is a multiple of the declared budgets.

    A start that fails without any error has eps 0. Failure is not monotone in eps for an attack that may miss; what is
    returned did fail, at that size and with that error.
    """
    error = start.new_zeros(len(start), steps, start.shape[1])
    with torch.no_grad():
        fails = loop(error=error, start=start) >= 0
    best = error.clone()
    high = torch.where(fails, 0.0, torch.inf).double()
    low = torch.zeros_like(high)
    todo = (~fails).nonzero().squeeze(1)
    size = torch.full_like(high, largest)
    for _ in range(halvings + 1):
        if len(todo) == 0:
            break
        part = {"error": error[todo], "start": start[todo]}
        sized = threat.sized(size[todo])
        outcome = attack(
            Model(loop, task=Objective(0.0)),
            part,
            threat={"error": sized},
            recipe=recipe,
            ids=todo.clone(),
            search=Search(seed=seed),
        )
        hit = outcome.fooled
        assert isinstance(outcome.x, dict)
        best[todo[hit]] = outcome.x["error"][hit]
        high[todo[hit]], low[todo[~hit]] = size[todo[hit]], size[todo[~hit]]
        todo = todo[torch.isfinite(high[todo])]
        size = (low + high) / 2
    return Smallest(high, best, first_failure(loop, best, start))


def first_failure(loop: ClosedLoop, error: Tensor, start: Tensor) -> Tensor:
    """The sample (R,) at which each run passes a limit, -1 where none does."""
    with torch.no_grad():
        failed = loop.failed(loop.states(error, start))
    return torch.where(failed.any(1), failed.long().argmax(1), -1)
