"""Linear maps over pixels, and the check that there are pixels at all."""

import torch
from torch import Tensor

from signstep.engine.tree import Tree, leaves
from signstep.errors import InputError


def check_images(tree: Tree, who: str) -> None:
    """Refuse what is not (R, C, H, W).

    Raises:
        InputError: ``who`` needs images, and the shape seen.
    """
    for part in leaves(tree):
        if part.ndim != 4:
            raise InputError(
                f"{who} needs images (R, C, H, W), x has shape {tuple(part.shape)}",
                remedy="pass x.unsqueeze(1) for images without channels, or leave it out for other inputs",
            )


def resampling(size: int, wanted: Tensor, start: Tensor) -> Tensor:
    """Bilinear resizing of ``size`` pixels to ``wanted`` (R,), put at ``start`` (R,) on a line of ``size`` zeros.

    Returns:
        Matrices (R, size, size) to multiply columns with.
    """
    place = torch.arange(size, device=wanted.device, dtype=wanted.dtype) - start.unsqueeze(1)
    inside = (place >= 0) & (place < wanted.unsqueeze(1))
    source = ((place + 0.5) * (size / wanted.unsqueeze(1)) - 0.5).clamp(0, size - 1)
    each = torch.arange(size, device=wanted.device, dtype=wanted.dtype)
    weights = (1 - (source.unsqueeze(2) - each).abs()).clamp_min(0)
    return torch.where(inside.unsqueeze(2), weights, 0.0)


def blurring(size: int, sigma: Tensor) -> Tensor:
    """A Gaussian of ``sigma`` (R,) pixels along a line; what lies beyond the ends counts for nothing.

    Returns:
        Matrices (R, size, size) whose rows sum to 1; the identity where sigma is 0.
    """
    # In float64 and rounded: the exponential of one number may differ in the last place with its position in memory.
    wide, place = sigma.cpu().double(), torch.arange(size, dtype=torch.float64, device="cpu")
    apart = (place.unsqueeze(1) - place).square()
    weights = torch.exp(-apart / (2 * wide.clamp_min(1e-3).square()).reshape(-1, 1, 1))
    return (weights / weights.sum(2, keepdim=True)).float().to(sigma.device)


def both_ways(image: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Rows mapped by ``down`` (R, H, H) and columns by ``across`` (R, W, W), for images (R, C, H, W).

    Matrix products, not a gather: their backward pass adds up in one order on every device.
    """
    return (down.unsqueeze(1).to(image) @ image) @ across.unsqueeze(1).transpose(2, 3).to(image)
