"""Oracles that look at changed copies of the input, so that the gradient carries over to other models."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.engine.images import both_ways, check_images, resampling
from signstep.engine.keys import Key, RowDraws
from signstep.engine.oracles import Around
from signstep.engine.problem import Problem
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree, leaves, search_dtype, tree_map
from signstep.errors import InputError
from signstep.messages import Arg


@dataclass(frozen=True)
class ScaledCopies(Around):
    """The mean gradient over the copies x / 2^i, i = 0..m-1 (Lin et al. 2020, arXiv:1908.06281, section 3.2).

    Each gradient is that of loss(x / 2^i) with respect to x. The score is that of the first copy, the input itself.
    Scaling is towards 0, the darkest value of a box that starts there.

    Attributes:
        copies: m; 1 is the inner oracle.
    """

    copies: int = 5

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise InputError(
                Arg("copies", self.copies), remedy="pass the number of scaled copies, at least 1; 5 is the paper's"
            )

    @property
    def gradients(self) -> int:
        """Those of the inner oracle for each copy."""
        return self.copies * self.inner.gradients

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """The input's score, and the mean gradient."""
        score, first = self.inner(problem, point, key, cotangent)
        total = widened(first)
        for number in range(1, self.copies):
            scaled = problem.through(_times(0.5**number))
            _, gradient = self.inner(scaled, point, key.fold("copy", number), cotangent)
            total = tree_map(torch.add, total, widened(gradient))
        return score, tree_map(lambda part: part / self.copies, total)


@dataclass(frozen=True)
class DiverseInput(Around):
    """The gradient through a random resizing and padding of the input (Xie et al. 2019, arXiv:1803.06978, section 3.3).

    Each row is resized with probability ``prob``, to a side drawn uniformly from the whole numbers between
    ``resize * side`` and the side, and put at a random place on a canvas of zeros. The paper resizes upwards, from 299
    to at most 330 pixels on a canvas of 330; here the canvas keeps the input's own size, since many networks take no
    other. The draws belong to the row.

    Attributes:
        prob: of each row's transformation; 0 is the inner oracle.
        resize: the smallest side, relative to the input's.
    """

    prob: float = 0.5
    resize: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.prob <= 1:
            raise InputError(
                Arg("prob", self.prob), remedy="pass the probability of a transformed input, 0 to 1; 0.5 is the paper's"
            )
        if not 0 < self.resize <= 1:
            raise InputError(
                Arg("resize", self.resize),
                remedy="pass the smallest side relative to the input's, above 0 and at most 1",
            )

    @property
    def exact(self) -> bool:
        """Never, unless nothing is transformed: the score is that of the transformed input."""
        return self.inner.exact and self.prob == 0

    @property
    def warms(self) -> bool:
        """Only if nothing is transformed."""
        return self.inner.warms and self.prob == 0

    @property
    def draws(self) -> bool:
        """The transformations."""
        return self.prob > 0 or self.inner.draws

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """Score and gradient of the transformed input, with respect to the input."""
        check_images(point, "di-fgsm, which resizes and pads,")
        if self.prob > 0:
            draws = key.fold("diverse input").draws(problem.ids, leaves(point)[0].device)
            problem = problem.through(lambda u: tree_map(lambda part: self._changed(part, draws), u))
        return self.inner(problem, point, key, cotangent)

    def _changed(self, image: Tensor, draws: RowDraws) -> Tensor:
        chance, size, top, left = draws.uniform("diverse input", (4,)).unbind(1)
        height, width = image.shape[-2:]
        smallest = max(1, int(self.resize * height))
        tall = smallest + (size * (height - smallest + 1)).floor()
        broad = (tall * (width / height)).round().clamp(1, width)
        chosen = chance < self.prob
        tall, broad = torch.where(chosen, tall, height), torch.where(chosen, broad, width)
        rows = resampling(height, tall, (top * (height - tall + 1)).floor())
        columns = resampling(width, broad, (left * (width - broad + 1)).floor())
        return both_ways(image, rows, columns)


def widened(gradient: Tree) -> Tree:
    """In the precision of the search, so that sums lose nothing."""
    return tree_map(lambda part: part.to(search_dtype(part.dtype)), gradient)


def _times(factor: float) -> Callable[[Tree], Tree]:
    return lambda u: tree_map(lambda part: part * factor, u)
