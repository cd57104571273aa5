"""From decoded records to what is searched, and from there to what the model takes.

The search moves wide rows: numbers in their units, one column each, and a one-hot group for each categorical feature.
So the gradient of a column is per unit, and the gradient of a group tells the gain of each of its categories.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from signstep.domains.tabular.schema import Schema


@dataclass(frozen=True)
class Layout:
    """Where the features of a schema lie in a wide row of ``width`` columns."""

    schema: Schema

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first column of each feature."""
        starts, at = [], 0
        for feature in self.schema.features:
            starts.append(at)
            at += feature.width
        return tuple(starts)

    @cached_property
    def width(self) -> int:
        """All columns."""
        return sum(feature.width for feature in self.schema.features)

    @cached_property
    def numeric(self) -> Tensor:
        """Positions of the features that are one number, int64 (N,)."""
        kinds = [feature.kind for feature in self.schema.features]
        return torch.tensor(
            [number for number, kind in enumerate(kinds) if kind != "categorical"], dtype=torch.int64, device="cpu"
        )

    @cached_property
    def numeric_columns(self) -> Tensor:
        """Their columns (N,)."""
        return torch.tensor(self.starts, dtype=torch.int64, device="cpu")[self.numeric]

    @cached_property
    def groups(self) -> tuple[tuple[int, int, int], ...]:
        """(feature, first column, width) of each categorical feature."""
        return tuple(
            (number, self.starts[number], feature.width)
            for number, feature in enumerate(self.schema.features)
            if feature.kind == "categorical"
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name for each column: "Age", "Purpose=Car"."""
        names: list[str] = []
        for feature in self.schema.features:
            group = feature.kind == "categorical"
            names += [f"{feature.name}={level}" for level in feature.levels] if group else [feature.name]
        return tuple(names)

    def widen(self, decoded: Tensor) -> Tensor:
        """Decoded records (..., F) as wide rows (..., width)."""
        wide = decoded.new_zeros((*decoded.shape[:-1], self.width))
        wide[..., self.numeric_columns] = decoded[..., self.numeric]
        for number, start, width in self.groups:
            wide[..., start : start + width] = torch.nn.functional.one_hot(decoded[..., number].long(), width).to(wide)
        return wide

    def narrow(self, wide: Tensor) -> Tensor:
        """Wide rows (..., width) as decoded records (..., F); the largest entry of a group is its category."""
        decoded = wide.new_zeros((*wide.shape[:-1], len(self.schema.features)))
        decoded[..., self.numeric] = wide[..., self.numeric_columns]
        for number, start, width in self.groups:
            decoded[..., number] = wide[..., start : start + width].argmax(-1).to(wide)
        return decoded

    @cached_property
    def scale(self) -> tuple[Tensor, Tensor]:
        """What standardising subtracts from, and by what it divides, each column (width,); categories stay."""
        centre, spread = (
            torch.zeros(self.width, dtype=torch.float64, device="cpu"),
            torch.ones(self.width, dtype=torch.float64, device="cpu"),
        )
        for feature, start in zip(self.schema.features, self.starts, strict=True):
            if feature.kind != "categorical":
                centre[start], spread[start] = feature.centre, feature.spread
        return centre, spread

    def standardise(self, wide: Tensor) -> Tensor:
        """Numbers minus mean, over standard deviation; categories as they are."""
        centre, spread = (part.to(wide) for part in self.scale)
        return (wide - centre) / spread
