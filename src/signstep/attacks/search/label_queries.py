"""Asking for answers alone: who fools, the nearest point of each row that does, and what each row has spent."""

import torch
from torch import Tensor

from signstep.engine.keys import Key
from signstep.engine.problem import Problem, confirm
from signstep.engine.region import BallRegion
from signstep.engine.tree import put, wide


class LabelQueries:
    """Asks whether points fool, keeps the nearest of each row that does, and each row's account.

    Displacements (R, ...) are in the precision of the search and inside the box; ``index`` names their rows.
    """

    def __init__(self, problem: Problem, region: BallRegion, key: Key, queries: int) -> None:
        self._problem, self._key, self.queries, self._asked = problem, key, queries, 0
        self._free = region.resized(torch.full_like(region.radius, torch.inf))
        self.point = region.x.clone()
        self.length = torch.full((len(region.x),), torch.inf, dtype=wide(region.x).dtype, device=region.x.device)
        self.answer: Tensor | None = None
        self.spent = torch.zeros_like(problem.ids)
        self.ended: str | None = None

    def left(self, index: Tensor) -> Tensor:
        """Queries (R,) that rows may still ask."""
        return self.queries - self.spent[index]

    def fooled(self, d: Tensor, index: Tensor) -> Tensor:
        """Whether the model fails at ``d``, (len(index),) bool; rows may come several times, one query each."""
        everyone = len(index) == len(self.spent) and bool((index[1:] > index[:-1]).all())
        around, problem = (
            (self._free, self._problem) if everyone else (self._free.take(index), self._problem.take(index))
        )
        point = around.land(d)
        score = problem(point, self._key.fold("query", self._asked))
        self._asked += 1
        self.spent.index_add_(0, index, torch.ones_like(index))
        if self.answer is None:
            self.answer = torch.zeros_like(score.answer[:1]).repeat(len(self.spent), *([1] * (score.answer.ndim - 1)))
        length = around.norm.length(wide(point) - wide(around.x)).to(self.length)
        nearer = _nearest(length, index, score.fooled & (length < self.length[index]))
        rows = index[nearer]
        self.length[rows], self.answer[rows] = length[nearer], score.answer[nearer]
        put(self.point, rows, point[nearer])
        return score.fooled

    def agree(self) -> None:
        """Of a random model, forget the rows whose nearest point most of several fresh passes do not confirm."""
        if not self._problem.random:
            return
        found = torch.isfinite(self.length)
        seen = confirm(self._problem, self.point, self._key.fold("sure"), found)
        self.spent += seen.passes * found
        self.length[found & ~seen.fooled] = torch.inf


def _nearest(length: Tensor, index: Tensor, candidates: Tensor) -> Tensor:
    """The position of the shortest candidate of each row that has one; the first of equal ones."""
    positions = candidates.nonzero().squeeze(1)
    positions = positions[length[positions].argsort(stable=True)]
    owners, place = torch.unique(index[positions], return_inverse=True)
    first = torch.full_like(owners, len(positions))
    first.scatter_reduce_(0, place, torch.arange(len(positions), device=place.device, dtype=torch.int64), "amin")
    return positions[first]
