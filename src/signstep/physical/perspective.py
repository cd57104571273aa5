"""An image seen from an angle."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from signstep.engine.images import check_images
from signstep.engine.keys import RowDraws
from signstep.engine.tree import search_dtype
from signstep.errors import InputError, MissingExtraError
from signstep.messages import Arg


@dataclass(frozen=True)
class Perspective:
    """Images (R, C, H, W) seen from an angle: each corner moves inwards by up to ``most`` of its side, independently.

    Needs kornia (extra ``physical``).
    """

    most: float = 0.15

    def __post_init__(self) -> None:
        if not 0 <= self.most < 0.5:
            raise InputError(
                Arg("most", self.most),
                remedy="pass a share of the side, at least 0 and below 0.5",
                where="Perspective",
            )
        _kornia()

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        """Warped bilinearly; zeros come in from outside."""
        check_images(u, "Perspective")
        warp = _kornia()
        height, width = u.shape[-2:]
        wide = u.to(search_dtype(u.dtype))
        right, bottom = float(width - 1), float(height - 1)
        corners = torch.tensor(
            [[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]], dtype=torch.float32, device="cpu"
        ).to(wide)
        inwards = torch.tensor(
            [[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]], dtype=torch.float32, device="cpu"
        ).to(wide)
        reach = self.most * torch.tensor([right, bottom], dtype=torch.float32, device="cpu").to(wide)
        moved = corners + inwards * reach * draws.uniform("perspective", (4, 2)).to(wide)
        maps = warp.get_perspective_transform(corners.expand(len(wide), 4, 2), moved)
        out: Tensor = warp.warp_perspective(wide, maps, (height, width), align_corners=True)
        return out.to(u.dtype)


def _kornia() -> Any:
    try:
        import kornia.geometry.transform as warp
    except ImportError as error:
        raise MissingExtraError("kornia", "physical") from error
    return warp
