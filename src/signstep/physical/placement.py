"""Where a patch lies in an image, how it is turned, and how it is lit: drawn for each row."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from signstep.engine.images import check_images
from signstep.engine.keys import RowDraws
from signstep.engine.tree import per_row, search_dtype
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.physical.transforms import turned

Place: TypeAlias = Literal["random"] | tuple[int, int]


@dataclass(frozen=True)
class Placement:
    """Draws for each row where a patch goes, and puts it there.

    Attributes:
        place: "random", anywhere inside the image; or the row and column of its upper left pixel.
        degrees: turned about its centre by an angle uniform in [-degrees, degrees].
        light: brightness added to it, uniform in [-light, light], in raw units.
        low: end of the box that images lie in, in raw units; a patch shows nothing below it.
        high: the other end, likewise.
    """

    place: Place = "random"
    degrees: float = 10.0
    light: float = 0.1
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.place != "random" and (len(self.place) != 2 or min(self.place) < 0):
            raise InputError(
                Arg("place", self.place), remedy="pass 'random', or the row and column of the upper left pixel"
            )
        if not self.degrees >= 0 or not self.light >= 0:
            raise InputError(
                Arg("degrees", self.degrees), Arg("light", self.light), remedy="pass numbers of at least 0"
            )
        if not self.low < self.high:
            raise InputError(Arg("box", (self.low, self.high)), remedy="pass (low, high) with low below high")

    def check(self, shape: tuple[int, ...], image: Tensor) -> None:
        """Whether a patch of this shape (C, h, w) fits images (R, C, H, W).

        Raises:
            InputError: it does not.
        """
        check_images(image, "patch")
        height, width = image.shape[-2:]
        top, left = (0, 0) if self.place == "random" else self.place
        if shape[0] != image.shape[1] or top + shape[1] > height or left + shape[2] > width:
            where = "" if self.place == "random" else f" at {self.place}"
            raise InputError(
                f"a patch of {tuple(shape)}{where} does not fit into images of {tuple(image.shape[1:])}",
                remedy=("pass a smaller", Arg("size"), ", or another", Arg("place")),
            )

    def __call__(self, patch: Tensor, image: Tensor, draws: RowDraws) -> Tensor:
        """Images (R, C, H, W) with the patch (1, C, h, w) on them; every pixel beside it stays as it was.

        Args:
            patch: its values; gradients flow to it.
            image: what it is put on.
            draws: of the rows.
        """
        self.check(tuple(patch.shape[1:]), image)
        turn, light, top, left = draws.uniform("place", (4,)).to(search_dtype(image.dtype)).unbind(1)
        (tall, broad), (height, width) = patch.shape[-2:], image.shape[-2:]
        if self.place == "random":
            top, left = (top * (height - tall + 1)).floor(), (left * (width - broad + 1)).floor()
        else:
            top, left = (torch.full_like(part, float(at)) for part, at in zip((top, left), self.place, strict=True))
        y = torch.arange(height, device=image.device, dtype=top.dtype) - (top + (tall - 1) / 2).reshape(-1, 1)
        x = torch.arange(width, device=image.device, dtype=top.dtype) - (left + (broad - 1) / 2).reshape(-1, 1)
        y, x = y.reshape(-1, height, 1), x.reshape(-1, 1, width)
        cos, sin = (part.to(x).reshape(-1, 1, 1) for part in turned((2 * turn - 1) * math.radians(self.degrees)))
        from_x, from_y = cos * x - sin * y, sin * x + cos * y
        inside = (from_x.abs() <= broad / 2) & (from_y.abs() <= tall / 2)
        grid = torch.stack([from_x * (2 / broad), from_y * (2 / tall)], 3)
        shown = grid_sample(
            patch.to(top.dtype).expand(len(image), *patch.shape[1:]),
            grid,
            # A patch that is not turned is shown pixel by pixel, to the last bit.
            mode="bilinear" if self.degrees else "nearest",
            padding_mode="border",
            align_corners=False,
        )
        if self.light:
            shown = shown + per_row((2 * light - 1) * self.light, shown)
        return torch.where(inside.unsqueeze(1), shown.clamp(self.low, self.high).to(image.dtype), image)
