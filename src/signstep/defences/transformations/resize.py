"""A few pixels smaller, and back.

Source: rescaling as a defence, Guo et al. 2018 (arXiv:1711.00117), section 4.1; Xie et al. 2018 (arXiv:1711.01991).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import interpolate

from signstep.defences.row import Defence
from signstep.defences.step import Ends, Step
from signstep.engine.keys import RowDraws
from signstep.engine.tree import search_dtype
from signstep.errors import InputError


@dataclass(frozen=True)
class Resize(Step):
    """Images (R, C, H, W) brought to (H - pixels, W - pixels) and back, bilinearly with antialiasing as Pillow does."""

    called: ClassVar[str] = "resize"

    pixels: int = 2

    def __post_init__(self) -> None:
        if self.pixels < 1:
            raise self.refuse("pixels", "pass the number of pixels by which images shrink, at least 1")

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """Down and up."""
        self.images(u)
        height, width = u.shape[2:]
        if self.pixels >= min(height, width):
            raise InputError(
                f"{self} leaves nothing of images of {height} x {width}", remedy="pass fewer pixels", where=self.called
            )
        wide = u.to(search_dtype(u.dtype))
        for size in ((height - self.pixels, width - self.pixels), (height, width)):
            wide = interpolate(wide, size=size, mode="bilinear", antialias=True, align_corners=False)
        return wide.to(u.dtype)


ROW = Defence(
    "resize",
    Resize,
    "a few pixels smaller and back",
    "its own gradient",
    "Guo et al. 2018 (arXiv:1711.00117); Xie et al. 2018 (arXiv:1711.01991)",
    "differentiable: an attack by gradients passes it as one more layer",
)
