"""What a norm is: a way to measure changes, with the exact answers that attacks ask of its ball."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


class Draws(Protocol):
    """Independent random numbers for each row; equal purposes give equal numbers, so every draw has its own."""

    def uniform(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Numbers in [0, 1), (R, *shape)."""
        ...

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers, (R, *shape)."""
        ...


@runtime_checkable
class Norm(Protocol):
    """A way to measure perturbations, with the exact answers that attacks ask of its ball."""

    @property
    def name(self) -> str:
        """The name that `norm` reads back."""
        ...

    def length(self, d: Tensor) -> Tensor:
        """The norm of each row, (R,)."""
        ...

    def dual_length(self, g: Tensor) -> Tensor:
        """The dual norm max {<g, d> : length(d) <= 1} of each row, (R,)."""
        ...

    def steepest(self, g: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """The d in S with the largest <g, d>; coordinates with zero gradient stay at zero. Shaped as g."""
        ...

    def project(self, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """The point of S nearest to d in Euclidean distance; d itself, bit for bit, where it lies in S."""
        ...

    def sample(self, draws: Draws, shape: tuple[int, ...]) -> Tensor:
        """Points uniform by volume in the unit ball, (R, *shape)."""
        ...

    def diameter(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The length of high - low over one example of this shape, a scalar; inf where the box is open."""
        ...


@runtime_checkable
class CheckedNorm(Norm, Protocol):
    """A norm by which a verdict can be given: it can also say how far apart two inputs are, without its geometry."""

    def check(self, before: Tensor, after: Tensor) -> Tensor:
        """The size of each row's change, (R,) float64, from two inputs (R, ...) in float64.

        In plain arithmetic on the two, sharing no code with the methods that search: a mistake there would approve
        itself.
        """
        ...


def diameter_of(norm: Norm, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The length of high - low over one example of this shape, a scalar."""
    return norm.length(torch.broadcast_to(high - low, (1, *shape)))[0]
