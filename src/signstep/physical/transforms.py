"""What may happen to an input between the attacker and the model: declared, differentiable, drawn for each row.

A transform maps inputs (R, ...) in raw units and the rows' draws to what the model is shown. Pass one, or a `Compose`
of several, as the ``transform`` of an `ss.Model`: success is then judged over draws that no search has used.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from signstep.engine.images import blurring, both_ways, check_images
from signstep.engine.keys import RowDraws
from signstep.engine.transform import Transform
from signstep.engine.tree import per_row, search_dtype
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.physical.perspective import Perspective

__all__ = [
    "Affine",
    "Blur",
    "Brightness",
    "Clip",
    "Compose",
    "Contrast",
    "Noise",
    "Perspective",
    "Transform",
    "pixel_grid",
    "print_view_camera",
    "sampled",
    "turned",
]


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of standard deviation ``std``, in raw units."""

    std: float = 0.05

    def __post_init__(self) -> None:
        _check("Noise", "std", self.std)

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        """u + std * n."""
        return u + self.std * draws.normal("noise", tuple(u.shape[1:])).to(u)


@dataclass(frozen=True)
class Brightness:
    """A number added to all of an input, uniform in [-most, most], in raw units."""

    most: float = 0.1

    def __post_init__(self) -> None:
        _check("Brightness", "most", self.most)

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        """u + b."""
        return u + per_row(_between(draws, "brightness", -self.most, self.most), u).to(u)


@dataclass(frozen=True)
class Contrast:
    """Distances from the input's own mean times a factor, uniform in [1 - most, 1 + most]."""

    most: float = 0.1

    def __post_init__(self) -> None:
        _check("Contrast", "most", self.most, below=1.0)

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        """mean + f * (u - mean)."""
        mean = per_row(u.flatten(1).mean(1), u)
        return mean + per_row(_between(draws, "contrast", 1 - self.most, 1 + self.most), u).to(u) * (u - mean)


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur of images (R, C, H, W) with a sigma uniform in [0, most] pixels."""

    most: float = 1.0

    def __post_init__(self) -> None:
        _check("Blur", "most", self.most)

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        """Blurred along both axes."""
        check_images(u, "Blur")
        sigma = _between(draws, "blur", 0.0, self.most)
        return both_ways(u, blurring(u.shape[2], sigma), blurring(u.shape[3], sigma))


@dataclass(frozen=True)
class Affine:
    """Images (R, C, H, W) turned, moved and scaled about their centre; zeros come in from outside.

    Attributes:
        degrees: rotation, uniform in [-degrees, degrees].
        shift: along each axis, uniform in [-shift, shift] of that side.
        scale: size, uniform in [1 - scale, 1 + scale].
    """

    degrees: float = 0.0
    shift: float = 0.0
    scale: float = 0.0

    def __post_init__(self) -> None:
        _check("Affine", "degrees", self.degrees)
        _check("Affine", "shift", self.shift)
        _check("Affine", "scale", self.scale, below=1.0)

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        """Sampled bilinearly; each output pixel looks up where it came from."""
        check_images(u, "Affine")
        turn, down, across, size = draws.uniform("affine", (4,)).mul(2).sub(1).unbind(1)
        grid = pixel_grid(
            u,
            angle=turn * math.radians(self.degrees),
            size=1 + size * self.scale,
            down=down * self.shift * u.shape[2],
            across=across * self.shift * u.shape[3],
        )
        return sampled(u, grid)


@dataclass(frozen=True)
class Clip:
    """Values cut to [low, high], as a sensor does; where it cuts there is no gradient."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:  # noqa: ARG002
        """clip(u, low, high)."""
        return u.clamp(self.low, self.high)


@dataclass(frozen=True)
class Compose:
    """Transforms one after the other, each with draws of its own."""

    parts: tuple[Transform, ...]

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        """The last of the first of u."""
        for number, part in enumerate(self.parts):
            u = part(u, draws.of("part", number))
        return u

    def __str__(self) -> str:
        return " then ".join(map(str, self.parts))


def print_view_camera(
    *,
    tilt: float = 0.15,
    light: float = 0.1,
    contrast: float = 0.2,
    blur: float = 0.7,
    noise: float = 0.02,
    low: float = 0.0,
    high: float = 1.0,
) -> Compose:
    """A print held before a camera: perspective, light, contrast, blur, sensor noise, cut to the sensor's range.

    The ranges are stated, not measured: measure those of your own camera and pass them.

    Args:
        tilt: how far corners move inwards, as a share of the side.
        light: largest brightness added or taken, in raw units.
        contrast: largest change of the contrast, relative.
        blur: largest sigma of the blur, in pixels.
        noise: standard deviation of the sensor noise, in raw units.
        low: of the sensor's range.
        high: of the sensor's range.
    """
    return Compose(
        (Perspective(tilt), Brightness(light), Contrast(contrast), Blur(blur), Noise(noise), Clip(low, high))
    )


def pixel_grid(u: Tensor, *, angle: Tensor, size: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Where each pixel of images (R, C, H, W) comes from, for `sampled`: turned and scaled about the centre, moved.

    Args:
        u: the images, for their shape.
        angle: in radians (R,), counter-clockwise on the screen.
        size: factor (R,); 2 is twice as large.
        down: pixels (R,).
        across: pixels (R,).

    Returns:
        Coordinates (R, H, W, 2) in [-1, 1].
    """
    height, width = u.shape[-2:]
    dtype = search_dtype(u.dtype)
    row = torch.arange(height, device=u.device, dtype=dtype) - (height - 1) / 2
    column = torch.arange(width, device=u.device, dtype=dtype) - (width - 1) / 2
    y, x = row.reshape(1, -1, 1), column.reshape(1, 1, -1)
    # One operation at a time and no matrix product, so that a row's grid is the same in any batch.
    cos, sin = turned(angle)
    cos, sin, size, down, across = (
        part.to(u.device, dtype).reshape(-1, 1, 1) for part in (cos, sin, size, down, across)
    )
    y, x, cos, sin = y - down, x - across, cos / size, sin / size
    from_x, from_y = cos * x - sin * y, sin * x + cos * y
    return torch.stack([from_x * (2 / width), from_y * (2 / height)], 3)


def turned(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine in float32, rounded from float64: in float32 their last place hangs on the position in memory."""
    wide = angle.cpu().double()
    return torch.cos(wide).float().to(angle.device), torch.sin(wide).float().to(angle.device)


def sampled(u: Tensor, grid: Tensor, padding: str = "zeros") -> Tensor:
    """Images looked up at the places of a grid, bilinearly, in float32 at least."""
    wide = u.to(search_dtype(u.dtype))
    return grid_sample(wide, grid, mode="bilinear", padding_mode=padding, align_corners=False).to(u.dtype)


def _between(draws: RowDraws, purpose: str, low: float, high: float) -> Tensor:
    return low + (high - low) * draws.uniform(purpose, (1,)).squeeze(1)


def _check(who: str, name: str, value: float, below: float = math.inf) -> None:
    if not 0 <= value < below:
        limit = "" if below == math.inf else f" and below {below:g}"
        raise InputError(Arg(name, value), remedy=f"pass a number of at least 0{limit}", where=who)
