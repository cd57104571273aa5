"""A small network that imitates another: what a model whose gradients are of no use is attacked through."""

import math

import torch
from torch import Tensor, nn

from signstep.errors import InputError
from signstep.messages import Arg


class Student(nn.Module):
    """Two convolutions and two layers for images of 6 by 6 pixels and more, three layers for whatever else.

    No BatchNorm, no dropout: rows stay apart.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, width: int) -> None:
        super().__init__()
        if len(shape) == 3 and min(shape[1:]) >= 6:
            side = [math.ceil(size / 2) for size in shape[1:]]
            most = 4 if max(side) > 16 else 2
            self.body = nn.Sequential(
                nn.Conv2d(shape[0], width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, 2 * width, 3, stride=most // 2 * 2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.LazyLinear(64),
                nn.ReLU(),
                nn.Linear(64, classes),
            )
        else:
            self.body = nn.Sequential(
                nn.Flatten(),
                nn.Linear(math.prod(shape), 8 * width),
                nn.ReLU(),
                nn.Linear(8 * width, 64),
                nn.ReLU(),
                nn.Linear(64, classes),
            )
        with torch.no_grad():
            self.body(torch.zeros(1, *shape, dtype=torch.float32, device="cpu"))  # the lazy layer learns its size

    def forward(self, x: Tensor) -> Tensor:
        """Scores (R, classes) of inputs (R, *shape)."""
        scores: Tensor = self.body(x)
        return scores


def student(*, shape: str = "1x28x28", classes: int = 10, width: int = 16) -> Student:
    """A student for inputs of this shape.

    Args:
        shape: of one input, such as "3x32x32" or "20".
        classes: scores.
        width: channels of the first layer.

    Raises:
        InputError: the shape cannot be read, or a number is below 1.
    """
    parts = shape.split("x")
    if not all(part.isdecimal() and 0 < int(part) <= 2**20 for part in parts):
        raise InputError(Arg("shape", shape), remedy='pass the sizes of one input, such as "3x32x32"')
    if min(classes, width) < 1:
        raise InputError(Arg("classes", classes), Arg("width", width), remedy="pass numbers of at least 1")
    return Student(tuple(map(int, parts)), classes, width)
