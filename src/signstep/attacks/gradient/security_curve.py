"""FGSM at every size from one gradient: the security curve, and the smallest eps that fools along the ray.

FGSM's gradient is taken at the clean input and does not depend on eps. Only the step is recomputed for each size (for
L-infinity it is a ray cut by the box, for L2 and L1 the exact step over ball and box bends with eps, in L0 eps counts
and takes whole numbers); everything after the one gradient is forward passes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from signstep.engine.keys import Key
from signstep.engine.norms import L0
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.problem import Problem, Verdict, judge
from signstep.engine.region import BallRegion, Region
from signstep.engine.tree import Tree, search_dtype, take, tree_map


class FgsmRay:
    """The FGSM points of a batch as a function of eps.

    Args:
        problem: the question.
        region: the region around the batch; its radius is not used.
        clean: the batch.
        key: seeds random models.
        oracle: where the gradient comes from.
    """

    def __init__(self, problem: Problem, region: Region, clean: Tree, key: Key, oracle: Oracle | None = None) -> None:
        self._problem, self._region, self._key = problem, region, key.fold("ray")
        _, gradient = (oracle or Autograd())(problem, clean, self._key)
        gradient = tree_map(lambda part: torch.nan_to_num(part.to(search_dtype(part.dtype)), 0.0, 0.0, 0.0), gradient)
        self._gradient = region.restrict(gradient)

    def at(self, eps: Tensor, index: Tensor | None = None) -> tuple[Tree, Verdict]:
        """The FGSM points of size eps (R,) and what the model says to them; one forward pass.

        ``index`` picks rows; eps then has one entry for each of those.
        """
        problem, region, gradient = self._problem, self._region, self._gradient
        if index is not None:
            problem, region, gradient = problem.take(index), region.take(index), take(gradient, index)
        region = region.resized(eps)
        point = region.land(region.steepest(gradient))
        return point, judge(problem, point, self._key)

    def curve(self, levels: Sequence[float]) -> Tensor:
        """Whether each row is fooled at each level, (levels, R) bool."""
        rows = len(self._region.radius)
        return torch.stack([self.at(self._region.radius.new_full((rows,), level))[1].fooled for level in levels])

    def smallest(self, levels: Sequence[float], fooled: Tensor, clean_fooled: Tensor, halvings: int = 8) -> Tensor:
        """The smallest eps (R,) found that fools along the ray; 0 for rows fooled untouched, inf where no level fools.

        Success is not monotone in eps, so the levels are scanned from below and the *first* bracket (a level that does
        not fool, the next one that does) is halved ``halvings`` times. The value returned did fool.

        Args:
            levels: sizes, ascending.
            fooled: what `curve` gave for these levels, (levels, R).
            clean_fooled: rows that fail without any change, (R,).
            halvings: halvings of the bracket.
        """
        sizes = self._region.radius.new_tensor([0.0, *levels])
        hit = torch.cat([clean_fooled.unsqueeze(0), fooled])
        first = hit.long().argmax(0)
        found = hit.any(0)
        high = torch.where(found, sizes[first], torch.inf)
        low = torch.where(found & (first > 0), sizes[(first - 1).clamp_min(0)], high)
        index = (found & (first > 0)).nonzero().squeeze(1)
        counted = isinstance(self._region, BallRegion) and isinstance(self._region.norm, L0)
        for _ in range(halvings if len(index) else 0):
            middle = (low[index] + high[index]) / 2
            middle = middle.floor() if counted else middle
            _, verdict = self.at(middle, index)
            high[index] = torch.where(verdict.fooled, middle, high[index])
            low[index] = torch.where(verdict.fooled, low[index], middle)
        return high
