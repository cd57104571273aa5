"""How far each feature of each record may go, and the elementary moves within that."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from signstep.domains.tabular.directions import Moves
from signstep.domains.tabular.encode import Layout

_HAIR = 1e-9  # of a step, or of a value: what rounding in float64 may be off


@dataclass(frozen=True, eq=False)
class Set:
    """The allowed decoded records around R decoded records.

    Attributes:
        layout: of the schema.
        moves: the elementary moves of the schema.
        start: (R, F) the records.
        low: (R, N) the lowest allowed value of each number; it can be reached.
        high: (R, N) the highest.
        open_groups: (R, C) bool: whether each categorical feature may take another category.
        changes: at most so many features may differ from ``start``; 0 for any number.
    """

    layout: Layout
    moves: Moves
    start: Tensor
    low: Tensor
    high: Tensor
    open_groups: Tensor
    changes: int

    @classmethod
    def around(cls, layout: Layout, moves: Moves, start: Tensor, radius: Tensor | None) -> "Set":
        """The records that bounds, steps, directions and budgets times ``radius`` (R,) allow; None: any size."""
        numeric = layout.numeric.tolist()
        features = [layout.schema.features[number] for number in numeric]
        value = start[:, layout.numeric]
        step = value.new_tensor([feature.step for feature in features])
        low = value.new_tensor([feature.low for feature in features]).expand_as(value)
        high = value.new_tensor([feature.high for feature in features]).expand_as(value)
        may_fall = torch.tensor(
            [feature.change in ("both", "down") for feature in features], dtype=torch.bool, device="cpu"
        )
        may_rise = torch.tensor(
            [feature.change in ("both", "up") for feature in features], dtype=torch.bool, device="cpu"
        )
        down, up = value - low, high - value
        if radius is not None:
            allowed = budgets(layout, start)[:, layout.numeric] * radius.unsqueeze(1)
            down, up = torch.minimum(down, allowed), torch.minimum(up, allowed)
        down, up = (_whole(part.clamp_min(0), step) for part in (down, up))
        down, up = torch.where(may_fall, down, 0.0), torch.where(may_rise, up, 0.0)
        groups = [number for number, _, _ in layout.groups]
        free = torch.tensor(
            [layout.schema.features[number].change != "none" for number in groups], dtype=torch.bool, device="cpu"
        )
        open_groups = free.expand(len(start), -1)
        if radius is not None:
            allowed = budgets(layout, start)[:, groups] * radius.unsqueeze(1)
            open_groups = open_groups & (allowed >= 1 - _HAIR)
        return cls(layout, moves, start, value - down, value + up, open_groups, layout.schema.changes)

    def take(self, index: Tensor) -> "Set":
        """The sets of the rows at ``index``."""
        parts = {name: getattr(self, name)[index] for name in ("start", "low", "high", "open_groups")}
        return replace(self, **parts)

    def lengths(self, value: Tensor, sign: float, moves: Moves | None = None) -> Tensor:
        """The longest move (R, D) from numbers ``value`` (R, N) in each direction times ``sign``, whole units."""
        moves = moves or self.moves
        parts = moves.parts * sign
        # For each move the tightest of its features: rises divide the room above, falls the room below.
        room = torch.where(parts > 0, (self.high - value)[:, moves.places], (value - self.low)[:, moves.places])
        reach = torch.where(parts != 0, room.clamp_min(0) / parts.abs().clamp_min(1e-300), torch.inf)
        longest = reach.amin(2)
        if len(moves.bounds):
            slack = (moves.bounds - value @ moves.weights.T).clamp_min(0).unsqueeze(1)
            drift = moves.drift * sign
            loose = ~moves.equal & (drift > _HAIR)
            longest = torch.minimum(longest, torch.where(loose, slack / drift.clamp_min(_HAIR), torch.inf).amin(2))
        return _whole(longest, moves.units)

    def holds(self, value: Tensor) -> Tensor:
        """Whether numbers (R, N) keep the relations, (R,) bool."""
        if not len(self.moves.bounds):
            return torch.ones(len(value), dtype=torch.bool, device="cpu")
        over = value @ self.moves.weights.T - self.moves.bounds
        size = value.abs() @ self.moves.weights.T.abs() + self.moves.bounds.abs() + 1
        kept = torch.where(self.moves.equal, over.abs(), over) <= _HAIR * size
        return kept.all(1)

    def changed(self, decoded: Tensor) -> Tensor:
        """How many features differ from the start (R,)."""
        return (decoded != self.start).sum(1)


def budgets(layout: Layout, start: Tensor) -> Tensor:
    """By how much each feature may change at eps 1, (R, F) in its unit; for a category 1 or more allows another."""
    columns = []
    for number, feature in enumerate(layout.schema.features):
        allowance = feature.allowance
        own = (
            start[:, number].abs() if allowance.of == "own" else torch.ones(len(start), dtype=start.dtype, device="cpu")
        )
        columns.append(own * allowance.amount * (feature.spread if allowance.of == "sd" else 1.0))
    return torch.stack(columns, 1)


def _whole(length: Tensor, unit: Tensor) -> Tensor:
    """Lengths cut to whole units; unit 0 leaves them."""
    safe = torch.where(unit > 0, unit, 1.0)
    return torch.where(unit > 0, torch.floor(length / safe + _HAIR) * safe, length)
