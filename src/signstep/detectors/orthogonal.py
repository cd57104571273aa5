"""Steps along what is not won yet, without their part along what is: orthogonal and selective projection."""

from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.detectors.knowing import MARGIN, Knowing
from signstep.engine.keys import Key
from signstep.engine.oracles import Autograd, gradient_of, leaf_of
from signstep.engine.problem import Problem
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree, per_row
from signstep.errors import GradientError


@dataclass(frozen=True)
class Orthogonal(Autograd):
    """The gradient of what is not won yet, without its part along that of the other (Bryniarski et al. 2021).

    A row whose answer is not wrong climbs the margin's gradient, projected off the detectors'; one whose answer is
    wrong climbs the detectors', projected off the margin's.
    """

    warms: bool = False
    gradients: int = 2

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """The joint score and that gradient; two backward passes."""
        if not isinstance(problem, Knowing) or cotangent is not None:
            return super().__call__(problem, point, key, cotangent)
        u = leaf_of(point)
        score, answer, slack = problem.parts(u, key)
        first = _descent(answer, u, again=True)
        second = _descent(slack, u, again=False)
        behind = answer.detach() > -MARGIN
        led = torch.where(per_row(behind, first), _off(first, second), _off(second, first))
        return Score(*(part.detach() for part in score)), led


def _descent(value: Tensor, u: Tree, *, again: bool) -> Tensor:
    """Minus the gradient; nothing where there is none."""
    assert isinstance(u, Tensor)
    finite = value[torch.isfinite(value.detach())]
    if not finite.requires_grad or not len(finite):
        return torch.zeros_like(u)
    try:
        found = gradient_of(-finite.sum(), u, again=again)
    except GradientError:
        return torch.zeros_like(u)
    assert isinstance(found, Tensor)
    return torch.nan_to_num(found, 0.0, 0.0, 0.0)


def _off(one: Tensor, other: Tensor) -> Tensor:
    """Rows of ``one`` without their part along ``other``; as they are where nothing else is left."""
    flat, along = one.flatten(1).double(), other.flatten(1).double()
    share = (flat * along).sum(1, keepdim=True) / along.square().sum(1, keepdim=True).clamp_min(1e-300)
    rest = flat - share * along
    left = rest.norm(dim=1, keepdim=True) > 1e-6 * flat.norm(dim=1, keepdim=True)
    return torch.where(left, rest, flat).reshape(one.shape).to(one.dtype)
