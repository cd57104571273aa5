"""Flips far from a record, by walks of random moves: where to begin again when what leads the search leads nowhere."""

import torch
from torch import Tensor

from signstep.domains.tabular.best import Best
from signstep.domains.tabular.lines import reach
from signstep.domains.tabular.neighbours import cost_of

_STEPS = 16
_FURTHER = 2.0  # times the best known cost: how dear a walk may become


def wander(best: Best, walks: int, kept: int) -> Best:
    """Walk at random from each record until it flips.

    Every record has the same draws, so that what it gets does not depend on the others.

    Args:
        best: what is known. Walks cost at most twice that; where nothing is known they go anywhere.
        walks: of each record.
        kept: flips of each record that are returned, the cheapest.

    Returns:
        Those flips, as rows of their own; and in ``rows`` whose they are.
    """
    allowed, rows = best.allowed, len(best.cost)
    draw = torch.Generator().manual_seed(0)
    owner = torch.arange(rows).repeat_interleave(walks)
    state = allowed.start[owner].clone()
    moves, groups = len(allowed.moves.vectors), allowed.layout.groups
    limit = _FURTHER * best.cost
    price = torch.full((len(owner),), torch.inf, dtype=torch.float64)
    for _ in range(min(_STEPS, 2 * (moves + len(groups))) if moves + len(groups) else 0):
        pick = torch.randint(moves + len(groups), (walks,), generator=draw).repeat(rows)
        share = torch.rand(walks, generator=draw, dtype=torch.float64).repeat(rows)
        side = (torch.rand(walks, generator=draw) < 0.5).repeat(rows)
        open_ = torch.isinf(price)
        went = _stepped(best, state, owner, pick, share, side, limit)
        cost = cost_of(allowed, went, allowed.start[owner])
        ask = (open_ & (cost < limit[owner]) & (went != state).any(1)).nonzero().squeeze(1)
        state[ask] = went[ask]
        _, flipped = best.ask(state[ask], cost[ask], owner[ask])
        price[ask[flipped]] = cost[ask[flipped]]
    order = price.view(rows, walks).argsort(dim=1, stable=True)[:, :kept]
    index = (order + walks * torch.arange(rows).unsqueeze(1)).flatten()
    index = index[torch.isfinite(price[index])]
    found = Best(best.decider, allowed.take(owner[index]), best.granted[owner[index]], owner[index])
    found.record, found.cost = state[index].clone(), price[index].clone()
    return found


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
        length = torch.minimum(length, longest) * torch.where(side[walking], 1.0, -1.0)
        numeric = allowed.layout.numeric
        went[walking] = went[walking].index_add(
            1, numeric, length.unsqueeze(1) * allowed.moves.vectors[move.squeeze(1)]
        )
    for column, (number, _, width) in enumerate(allowed.layout.groups):
        mine = (pick == moves + column) & allowed.open_groups[owner, column]
        went[mine, number] = (share[mine] * width).floor().clamp_max(width - 1)
    return went
