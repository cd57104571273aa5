"""Flips far from a record, by walks of random moves: where to begin again when what leads the search leads nowhere."""

from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.domains.tabular.incumbents import Best
from signstep.domains.tabular.line_search import reach
from signstep.domains.tabular.neighbours import cost_of

_STEPS = 16
_FURTHER = 2.0  # times the best known cost: how dear a walk may become


@dataclass(frozen=True, eq=False)
class Walks:
    """Where walks came to.

    Attributes:
        flips: of each record the cheapest flips on its walks, as rows of their own.
        nearest: (Q, F) the states of records nearest to flipping, on walks that have not flipped.
        gap: (Q,) how far these are from it.
        owner: (Q,) whose they are.
    """

    flips: Best
    nearest: Tensor
    gap: Tensor
    owner: Tensor


def wander(best: Best, rows: Tensor, walks: int, kept: int) -> Walks:
    """Walk at random from records until they flip.

    Every record has the same draws, so that what it gets does not depend on the others.

    Args:
        best: what is known. Walks cost at most twice that; where nothing is known they go anywhere.
        rows: (R,) the records.
        walks: of each.
        kept: so many flips and states of each are returned, the best.
    """
    allowed, count = best.allowed, len(rows)
    draw = torch.Generator().manual_seed(0)
    owner = rows.repeat_interleave(walks)
    state = allowed.start[owner].clone()
    moves, groups = len(allowed.moves.vectors), allowed.layout.groups
    limit = _FURTHER * best.cost
    price = torch.full((len(owner),), torch.inf, dtype=torch.float64, device="cpu")
    near, gap = state.clone(), torch.full_like(price, torch.inf)
    for _ in range(min(_STEPS, 2 * (moves + len(groups))) if moves + len(groups) else 0):
        pick = torch.randint(moves + len(groups), (walks,), generator=draw, dtype=torch.int64, device="cpu").repeat(
            count
        )
        share = torch.rand(walks, generator=draw, dtype=torch.float64, device="cpu").repeat(count)
        side = (torch.rand(walks, generator=draw, dtype=torch.float32, device="cpu") < 0.5).repeat(count)
        went = _stepped(best, state, owner, pick, share, side, limit)
        cost = cost_of(allowed, went, allowed.start[owner])
        going = torch.isinf(price) & (cost < limit[owner]) & (went != state).any(1)
        ask = going.nonzero().squeeze(1)
        state[ask] = went[ask]
        left, flipped = best.ask(state[ask], cost[ask], owner[ask])
        price[ask[flipped]] = cost[ask[flipped]]
        nearer = ~flipped & (left < gap[ask])
        near[ask[nearer]], gap[ask[nearer]] = state[ask[nearer]], left[nearer]
    index = _least(price, count, kept)
    flips = Best(best.decider, allowed.take(owner[index]), best.granted[owner[index]], owner[index])
    flips.record, flips.cost = state[index].clone(), price[index].clone()
    index = _least(gap, count, kept)
    return Walks(flips, near[index], gap[index], owner[index])


def _least(values: Tensor, count: int, kept: int) -> Tensor:
    """Of each of ``count`` records the positions of its least finite values, up to ``kept``."""
    each = len(values) // max(1, count)
    order = values.view(count, each).argsort(dim=1, stable=True)[:, :kept]
    index = (order + each * torch.arange(count, dtype=torch.int64, device="cpu").unsqueeze(1)).flatten()
    return index[torch.isfinite(values[index])]


def _stepped(
    best: Best, state: Tensor, owner: Tensor, pick: Tensor, share: Tensor, side: Tensor, limit: Tensor
) -> Tensor:
    """Each state (Q, F) after its move ``pick`` (Q,): a share of how far it can go, or another category."""
    allowed = best.allowed
    went, moves = state.clone(), len(allowed.moves.vectors)
    walking = (pick < moves).nonzero().squeeze(1)
    if len(walking):
        move = pick[walking].unsqueeze(1)
        up, down = reach(allowed, state[walking], owner[walking], limit)
        longest = torch.where(side[walking], up.gather(1, move).squeeze(1), down.gather(1, move).squeeze(1))
        unit = allowed.moves.units[move.squeeze(1)]
        length = longest * share[walking]
        length = torch.where(unit > 0, torch.ceil(length / torch.where(unit > 0, unit, 1.0) - 1e-9) * unit, length)
        length = torch.minimum(length, longest) * torch.where(side[walking], 1.0, -1.0).to(longest.dtype)
        numeric = allowed.layout.numeric
        went[walking] = went[walking].index_add(
            1, numeric, length.unsqueeze(1) * allowed.moves.vectors[move.squeeze(1)]
        )
    for column, (number, _, width) in enumerate(allowed.layout.groups):
        mine = (pick == moves + column) & allowed.open_groups[owner, column]
        went[mine, number] = (share[mine] * width).floor().clamp_max(width - 1)
    return went
