"""Energy: s = -T logsumexp(z / T), the free energy of the scores; low for what the model knows."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.detectors.rule import DetectorRow, Fitting, Stateless, above_zero
from signstep.detectors.seen import Reader, Seen


@dataclass(frozen=True, eq=False)
class Energy(Stateless):
    """The free energy of the scores."""

    temperature: float = 1.0

    def scores(self, seen: Seen) -> Tensor:
        """Energies (R,)."""
        return -self.temperature * torch.logsumexp(seen.logits / self.temperature, 1)

    def surrogate(self, seen: Seen) -> Tensor:
        """The same."""
        return self.scores(seen)


def fit(fitting: Fitting, *, temperature: float = 1.0) -> Energy:  # noqa: ARG001 - nothing is fitted
    """Nothing is fitted."""
    return Energy(above_zero("temperature", temperature, "energy"))


def restore(state: Mapping[str, Tensor], other: Reader | None, *, temperature: float = 1.0) -> Energy:  # noqa: ARG001
    """From its option."""
    return Energy(above_zero("temperature", temperature, "energy"))


ROW = DetectorRow(
    "energy",
    fit,
    restore,
    "free energy of the scores, with a temperature",
    "Liu, Wang, Owens & Li 2020 (arXiv:2010.03759)",
    "it is a function of the scores that the attacker climbs: raising all of them hides the attack",
    "answers",
    fitted=False,
)
