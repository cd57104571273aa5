"""Disagreement with a second model: s(x) = |p(x) - q(x)|_1 between the two models' probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.detectors.rule import DetectorRow, Fitting
from signstep.detectors.seen import Reader, Seen
from signstep.errors import InputError, ModelError
from signstep.messages import Arg

_NAME = "second-model"


@dataclass(frozen=True, eq=False)
class Disagreement:
    """The other model."""

    other: Reader
    passes: int = 1

    @property
    def state(self) -> Mapping[str, Tensor]:
        """Nothing was fitted."""
        return {}

    def scores(self, seen: Seen) -> Tensor:
        """From 0 to 2, (R,).

        Raises:
            ModelError: the two have different classes.
        """
        ours = seen.logits.softmax(1)
        if torch.is_grad_enabled():
            theirs = Seen(self.other, seen.raw).logits.softmax(1)
        else:
            with self.other.quiet():
                theirs = Seen(self.other, seen.raw).logits.softmax(1)
        if ours.shape != theirs.shape:
            raise ModelError(
                f"the two models have {ours.shape[1]} and {theirs.shape[1]} classes",
                remedy="pass one of the same classes",
            )
        return (ours - theirs.to(ours)).abs().sum(1)

    def surrogate(self, seen: Seen) -> Tensor:
        """The same."""
        return self.scores(seen)


def _made(other: Reader | None) -> Disagreement:
    if other is None:
        raise InputError("no second model was passed", remedy=("pass", Arg("other")), where=_NAME)
    return Disagreement(other)


def fit(fitting: Fitting) -> Disagreement:
    """Nothing is fitted."""
    return _made(fitting.other)


def restore(state: Mapping[str, Tensor], other: Reader | None) -> Disagreement:  # noqa: ARG001
    """From the other model."""
    return _made(other)


ROW = DetectorRow(
    _NAME,
    fit,
    restore,
    "L1 distance between the answers of two models",
    "the idea of Feinman et al. 2017 (arXiv:1703.00410), with a second network for dropout",
    "an attack on both at once: He, Wei, Chen, Carlini & Song 2017 (arXiv:1706.04701)",
    "answers",
    passes="one of the second model",
    fitted=False,
    second=True,
)
