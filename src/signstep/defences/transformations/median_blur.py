"""A median filter.

Source: Xu, Evans & Qi 2018 (arXiv:1704.01155), section II-B.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import pad

from signstep.defences.row import Defence
from signstep.defences.step import Ends, Step
from signstep.engine.keys import RowDraws


@dataclass(frozen=True)
class MedianBlur(Step):
    """Each pixel of images (R, C, H, W) becomes the median of the ``size`` x ``size`` around it; borders repeat."""

    called: ClassVar[str] = "median-blur"
    hides: ClassVar[bool] = True  # its gradient goes to one pixel in each window

    size: int = 3

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise self.refuse("size", "pass an odd number of pixels, such as 3")

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """The median of each window."""
        self.images(u)
        half = self.size // 2
        wide = pad(u, (half, half, half, half), mode="replicate")
        windows = wide.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)
        return windows.median(4).values


ROW = Defence(
    "median-blur",
    MedianBlur,
    "a median filter",
    "its own gradient, and the identity",
    "Xu, Evans & Qi 2018 (arXiv:1704.01155)",
    "He et al. 2017 (arXiv:1706.04701), section 4: an attack that knows of it succeeds",
)
