"""JPEG, written and read again by Pillow: the codec that is deployed, and not a likeness of it.

Source: Dziugaite, Ghahramani & Roy 2016 (arXiv:1608.00853); Guo et al. 2018 (arXiv:1711.00117), section 4.1.
"""

import io
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from signstep.defences.row import Defence
from signstep.defences.step import Ends, Step, scaled, unscaled
from signstep.engine.keys import RowDraws
from signstep.engine.tree import search_dtype
from signstep.errors import MissingExtraError


@dataclass(frozen=True)
class Jpeg(Step):
    """Images (R, 1 or 3, H, W) of 8 bits through the codec; chroma at half the size, as Pillow writes it by default."""

    called: ClassVar[str] = "jpeg"
    own: ClassVar[bool] = False
    hides: ClassVar[bool] = True

    quality: int = 75

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise self.refuse("quality", "pass a quality from 1 to 100")
        _pillow()
        _kornia()

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """Rounded to 8 bits, encoded, decoded."""
        self.images(u, (1, 3))
        image = _pillow()
        levels = torch.nan_to_num(scaled(u.detach().float(), ends) * 255).round().clamp(0, 255).to(torch.uint8)
        pixels = levels.cpu().permute(0, 2, 3, 1).contiguous().numpy()
        rows = []
        for row in pixels:
            buffer = io.BytesIO()
            image.fromarray(row.squeeze(2) if row.shape[2] == 1 else row).save(buffer, "JPEG", quality=self.quality)
            buffer.seek(0)
            with image.open(buffer, formats=["JPEG"]) as read:
                width, height = read.size
                flat = torch.frombuffer(bytearray(read.tobytes()), dtype=torch.uint8)
                rows.append(flat.reshape(height, width, -1).permute(2, 0, 1))
        return unscaled(torch.stack(rows).to(u.device, search_dtype(u.dtype)) / 255, ends).to(u.dtype)

    def soft(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """kornia's differentiable JPEG (Shin & Song 2017; Reich et al. 2024), in which rounding has a slope."""
        wide = scaled(u.to(search_dtype(u.dtype)), ends)
        three = wide.expand(-1, 3, -1, -1) if wide.shape[1] == 1 else wide
        quality = torch.tensor([float(self.quality)], dtype=wide.dtype, device=wide.device)
        out = _kornia()(three, quality)
        return unscaled(out.mean(1, keepdim=True) if wide.shape[1] == 1 else out, ends).to(u.dtype)

    @property
    def versions(self) -> dict[str, str]:
        """Of Pillow and of the codec in it, on which the bytes depend."""
        from PIL import __version__, features

        turbo = features.version_feature("libjpeg_turbo")
        codec = {"libjpeg-turbo": str(turbo)} if turbo else {"libjpeg": str(features.version_codec("jpg"))}
        return {"pillow": __version__, **codec}


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "defend") from error
    return Image


def _kornia() -> Any:
    try:
        from kornia.enhance import jpeg_codec_differentiable
    except ImportError as error:
        raise MissingExtraError("kornia", "defend") from error
    return jpeg_codec_differentiable


ROW = Defence(
    "jpeg",
    Jpeg,
    "JPEG compression by Pillow's codec",
    "a differentiable JPEG (kornia), and the identity",
    "Dziugaite, Ghahramani & Roy 2016 (arXiv:1608.00853); Guo et al. 2018 (arXiv:1711.00117)",
    "Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 5.2.2: 0 % left; Shin & Song 2017",
)
