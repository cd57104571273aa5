"""A random crop, brought back to the whole size.

Source: Guo et al. 2018 (arXiv:1711.00117), section 4.1; there the answers of 30 crops are averaged.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from signstep.defences.row import Defence
from signstep.defences.step import Ends, Step
from signstep.engine.images import both_ways
from signstep.engine.keys import RowDraws
from signstep.engine.tree import search_dtype


@dataclass(frozen=True)
class RandomCrop(Step):
    """A window of (1 - share) of each side of images (R, C, H, W), at a random place, resized bilinearly."""

    called: ClassVar[str] = "random-crop"
    random: ClassVar[bool] = True

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise self.refuse("share", "pass the share of each side that is cut off, between 0 and 1")

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """The window, as large as the image."""
        self.images(u)
        places = draws.uniform("crop", (2,)).to(u.device).unbind(1)
        maps = [_window(size, 1 - self.share, place) for size, place in zip(u.shape[2:], places, strict=True)]
        wide = u.to(search_dtype(u.dtype))
        return both_ways(wide, *maps).to(u.dtype)


def _window(size: int, share: float, place: Tensor) -> Tensor:
    """Matrices (R, size, size) that look a window up: ``place`` (R,) in [0, 1) from one end to the other."""
    each = torch.arange(size, device=place.device, dtype=place.dtype)
    start = place.unsqueeze(1) * size * (1 - share)
    source = (start + (each + 0.5) * share - 0.5).clamp(0, size - 1)
    return (1 - (source.unsqueeze(2) - each).abs()).clamp_min(0)


ROW = Defence(
    "random-crop",
    RandomCrop,
    "a random crop at the whole size",
    "its own gradient, averaged over draws",
    "Guo et al. 2018 (arXiv:1711.00117)",
    "Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 5.2.2: 0 % left",
    "medium: answers change from call to call",
)
