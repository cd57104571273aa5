"""Writing attacked images to files that still fool the model: PNG, read back and scored again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signstep.errors import InputError, MissingExtraError
from signstep.io.files import written


def write_png(images: Tensor, paths: Sequence[Path], *, low: float = 0.0, high: float = 1.0) -> None:
    """Write images (N, C, H, W) with 1 or 3 channels as 8-bit PNG, rounded to the nearest of 256 levels of [low, high].

    Rounding moves each value by up to 1/510 of the range: an attack may die of it, and the change may leave the ball.
    Attack on the grid (``grid=255``) to avoid both, and score what `read_png` gives back.

    Raises:
        InputError: not images.
        LoadError: the folder cannot be written.
        MissingExtraError: Pillow is not installed.
    """
    pillow = _pillow()
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InputError(
            f"the inputs have shape {tuple(images.shape[1:])} each, which is no image",
            remedy="pass images with 1 or 3 channels, or save them as .npz",
        )
    levels = ((images.double().cpu() - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)
    for image, path in zip(levels, paths, strict=True):
        pixels = image[0].numpy() if len(image) == 1 else image.movedim(0, -1).contiguous().numpy()
        with written(path) as temporary:
            pillow.fromarray(pixels).save(temporary, format="PNG")


def read_png(paths: Sequence[Path], *, low: float = 0.0, high: float = 1.0) -> Tensor:
    """The images (N, C, H, W) float32 as the files hold them."""
    import numpy as np

    pillow = _pillow()
    images = []
    for path in paths:
        with pillow.open(path) as image:
            pixels = torch.from_numpy(np.asarray(image).copy())
        images.append(pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.movedim(-1, 0))
    return (low + torch.stack(images).double() / 255 * (high - low)).float()


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "images") from error
    return Image
