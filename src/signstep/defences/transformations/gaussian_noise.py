"""Gaussian noise, cut to the box.

One draw is no more than a blurred boundary. The majority over very many draws has a proof: `ss.smooth`.

Source: Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918), where the noise belongs to a vote.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from signstep.defences.row import Defence
from signstep.defences.step import Ends, Step
from signstep.engine.keys import RowDraws


@dataclass(frozen=True)
class GaussianNoise(Step):
    """Gaussian noise of standard deviation ``std`` in raw units on each value, cut to the box."""

    called: ClassVar[str] = "gaussian-noise"
    random: ClassVar[bool] = True

    std: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.std < float("inf"):
            raise self.refuse("std", "pass a standard deviation above 0, in raw units")

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:
        """clip(u + std n)."""
        return (u + self.std * draws.normal("noise", tuple(u.shape[1:])).to(u)).clamp(*ends)


ROW = Defence(
    "gaussian-noise",
    GaussianNoise,
    "Gaussian noise",
    "its own gradient, averaged over draws",
    "Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918), without the vote",
    "means over draws: Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 4.2",
    "medium: answers change from call to call",
)
