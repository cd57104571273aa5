"""Fewer bits for each channel.

Source: Xu, Evans & Qi 2018 (arXiv:1704.01155), section II-A; Guo et al. 2018 (arXiv:1711.00117), section 4.1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from signstep.defences.row import Defence
from signstep.defences.step import Ends, Step, scaled, unscaled
from signstep.engine.keys import RowDraws


@dataclass(frozen=True)
class BitDepth(Step):
    """Values rounded to 2^bits levels from one end of the box to the other."""

    called: ClassVar[str] = "bit-depth"
    own: ClassVar[bool] = False
    hides: ClassVar[bool] = True

    bits: int = 5

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise self.refuse("bits", "pass a number of bits from 1 to 16")

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """round((2^bits - 1) u) / (2^bits - 1), for the box [0, 1]."""
        return unscaled(levelled(scaled(u, ends), 2**self.bits - 1), ends)

    def soft(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """The staircase with its steps rounded off."""
        return unscaled(staircase(scaled(u, ends), 2**self.bits - 1), ends)


def levelled(v: Tensor, most: int | Tensor) -> Tensor:
    """Rounded to whole multiples of 1 / most in [0, 1]."""
    return (v.clamp(0, 1) * most).round() / most


def staircase(v: Tensor, most: int | Tensor) -> Tensor:
    """A smooth function between rounding and the identity: (t - sin(2 pi t) / (2 pi)) / most with t = most v."""
    t = v * most
    return (t - torch.sin(2 * torch.pi * t) / (2 * torch.pi)) / most


ROW = Defence(
    "bit-depth",
    BitDepth,
    "fewer bits for each channel",
    "a staircase with rounded steps, and the identity",
    "Xu, Evans & Qi 2018 (arXiv:1704.01155); Guo et al. 2018 (arXiv:1711.00117)",
    "Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 5.2.2: 0 % left; He et al. 2017 (arXiv:1706.04701)",
)
