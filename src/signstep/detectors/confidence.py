"""Confidence: how sure the model is of its answer, by the odds of a softmax with a temperature.

s = log((1 - p) / p) = logsumexp_{k != a} z_k / T - z_a / T, for the answer a and p = softmax(z / T)_a. It ranks inputs
as 1 - p does, and does not saturate where p rounds to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.detectors.rule import DetectorRow, Fitting, Stateless, above_zero
from signstep.detectors.seen import Reader, Seen


@dataclass(frozen=True, eq=False)
class Confidence(Stateless):
    """The odds against the answer."""

    temperature: float = 1.0

    def scores(self, seen: Seen) -> Tensor:
        """Log-odds (R,)."""
        z = seen.logits / self.temperature
        top = z.argmax(1, keepdim=True)
        others = z.scatter(1, top, -torch.inf)
        return torch.logsumexp(others, 1) - z.gather(1, top).squeeze(1)

    def surrogate(self, seen: Seen) -> Tensor:
        """The same."""
        return self.scores(seen)


def fit(fitting: Fitting, *, temperature: float = 1.0) -> Confidence:  # noqa: ARG001 - nothing is fitted
    """Nothing is fitted."""
    return Confidence(above_zero("temperature", temperature, "confidence"))


def restore(state: Mapping[str, Tensor], other: Reader | None, *, temperature: float = 1.0) -> Confidence:  # noqa: ARG001
    """From its option."""
    return Confidence(above_zero("temperature", temperature, "confidence"))


ROW = DetectorRow(
    "confidence",
    fit,
    restore,
    "log-odds against the answer of a softmax with a temperature",
    "Hendrycks & Gimpel 2017 (arXiv:1610.02136)",
    "any attack that goes on past the boundary: Carlini & Wagner 2017 (arXiv:1705.07263)",
    "answers",
    fitted=False,
)
