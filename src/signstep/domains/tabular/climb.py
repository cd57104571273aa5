"""The steepest feasible move: a small search for the allowed record with the largest linear gain.

Where features are independent the answer is exact: each number goes to its end, each group to its best category, and
with a limit on the number of changes the best so many do. Relations are kept by elementary moves (`directions`), the
one with the largest gain first, as far as it goes, until none gains anything.
"""

import torch
from torch import Tensor

from signstep.domains.tabular.reach import Set

_ROUNDS = 60
_SMALL = 1e-12


def climbed(allowed: Set, decoded: Tensor, gain: Tensor, discrete: Tensor | None = None) -> Tensor:
    """The record (R, F) that a search from ``decoded`` finds, where the sum of gain * change is largest.

    Args:
        allowed: the set; ``decoded`` lies in it.
        decoded: (R, F) where to begin.
        gain: (R, width) per unit of each column of the wide row; of a group the gain of each category.
        discrete: (R,) at most so many of the whole-number features and categories move; None for all.
    """
    layout, moves = allowed.layout, allowed.moves
    value, codes = decoded[:, layout.numeric], decoded.clone()
    slope = gain[:, layout.numeric_columns]
    options = _categories(allowed, decoded, gain)
    alone = ~moves.bound_up
    target = torch.where(slope > 0, allowed.high, torch.where(slope < 0, allowed.low, value))
    target = torch.where(alone, target, value)
    worth = slope * (target - value)
    if allowed.changes == 0:
        stepped = value.new_tensor([feature.step for feature in layout.schema.features])[layout.numeric] > 0
        worth, best = _most(worth, options, stepped & alone, discrete)
        value = torch.where(worth > 0, target, value)
        for column, (number, _, _) in enumerate(layout.groups):
            codes[:, number] = torch.where(best[:, column], options[0][:, column], codes[:, number])
        value = _along(allowed, value, slope)
    else:
        value, codes = _limited(allowed, value, codes, slope, target, options)
    codes[:, layout.numeric] = value
    return codes


def _categories(allowed: Set, decoded: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """For each group (R, C) the best category, and its gain over the present one; no gain where it is closed."""
    best, worth = [], []
    for column, (number, start, width) in enumerate(allowed.layout.groups):
        own = gain[:, start : start + width]
        here = own.gather(1, decoded[:, number : number + 1].long())
        top = own.max(1)
        open_ = allowed.open_groups[:, column]
        best.append(torch.where(open_, top.indices.to(decoded), decoded[:, number]))
        worth.append(torch.where(open_, top.values - here.squeeze(1), 0.0))
    if not best:
        empty = decoded.new_zeros((len(decoded), 0))
        return empty, empty
    return torch.stack(best, 1), torch.stack(worth, 1)


def _most(
    worth: Tensor, options: tuple[Tensor, Tensor], stepped: Tensor, discrete: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gains of the numbers (R, N), and which groups move (R, C), cut to the best ``discrete`` moves of each row."""
    groups = options[1] > 0
    if discrete is None:
        return worth, groups
    jumps = torch.cat([torch.where(stepped, worth, 0.0), options[1]], 1)
    order = jumps.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(jumps.shape[1], dtype=torch.int64, device="cpu").expand_as(order)
    )
    may = rank < discrete.unsqueeze(1)
    numbers = worth.shape[1]
    return torch.where(stepped & ~may[:, :numbers], 0.0, worth), groups & may[:, numbers:]


def _along(allowed: Set, value: Tensor, slope: Tensor) -> Tensor:
    """Elementary moves among related features, the largest gain first."""
    moves = allowed.moves.among_related
    vectors = moves.vectors
    if not len(vectors):
        return value
    rate = slope @ vectors.T
    rate = torch.where(rate.abs() > _SMALL * slope.abs().amax(1, keepdim=True), rate, 0.0)
    for _ in range(_ROUNDS):
        rises, falls = allowed.lengths(value, 1.0, moves), allowed.lengths(value, -1.0, moves)
        length = torch.where(rate > 0, rises, torch.where(rate < 0, -falls, 0.0))
        worth = rate * length
        top = worth.max(1)
        if not bool((top.values > _SMALL).any()):
            break
        step = length.gather(1, top.indices.unsqueeze(1)) * vectors[top.indices]
        value = torch.where((top.values > _SMALL).unsqueeze(1), value + step, value)
        value = torch.minimum(torch.maximum(value, allowed.low), allowed.high)
    return value


def _limited(
    allowed: Set, value: Tensor, codes: Tensor, slope: Tensor, target: Tensor, options: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """One move at a time, the largest gain first, while no more features differ from the start than may."""
    layout, moves = allowed.layout, allowed.moves.among_related
    vectors = moves.vectors
    codes = codes.clone()
    rows = torch.arange(len(value), dtype=torch.int64, device="cpu")
    start = allowed.start[:, layout.numeric]
    rate = slope @ vectors.T
    best, worth_groups = options[0], options[1].clone()
    numbers, groups = [number for number, _, _ in layout.groups], len(layout.groups)
    for _ in range(_ROUNDS):
        changed_groups = (codes[:, numbers] != allowed.start[:, numbers]).sum(1)
        differs = value != start
        others = differs.sum(1) + changed_groups
        single = slope * (target - value)
        room = allowed.changes - others
        fits = (room.unsqueeze(1) >= 1) | (differs & (target != start)) | (target == start)
        single = torch.where(fits, single, 0.0)
        rises, falls = allowed.lengths(value, 1.0, moves), allowed.lengths(value, -1.0, moves)
        length = torch.where(rate > 0, rises, torch.where(rate < 0, -falls, 0.0))
        grown = ((vectors != 0) & ~differs.unsqueeze(1)).sum(2)
        along = torch.where(grown <= room.unsqueeze(1), rate * length, 0.0)
        new_group = (codes[:, numbers] == allowed.start[:, numbers]).long()
        of_groups = torch.where(new_group <= room.unsqueeze(1), worth_groups, 0.0)
        every = torch.cat([single, along, of_groups], 1)
        top = every.max(1) if every.shape[1] else None
        if top is None or not bool((top.values > _SMALL).any()):
            break
        moving, which = top.values > _SMALL, top.indices
        count, total = value.shape[1], value.shape[1] + len(vectors)
        picked = moving & (which < count)
        value[rows[picked], which[picked]] = target[rows[picked], which[picked]]
        picked = moving & (which >= count) & (which < total)
        move = which[picked] - count
        value[picked] += length[picked].gather(1, move.unsqueeze(1)) * vectors[move]
        picked = moving & (which >= total)
        for column in range(groups):
            mine = picked & (which == total + column)
            codes[mine, numbers[column]] = best[mine, column]
            worth_groups[mine, column] = 0.0
        value = torch.minimum(torch.maximum(value, allowed.low), allowed.high)
    return value, codes
