"""Random shifts and mirrors of images (R, C, H, W) on their own device, and the way back for what is remembered."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from signstep.errors import InputError
from signstep.messages import Arg
from signstep.train.draws import BatchDraws
from signstep.train.objectives import Frame


@dataclass(frozen=True)
class Placement:
    """Where each row lies: shifted by (down, right) pixels, zeros coming in, then mirrored where ``flipped``.

    Attributes:
        down: (R,) int64, from -crop to crop.
        right: (R,) int64.
        flipped: (R,) bool; None for no row.
        crop: largest shift.
    """

    down: Tensor
    right: Tensor
    flipped: Tensor | None
    crop: int

    @classmethod
    def drawn(cls, draws: BatchDraws, crop: int, *, flip: bool) -> "Placement":
        """Each shift as likely as the others; mirrored in half of the cases."""
        share = draws.uniform("placement", (3,))
        shifts = (share[:, :2] * (2 * crop + 1)).long().clamp_max(2 * crop) - crop
        return cls(shifts[:, 0], shifts[:, 1], share[:, 2] < 0.5 if flip else None, crop)

    def apply(self, x: Tensor) -> Tensor:
        """Images as training sees them."""
        return self._mirrored(self._shifted(x, 1))

    def undo(self, seen: Tensor, stored: Tensor) -> Tensor:
        """Values that belong to what training saw, back where they came from; pixels it did not see stay ``stored``."""
        back = self._shifted(self._mirrored(seen), -1)
        visible = self._shifted(self._shifted(torch.ones_like(stored[:, :1]), 1), -1)
        return torch.where(visible.bool(), back, stored)

    @property
    def frame(self) -> Frame:
        """For memory."""
        return Frame(self.apply, self.undo)

    def _shifted(self, x: Tensor, sign: int) -> Tensor:
        if self.crop == 0:
            return x
        rows, _, height, width = x.shape
        padded = F.pad(x, (self.crop,) * 4)
        down = (torch.arange(height, device=x.device, dtype=torch.int64) + self.crop)[None] - sign * self.down[:, None]
        right = (torch.arange(width, device=x.device, dtype=torch.int64) + self.crop)[None] - sign * self.right[:, None]
        row = torch.arange(rows, device=x.device, dtype=torch.int64)[:, None, None]
        return padded.permute(0, 2, 3, 1)[row, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2).contiguous()

    def _mirrored(self, x: Tensor) -> Tensor:
        return x if self.flipped is None else torch.where(self.flipped[:, None, None, None], x.flip(3), x)


def check_images(x: Tensor, crop: int, *, flip: bool) -> None:
    """See that there is something to shift.

    Raises:
        InputError: inputs are no images, or smaller than the shift.
    """
    if (crop or flip) and (x.ndim != 4 or crop >= min(x.shape[-2:])):
        raise InputError(
            Arg("crop", crop),
            Arg("flip", flip),
            f"move images (R, C, H, W), the inputs have shape {tuple(x.shape)}",
            remedy="leave both out, or pass a crop smaller than the image",
        )
