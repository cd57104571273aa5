"""Expectation over transformation: the gradient of a mean, estimated from fresh draws."""

from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.engine.copies import widened
from signstep.engine.keys import Key
from signstep.engine.oracles import Around, mean_score
from signstep.engine.problem import Problem
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree, tree_map
from signstep.errors import InputError
from signstep.messages import Arg


@dataclass(frozen=True)
class Eot(Around):
    """The mean gradient over ``samples`` fresh draws of whatever is random in the problem.

    E_t[grad loss(t(x))], t the declared transform, the model's own randomness, or both (Athalye et al. 2018,
    arXiv:1707.07397, section 2.2; for random defences Athalye, Carlini & Wagner 2018, arXiv:1802.00420, section 4.2).
    The mean is over the loss that is searched, for classification the log-odds and not the logarithm of the
    probability: its gradients do not vanish where the model is sure.

    Attributes:
        samples: draws for each gradient; 1 is the inner oracle.
    """

    samples: int

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(Arg("eot", self.samples), remedy="pass the number of draws for each gradient, at least 1")

    @property
    def warms(self) -> bool:
        """Only for a single draw."""
        return self.inner.warms and self.samples == 1

    @property
    def gradients(self) -> int:
        """Those of the inner oracle for each draw."""
        return self.samples * self.inner.gradients

    @property
    def looks(self) -> int:
        """Those of the inner oracle for each draw."""
        return self.samples * self.inner.looks

    def look(self, problem: Problem, point: Tree, key: Key) -> Score:
        """The mean score over the draws."""
        return _mean([self.inner.look(problem, point, folded) for folded in self._keys(key)])

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """The mean score and the mean gradient over the draws."""
        scores, total = [], None
        for folded in self._keys(key):
            score, gradient = self.inner(problem, point, folded, cotangent)
            scores.append(score)
            total = widened(gradient) if total is None else tree_map(torch.add, total, widened(gradient))
        assert total is not None
        return _mean(scores), tree_map(lambda part: part / self.samples, total)

    def _keys(self, key: Key) -> list[Key]:
        return [key] if self.samples == 1 else [key.fold("eot", number) for number in range(self.samples)]


def _mean(scores: list[Score]) -> Score:
    """Means; fooled where most draws are."""
    if len(scores) == 1:
        return scores[0]
    share = torch.stack([score.fooled for score in scores]).to(scores[0].loss.dtype).mean(0)
    mean = mean_score(scores)
    return mean._replace(fooled=(share > 0.5) & mean.valid)
