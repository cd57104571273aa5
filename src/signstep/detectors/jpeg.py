"""A pass through the JPEG codec of Pillow, for the detectors that compare with it."""

import io

import numpy as np
import torch
from torch import Tensor

from signstep.errors import InputError, MissingExtraError


def jpeg(x: Tensor, quality: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Images (R, C, H, W), C 1 or 3, coded at a quality from 1 to 100 and read again; no gradient passes.

    Raises:
        InputError: they are no images of 1 or 3 channels.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "images") from error
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise InputError(
            f"JPEG is for images of 1 or 3 channels, and inputs have shape {tuple(x.shape[1:])}",
            remedy="leave it out (jpeg=0)",
        )
    levels = ((x.detach() - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    made = []
    for picture in levels:
        stream = io.BytesIO()
        shown = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
        Image.fromarray(shown).save(stream, format="JPEG", quality=quality)
        read = np.asarray(Image.open(stream))
        made.append(read[None] if read.ndim == 2 else read.transpose(2, 0, 1))
    back = torch.from_numpy(np.stack(made)).to(x)
    return back / 255 * (high - low) + low
