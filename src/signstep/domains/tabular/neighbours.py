"""The records one elementary move away."""

from typing import NamedTuple

import torch
from torch import Tensor

from signstep.domains.tabular.reach import Set


class Neighbours(NamedTuple):
    """Records (Q, C, F), whether each is another allowed one (Q, C), and its cost from the start (Q, C)."""

    records: Tensor
    valid: Tensor
    cost: Tensor


def prices(allowed: Set) -> Tensor:
    """What a change by one unit, or of a category, costs (F,)."""
    return allowed.start.new_tensor([feature.price for feature in allowed.layout.schema.features])


def cost_of(allowed: Set, decoded: Tensor, start: Tensor) -> Tensor:
    """What it costs to come from ``start`` to ``decoded``, both (..., F)."""
    change = (decoded - start).abs()
    for number, _, _ in allowed.layout.groups:
        change[..., number] = (change[..., number] != 0).to(change)
    return (change * prices(allowed)).sum(-1)


def neighbours(allowed: Set, here: Tensor, shares: tuple[float, ...], wanted: Tensor | None = None) -> Neighbours:
    """All records one elementary move from ``here`` (Q, F), which lies in ``allowed`` row by row.

    Args:
        allowed: the set.
        here: where the moves begin.
        shares: of the longest move in each direction, both signs; whole units, one at least.
        wanted: (Q, 2, D) further lengths, by sign and direction.
    """
    layout, vectors = allowed.layout, allowed.moves.vectors
    value = here[:, layout.numeric]
    found, lengths = [], []
    for side, sign in enumerate((1.0, -1.0)):
        longest = allowed.lengths(value, sign)
        tried = [_rounded(longest * share, longest, allowed.moves.units) for share in shares]
        if wanted is not None:
            tried.append(_rounded(torch.minimum(wanted[:, side], longest), longest, allowed.moves.units))
        for length in tried:
            moved = here.unsqueeze(1).repeat(1, len(vectors), 1)
            moved[:, :, layout.numeric] = value.unsqueeze(1) + sign * length.unsqueeze(2) * vectors
            found.append(moved)
            lengths.append(length > 0)
    for column, (number, _, width) in enumerate(layout.groups):
        moved = here.unsqueeze(1).repeat(1, width, 1)
        moved[:, :, number] = torch.arange(width, dtype=torch.int64, device="cpu").to(here)
        found.append(moved)
        lengths.append(
            allowed.open_groups[:, column : column + 1] & (moved[:, :, number] != here[:, number : number + 1])
        )
    records = torch.cat(found, 1)
    return Neighbours(records, torch.cat(lengths, 1), cost_of(allowed, records, allowed.start.unsqueeze(1)))


def _rounded(length: Tensor, longest: Tensor, unit: Tensor) -> Tensor:
    """Lengths rounded up to whole units, not beyond the longest."""
    safe = torch.where(unit > 0, unit, 1.0)
    return torch.minimum(torch.where(unit > 0, torch.ceil(length / safe - 1e-9) * safe, length), longest)
