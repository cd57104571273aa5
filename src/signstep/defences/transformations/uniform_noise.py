"""Uniform noise, cut to the box.

Source: as a baseline of randomisation, Xie et al. 2018 (arXiv:1711.01991); of its use in training He et al. 2017.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from signstep.defences.row import Defence
from signstep.defences.step import Ends, Step
from signstep.engine.keys import RowDraws


@dataclass(frozen=True)
class UniformNoise(Step):
    """Each value moved by a number uniform in [-radius, radius], in raw units, and cut to the box."""

    called: ClassVar[str] = "uniform-noise"
    random: ClassVar[bool] = True

    radius: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.radius < float("inf"):
            raise self.refuse("radius", "pass the largest change of a value, above 0, in raw units")

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:
        """clip(u + radius (2 n - 1))."""
        noise = 2 * draws.uniform("noise", tuple(u.shape[1:])) - 1
        return (u + self.radius * noise.to(u)).clamp(*ends)


ROW = Defence(
    "uniform-noise",
    UniformNoise,
    "uniform noise",
    "its own gradient, averaged over draws",
    "a baseline of randomisation, as in Xie et al. 2018 (arXiv:1711.01991)",
    "means over draws: Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 4.2",
    "medium: answers change from call to call",
)
