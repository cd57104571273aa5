"""Interval arithmetic on tensors: a centre and a radius for each number."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """All tensors within ``radius`` of ``centre``, number by number; both (R, ...), radius at least 0."""

    centre: Tensor
    radius: Tensor

    @classmethod
    def between(cls, low: Tensor, high: Tensor) -> "Interval":
        """All tensors from ``low`` to ``high``."""
        return cls((low + high) / 2, (high - low) / 2)

    @property
    def low(self) -> Tensor:
        """The least of each number."""
        return self.centre - self.radius

    @property
    def high(self) -> Tensor:
        """The largest of each number."""
        return self.centre + self.radius

    def affine(self, function: Callable[[Tensor], Tensor], size: Callable[[Tensor], Tensor]) -> "Interval":
        """Through an affine map: ``function`` itself, and ``size``, its linear part with absolute weights."""
        return Interval(function(self.centre), size(self.radius))

    def shaped(self, function: Callable[[Tensor], Tensor]) -> "Interval":
        """Through a map that only moves numbers, or averages them."""
        return Interval(function(self.centre), function(self.radius))

    def rising(self, function: Callable[[Tensor], Tensor]) -> "Interval":
        """Through a function that never falls: its ends are those of the interval."""
        return Interval.between(function(self.low), function(self.high))

    def valley(self, function: Callable[[Tensor], Tensor], bottom: float) -> "Interval":
        """Through a function of one number that falls up to ``bottom`` and rises from there, such as GELU."""
        low, high = self.low, self.high
        least = function(low.clamp(min=bottom).minimum(high))
        return Interval.between(least, function(low).maximum(function(high)))
