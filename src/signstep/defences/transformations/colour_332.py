"""24-bit colour brought to 8 bits: three for red, three for green, two for blue.

Source: the palette of 8-bit true colour; as a defence a coarser `bit-depth`, Xu, Evans & Qi 2018 (arXiv:1704.01155).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from signstep.defences.row import Defence
from signstep.defences.step import Ends, Step, scaled, unscaled
from signstep.defences.transformations.bit_depth import levelled, staircase
from signstep.engine.keys import RowDraws


@dataclass(frozen=True)
class Colour332(Step):
    """Each channel of images (R, 3, H, W) rounded to its nearest of 8, 8 and 4 levels."""

    called: ClassVar[str] = "colour-332"
    own: ClassVar[bool] = False
    hides: ClassVar[bool] = True

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """Rounded."""
        self.images(u, (3,))
        return unscaled(levelled(scaled(u, ends), _most(u)), ends)

    def soft(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """Staircases with rounded steps."""
        return unscaled(staircase(scaled(u, ends), _most(u)), ends)


def _most(u: Tensor) -> Tensor:
    return u.new_tensor([7.0, 7.0, 3.0]).reshape(1, 3, 1, 1)


ROW = Defence(
    "colour-332",
    Colour332,
    "24-bit colour as 8-bit colour: 3 bits red, 3 green, 2 blue",
    "staircases with rounded steps, and the identity",
    "a coarser bit depth: Xu, Evans & Qi 2018 (arXiv:1704.01155)",
    "as bit-depth: Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 5.2.2",
)
