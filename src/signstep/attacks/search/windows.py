"""Windows: where in an example a square lies, how large it is at which query, and the pattern that fills it."""

import math
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

# Andriushchenko et al. 2020, section 5: queries of 10,000 after which the share p is halved.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_REFERENCE = 10_000


def halving_share(query: int, queries: int, p: float) -> float:
    """The share of the positions that the window of this query covers.

        p / 2^n,  n the number of halvings at 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000 of 10,000 queries,

    rescaled to the budget. Source: Andriushchenko et al. 2020, section 5.

    Args:
        query: the number of this query, from 0.
        queries: the budget.
        p: the share at the start, in (0, 1].

    >>> [halving_share(query, 10_000, 0.8) for query in (0, 10, 11, 51, 9_999)]
    [0.8, 0.8, 0.4, 0.2, 0.0015625]
    """
    return p / 2.0 ** bisect_right(_HALVINGS, query * _REFERENCE // max(1, queries) - 1)


def constant_share(query: int, queries: int, p: float) -> float:  # noqa: ARG001
    """The same share ``p`` at every query: for a search that goes on from a point that is already good."""
    return p


SCHEDULES: dict[str, Callable[[int, int, float], float]] = {"halving": halving_share, "constant": constant_share}


class Layout(NamedTuple):
    """An example as ``channels`` planes of ``height`` x ``width`` positions; a window covers all channels alike.

    The last two dimensions are the plane, all before them channels; of an example with two dimensions the last one is
    the plane (a sequence), and a vector has one channel.
    """

    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> "Layout":
        """From the shape of an example, without the batch."""
        if len(shape) >= 3:
            return cls(math.prod(shape[:-2]), shape[-2], shape[-1])
        return cls(math.prod(shape[:-1]), 1, shape[-1] if shape else 1)

    def side(self, share: float) -> tuple[int, int]:
        """Height and width of the window that covers about this share of the plane: square, but no longer than it."""
        axes = (self.height > 1) + (self.width > 1)
        side = max(1, round((share * self.height * self.width) ** (1 / max(1, axes))))
        return min(side, self.height), min(side, self.width)

    def places(self, at: Tensor, size: tuple[int, int]) -> Tensor:
        """Indices (R, 1, height * width) into the flattened plane of windows at uniform positions.

        Args:
            at: two numbers in [0, 1) for each row, (R, 2).
            size: height and width of the window.
        """
        height, width = size
        top = (at[:, 0] * (self.height - height + 1)).long().clamp_max_(self.height - height)
        left = (at[:, 1] * (self.width - width + 1)).long().clamp_max_(self.width - width)
        return (top * self.width + left).reshape(-1, 1, 1) + _inside(height, width, self.width, at.device)


@lru_cache(maxsize=64)
def _inside(height: int, width: int, across: int, device: torch.device) -> Tensor:
    """Indices (1, 1, height * width) of a window in the corner of a plane that is ``across`` wide."""
    down = torch.arange(height, device=device, dtype=torch.int64).unsqueeze(1) * across
    return (down + torch.arange(width, device=device, dtype=torch.int64)).reshape(1, 1, -1)


@lru_cache(maxsize=64)
def bump(height: int, width: int) -> Tensor:
    """Two opposite pyramids of concentric rectangles beside each other, (height, width), float64, of unit length.

        value at distance k from the centre = sum over j >= k of 1 / (j + 1)^2

    with the second half of the longer side of opposite sign and the same length. Source: Andriushchenko et al. 2020,
    section 3.3. A window of one position has the value 1. Not to be written to: it is kept for the next call.
    """
    if width > height:
        return bump(width, height).T
    upper = height // 2
    if upper == 0:
        return torch.ones(1, 1, dtype=torch.float64, device="cpu")
    return torch.cat([_pyramid(upper, width), -_pyramid(height - upper, width)]) / math.sqrt(2)


def _pyramid(height: int, width: int) -> Tensor:
    rings = max(height, width) // 2 + 1
    terms = 1 / torch.arange(1, rings + 1, dtype=torch.float64, device="cpu").square()
    tails = terms.flip(0).cumsum(0).flip(0)
    down = (torch.arange(height, dtype=torch.int64, device="cpu") - height // 2).abs().unsqueeze(1)
    across = (torch.arange(width, dtype=torch.int64, device="cpu") - width // 2).abs().unsqueeze(0)
    filled = tails[torch.maximum(down, across).clamp_max(rings - 1)]
    return filled / filled.square().sum().sqrt()
