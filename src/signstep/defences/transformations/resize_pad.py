"""Random resizing and padding.

Source: Xie et al. 2018 (arXiv:1711.01991), section 3.2. There images grow before a network that takes larger ones; here
they shrink, so that the shape stays.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from signstep.defences.row import Defence
from signstep.defences.step import Ends, Step
from signstep.engine.images import both_ways, resampling
from signstep.engine.keys import RowDraws
from signstep.engine.tree import search_dtype


@dataclass(frozen=True)
class ResizePad(Step):
    """Images (R, C, H, W) shrunk to a random size and put at a random place among the lowest value.

    The size is uniform among whole pixels from (1 - shrink) of each side to all of it, one factor for both sides.
    """

    called: ClassVar[str] = "resize-pad"
    random: ClassVar[bool] = True

    shrink: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.shrink < 1:
            raise self.refuse("shrink", "pass the largest share of each side that is taken away, between 0 and 1")

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:
        """Bilinearly resized, then padded."""
        self.images(u)
        factor, down, across = draws.uniform("resize", (3,)).to(u.device).unbind(1)
        maps = []
        for size, place in ((u.shape[2], down), (u.shape[3], across)):
            wanted = (size * (1 - self.shrink * factor)).round().clamp_min(1)
            maps.append(resampling(size, wanted, (place * (size - wanted + 1)).floor().clamp_max(size - wanted)))
        wide = u.to(search_dtype(u.dtype))
        return (both_ways(wide - ends[0], *maps) + ends[0]).to(u.dtype)


ROW = Defence(
    "resize-pad",
    ResizePad,
    "random resizing and padding",
    "its own gradient, averaged over draws",
    "Xie et al. 2018 (arXiv:1711.01991)",
    "Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 5.3.2: 0 % left",
    "medium: answers change from call to call",
)
