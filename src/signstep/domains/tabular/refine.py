"""From one-feature changes to pairs, and from a flip to one that no small exchange makes cheaper."""

import torch
from torch import Tensor

from signstep.domains.tabular.beam import Effort
from signstep.domains.tabular.breakpoints import Turns
from signstep.domains.tabular.incumbents import Best, Questions, changed, switches
from signstep.domains.tabular.line_search import Lines, cheapest_on
from signstep.domains.tabular.neighbours import cost_of

_PROBES = (0.25, 0.5, 0.75, 1 - 1e-6)  # of what a line may cost: where its effect is looked at
_FIRST = (0.25, 0.5, 0.75)  # of what a pair may cost: what its first feature takes
_OUTWARD = (0.125, 0.25, 0.5, 1.0)
_GRID = 4
_GAIN = 1 - 1e-5
_DESCENTS = 30
_NOTHING = 1e-6  # of a standard deviation, or of a cost


def alone(best: Best, turns: Turns | None, effort: Effort) -> Tensor:
    """Every feature alone, and every other elementary move: the cheapest flip along each, below the best known.

    Returns:
        (R,) bool: whether no change of one feature alone that is cheaper than the row's best can have been missed.
    """
    allowed = best.allowed
    rows = torch.arange(len(best.cost), dtype=torch.int64, device="cpu")
    lines = Lines.of(allowed, allowed.start, rows, best.cost)
    exact = cheapest_on(best, lines, turns, effort.grid)
    of_one = (allowed.moves.parts != 0).sum(1) == 1
    missed = torch.zeros(len(rows), dtype=torch.bool, device="cpu")
    missed[lines.state[~exact & of_one[lines.move]]] = True
    return ~missed


def in_pairs(best: Best, lead: Tensor, turns: Turns | None, effort: Effort) -> Tensor:
    """The pairs of the moves that bring each row nearest to flipping, below the best known cost.

    The first of a pair takes a share of the cost, the other is searched along its line.

    Args:
        best: what is known; it learns.
        lead: (R,) how far each row is from flipping.
        turns: of a model that can be read.
        effort: how many.

    Returns:
        (R, D) bool: the moves that were chosen.
    """
    allowed = best.allowed
    rows = torch.arange(len(best.cost), dtype=torch.int64, device="cpu")
    start = allowed.start
    lines = Lines.of(allowed, start, rows, best.cost)
    along = _shares(lines, _PROBES)
    probes = along.join(switches(allowed, start, rows))
    left, _ = best.ask(changed(allowed, start, rows, probes), probes.cost, probes.state)
    gain = lead[probes.state] - left
    moves, groups = len(allowed.moves.vectors), len(allowed.layout.groups)
    column = torch.tensor([moves + place for place in range(groups)], dtype=torch.int64, device="cpu")
    of_group = torch.full((len(allowed.layout.schema.features),), -1, dtype=torch.int64, device="cpu")
    of_group[[number for number, _, _ in allowed.layout.groups]] = column
    where = torch.where(probes.feature >= 0, of_group[probes.feature.clamp_min(0)], probes.move)
    effect = torch.zeros(len(rows) * (moves + groups), dtype=torch.float64, device="cpu")
    effect = effect.scatter_reduce(0, probes.state * (moves + groups) + where, gain, "amax").view(len(rows), -1)
    top = effect.topk(min(effort.pairs, effect.shape[1]), 1).indices
    chosen = torch.zeros_like(effect, dtype=torch.bool).scatter(1, top, torch.ones_like(top, dtype=torch.bool))
    chosen &= effect > 0
    first = _shares(lines, _FIRST)
    first = first.pick(chosen[first.state, first.move]).join(
        probes.pick((probes.feature >= 0) & chosen[probes.state, where])
    )
    _go_on(best, changed(allowed, start, rows, first), first.state, chosen[:, :moves], turns)
    return chosen[:, :moves]


def refine(best: Best, chosen: Tensor, turns: Turns | None, effort: Effort) -> None:
    """Make flips cheaper until neither a move along one line does, nor an exchange of two.

    Args:
        best: what is known; it learns.
        chosen: (R, D) bool: moves that exchanges take in, beside those of the flip itself.
        turns: of a model that can be read.
        effort: how many rounds.
    """
    rows = torch.isfinite(best.cost).nonzero().squeeze(1)
    descend(best, turns, rows)
    for _ in range(effort.refine):
        before = best.cost[rows].clone()
        _exchange(best, rows, chosen, turns)
        rows = rows[best.cost[rows] < before * _GAIN]
        if len(rows) == 0:
            return
        descend(best, turns, rows)


def tidy(best: Best) -> None:
    """Numbers a hair from where they started, or from their bound, go there where the flip stays.

    That saves next to nothing, but a change of nothing would be named with the others.
    """
    allowed, numeric = best.allowed, best.allowed.layout.numeric
    hair = _NOTHING * best.cost.new_tensor([feature.spread for feature in allowed.layout.schema.features])[numeric]
    rows = torch.isfinite(best.cost).nonzero().squeeze(1)
    here, value = allowed.take(rows), best.record[rows][:, numeric]
    aim = value.clone()
    for end in (here.low, here.high, here.start[:, numeric]):
        aim = torch.where((value - end).abs() <= hair, end, aim)
    moved = aim != value
    if not bool(moved.any()):
        return
    # All at once, and each by itself.
    q, number = moved.nonzero().unbind(1)
    every = moved.any(1).nonzero().squeeze(1)
    tried = torch.cat([best.record[rows[every]], best.record[rows[q]]])
    tried[: len(every), numeric] = aim[every]
    tried[torch.arange(len(every), len(tried), dtype=torch.int64, device="cpu"), numeric[number]] = aim[q, number]
    whose = torch.cat([every, q])
    kept = allowed.holds(tried[:, numeric]).nonzero().squeeze(1)
    tried, whose = tried[kept], rows[whose[kept]]
    cost = cost_of(allowed, tried, allowed.start[whose])
    _, flipped = best.look(tried, whose, torch.ones_like(whose, dtype=torch.bool))
    near = flipped & (cost <= best.cost[whose] * (1 + _NOTHING))
    best.replace(tried[near], cost[near], whose[near])


def descend(best: Best, turns: Turns | None, rows: Tensor | None = None) -> None:
    """Along every line from the flips to cheaper ones, until there is none: drops, shrinks or goes on in one move."""
    rows = torch.isfinite(best.cost).nonzero().squeeze(1) if rows is None else rows
    for _ in range(_DESCENTS if len(rows) else 0):
        before, states = best.cost[rows].clone(), best.record[rows].clone()
        lines = Lines.of(best.allowed, states, rows, best.cost)
        cheapest_on(best, lines, turns, _GRID, flipped=True)
        rows = rows[best.cost[rows] < before * _GAIN]
        if len(rows) == 0:
            return


def _exchange(best: Best, rows: Tensor, chosen: Tensor, turns: Turns | None) -> None:
    """One part of the flip is taken back or another pushed further; then every move of either is searched again."""
    allowed, numeric = best.allowed, best.allowed.layout.numeric
    states = best.record[rows].clone()
    start = allowed.start[rows]
    differs = (states != start)[:, numeric].double()
    moved = (differs @ (allowed.moves.vectors != 0).double().T) > 0
    only = moved | chosen[rows]
    lines = Lines.of(allowed, states, rows, 2 * best.cost, only)
    line, place = torch.isfinite(lines.back()).nonzero().unbind(1)
    back = lines.back()[line, place]
    inward = lines.questions(torch.cat([line, line]), torch.cat([back, _whole(lines, line, back / 2)]))
    level = switches(allowed, states, rows)
    again = level.pick(level.level == start[level.state, level.feature.clamp_min(0)]) if len(level.state) else level
    tried = inward.join(again).join(_shares(lines, _OUTWARD)).join(level)
    tried = tried.pick(tried.length.abs() + (tried.feature >= 0) > 0)
    keep = torch.zeros((len(best.cost), only.shape[1]), dtype=torch.bool, device="cpu")
    keep[rows] = only
    _go_on(best, changed(allowed, states, rows, tried), rows[tried.state], keep, turns)


def _go_on(best: Best, states: Tensor, owner: Tensor, only: Tensor, turns: Turns | None) -> None:
    """From states (Q, F) of the rows ``owner``: themselves, then one more move of ``only`` (R, D) or category."""
    for part in torch.split(torch.arange(len(owner), dtype=torch.int64, device="cpu"), _STATES):
        here, whose = states[part], owner[part]
        lines = Lines.of(best.allowed, here, whose, best.cost, only[whose])
        cheapest_on(best, lines, turns if turns is not None and turns.few else None, _GRID, themselves=True)


_STATES = 4096


def _whole(lines: Lines, line: Tensor, length: Tensor) -> Tensor:
    """Lengths rounded up to whole units, not beyond the end of their lines."""
    unit = lines.unit[line]
    whole = torch.ceil(length / torch.where(unit > 0, unit, 1.0) - 1e-9) * unit
    return torch.minimum(torch.where(unit > 0, whole, length), lines.longest[line])


def _shares(lines: Lines, shares: tuple[float, ...]) -> Questions:
    """Points at shares of each line."""
    line = torch.arange(len(lines), dtype=torch.int64, device="cpu").repeat(len(shares))
    share = torch.tensor(shares, dtype=torch.float64, device="cpu").repeat_interleave(len(lines))
    return lines.questions(line, _whole(lines, line, lines.longest[line] * share))
