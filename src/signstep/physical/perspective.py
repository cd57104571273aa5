"""An image seen from an angle."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from signstep.engine.images import check_images
from signstep.engine.keys import RowDraws
from signstep.engine.tree import search_dtype
from signstep.errors import InputError
from signstep.messages import Arg

_CORNERS = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))  # (x, y), clockwise from the upper left
_INWARDS = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))


@dataclass(frozen=True)
class Perspective:
    """Images (R, C, H, W) seen from an angle: each corner moves inwards by up to ``most`` of its side, on its own."""

    most: float = 0.15

    def __post_init__(self) -> None:
        if not 0 <= self.most < 0.5:
            raise InputError(
                Arg("most", self.most),
                remedy="pass a share of the side, at least 0 and below 0.5",
                where="Perspective",
            )

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        """Warped bilinearly; zeros come in from outside."""
        check_images(u, "Perspective")
        height, width = u.shape[-2:]
        drawn = draws.uniform("perspective", (4, 2)).cpu().double()
        corners, inwards = (torch.tensor(part, dtype=torch.float64, device="cpu") for part in (_CORNERS, _INWARDS))
        moved = corners + self.most * inwards * drawn
        wide = u.to(search_dtype(u.dtype))
        grid = looked_up(moved, height, width).to(wide)
        return grid_sample(wide, grid, mode="bilinear", padding_mode="zeros", align_corners=True).to(u.dtype)


def looked_up(corners: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of an image comes from whose corners have been moved; (R, H, W, 2) in [-1, 1], inside.

    The map from the unit square to a quadrangle (Heckbert 1989, "Fundamentals of texture mapping and image warping",
    section 2.2.3), turned round by its adjugate. Sums and products of one element at a time, so that a row's grid is
    the same in any batch.

    Args:
        corners: (R, 4, 2), x and y as shares of the sides, clockwise from the upper left.
        height: in pixels.
        width: in pixels.
    """
    x0, x1, x2, x3 = (part.reshape(-1, 1, 1) for part in corners[..., 0].unbind(1))
    y0, y1, y2, y3 = (part.reshape(-1, 1, 1) for part in corners[..., 1].unbind(1))
    along, across, rest = (x1 - x2, y1 - y2), (x3 - x2, y3 - y2), (x0 - x1 + x2 - x3, y0 - y1 + y2 - y3)
    whole = along[0] * across[1] - across[0] * along[1]
    g = (rest[0] * across[1] - across[0] * rest[1]) / whole
    h = (along[0] * rest[1] - rest[0] * along[1]) / whole
    a, b, c = x1 - x0 + g * x1, x3 - x0 + h * x3, x0
    d, e, f = y1 - y0 + g * y1, y3 - y0 + h * y3, y0
    y = torch.arange(height, dtype=torch.float64, device="cpu").reshape(1, -1, 1) / max(1, height - 1)
    x = torch.arange(width, dtype=torch.float64, device="cpu").reshape(1, 1, -1) / max(1, width - 1)
    below = (d * h - e * g) * x + (b * g - a * h) * y + (a * e - b * d)
    from_x = ((e - f * h) * x + (c * h - b) * y + (b * f - c * e)) / below
    from_y = ((f * g - d) * x + (a - c * g) * y + (c * d - a * f)) / below
    return torch.stack([2 * from_x - 1, 2 * from_y - 1], 3)
