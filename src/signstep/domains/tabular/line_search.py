"""Lines from states along single elementary moves: where to ask on them, and the cheapest flip they hold.

Where a model can be read (`turns`) the points at which its answer can change are known, and what lies between them
needs no question. Else whole numbers are asked for one by one while they are few, and others on a grid, whose cheapest
flip is then bisected.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.domains.tabular.breakpoints import Turns
from signstep.domains.tabular.incumbents import Best, Questions, changed, switches
from signstep.domains.tabular.neighbours import cost_of, prices
from signstep.domains.tabular.reach import Set

_HAIR = 1e-7  # of the numbers involved: how far beside a turn to ask
_BESIDE = (1.0, 20.0)  # hairs: rounding may keep the nearest points from flipping
_FURTHER = 400.0
_BISECTIONS = 24
_FINE = 2e-5  # of a length: where bisecting ends
# Of the numbers involved, how far from the end of a flip to ask, and whether it must be more than rounding there: an
# exact tie never is, and counts last of all.
_ASIDE = ((1e-6, True), (2e-5, True), (4e-4, True), (1e-6, False))


@dataclass(frozen=True, eq=False)
class Lines:
    """L lines from states of rows.

    Attributes:
        allowed: the set.
        states: (Q, F) where lines begin.
        owner: (Q,) the row of each state.
        state: (L,) where each line begins.
        move: (L,) the elementary move.
        sign: (L,) 1 or -1.
        longest: (L,) how far it goes, above 0.
    """

    allowed: Set
    states: Tensor
    owner: Tensor
    state: Tensor
    move: Tensor
    sign: Tensor
    longest: Tensor

    @classmethod
    def of(cls, allowed: Set, states: Tensor, owner: Tensor, limit: Tensor, only: Tensor | None = None) -> "Lines":
        """All lines from states (Q, F), as far as they can cost less than ``limit`` (R,); ``only`` (Q, D) bool some."""
        found = []
        for sign, longest in zip((1.0, -1.0), reach(allowed, states, owner, limit), strict=True):
            q, d = ((longest > 0) if only is None else (longest > 0) & only).nonzero().unbind(1)
            found.append((q, d, torch.full_like(longest[q, d], sign), longest[q, d]))
        return cls(allowed, states, owner, *(torch.cat(part) for part in zip(*found, strict=True)))

    def __len__(self) -> int:
        return len(self.state)

    @property
    def unit(self) -> Tensor:
        """Lengths are multiples of it (L,), or 0."""
        return self.allowed.moves.units[self.move]

    def cost(self, line: Tensor, length: Tensor) -> Tensor:
        """What the points (P,) at ``length`` on the lines ``line`` (P,) cost, from the start."""
        state, move = self.state[line], self.move[line]
        price, disp = _components(self.allowed, self.states, self.owner)
        parts = self.allowed.moves.parts[move]
        here = disp[state, move]
        there = here + (self.sign[line] * length).unsqueeze(1) * parts
        before = cost_of(self.allowed, self.states, self.allowed.start[self.owner])
        return before[state] + (price[move] * (there.abs() - here.abs()) * (parts != 0)).sum(1)

    def back(self) -> Tensor:
        """Lengths (L, 3) at which a feature is back at its start; inf where none."""
        _, disp = _components(self.allowed, self.states, self.owner)
        parts = self.allowed.moves.parts[self.move] * self.sign.unsqueeze(1)
        length = -disp[self.state, self.move] / torch.where(parts != 0, parts, 1.0)
        unit = self.unit.unsqueeze(1)
        near = torch.round(length / torch.where(unit > 0, unit, 1.0)) * unit
        length = torch.where(unit > 0, near, length)
        return torch.where((parts != 0) & (length > 0) & (length <= self.longest.unsqueeze(1)), length, torch.inf)

    def questions(self, line: Tensor, length: Tensor, *, edge: bool = False) -> Questions:
        """Points (P,) as questions; at the ``edge`` of flips where lengths are not whole."""
        none = torch.full_like(line, -1)
        return Questions(
            self.state[line],
            self.move[line],
            self.sign[line] * length,
            none,
            none.double(),
            self.cost(line, length),
            (self.unit[line] == 0) & edge,
        )

    def scale(self) -> Tensor:
        """The numbers that lengths are added to, in units of length (L,): rounding is a share of them."""
        parts = self.allowed.moves.parts[self.move].abs()
        value = self.states[:, self.allowed.layout.numeric][self.state].abs()
        value = (value + self.allowed.layout.scale[0][self.allowed.layout.numeric_columns].abs()).gather(
            1, self.allowed.moves.places[self.move]
        )
        return torch.where(parts != 0, value / parts.clamp_min(1e-300), 0.0).amax(1) + self.longest


def reach(allowed: Set, states: Tensor, owner: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """How far each move can go from states (Q, F), forwards and back (Q, D), and may still cost less than ``limit``."""
    here, value = allowed.take(owner), states[:, allowed.layout.numeric]
    price, disp = _components(allowed, states, owner)
    rate = (price * allowed.moves.parts.abs()).sum(1)
    refund = (price * disp.abs()).sum(2)  # a feature on its way back to its start first gives back what it has cost
    spare = (limit[owner] - cost_of(allowed, states, here.start)).unsqueeze(1) + 2 * refund
    within = torch.where(torch.isfinite(spare), spare.clamp_min(0) / rate.clamp_min(1e-300), torch.inf)
    units = allowed.moves.units
    within = torch.where(units > 0, torch.floor(within / torch.where(units > 0, units, 1.0)) * units, within)
    return torch.minimum(here.lengths(value, 1.0), within), torch.minimum(here.lengths(value, -1.0), within)


def _components(allowed: Set, states: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Of each move's features the price (D, 3), 0 where padded, and how far each state is from its start (Q, D, 3)."""
    moves, numeric = allowed.moves, allowed.layout.numeric
    price = prices(allowed)[numeric][moves.places] * (moves.parts != 0)
    return price, (states - allowed.start[owner])[:, numeric][:, moves.places]


def cheapest_on(
    best: Best,
    lines: Lines,
    turns: Turns | None,
    grid: int,
    *,
    flipped: bool = False,
    themselves: bool = False,
) -> Tensor:
    """Ask for the cheapest flips that lines hold, below the best known ones, and for other categories of the states.

    Args:
        best: what is known; it learns.
        lines: where to look.
        turns: of a model that can be read; None asks on a grid.
        grid: points of a line, where it has more values.
        flipped: the states have flipped, so that whole lines may have.
        themselves: the states have not been asked for yet, and are first.

    Returns:
        (L,) bool: whether nothing was left out on the line: its flips below the best known one are known.
    """
    if themselves:
        best.ask_cheapest(lines.states, lines.owner, _as_they_are(lines))
    if turns is None:
        length, exact = _spread(lines, grid)
        beside = length[:, :0]
    else:
        beside, length = _read(lines, turns, whole=flipped or themselves)
        exact = torch.ones(len(lines), dtype=torch.bool, device="cpu")
    line, place = torch.isfinite(length).nonzero().unbind(1)
    questions = lines.questions(line, length[line, place])
    line, place = torch.isfinite(beside).nonzero().unbind(1)
    questions = questions.join(lines.questions(line, beside[line, place], edge=True))
    questions = questions.join(switches(lines.allowed, lines.states, lines.owner))
    cut = best.ask_cheapest(lines.states, lines.owner, questions)
    if not bool(exact.all()):
        _bisect(best, lines, length, ~exact)
    return exact & ~cut[lines.owner[lines.state]]


def _as_they_are(lines: Lines) -> Questions:
    state = torch.arange(len(lines.states), dtype=torch.int64, device="cpu")
    none = torch.full_like(state, -1)
    cost = cost_of(lines.allowed, lines.states, lines.allowed.start[lines.owner])
    return Questions(state, torch.zeros_like(state), cost.new_zeros(len(state)), none, none.double(), cost, none > 0)


def _read(lines: Lines, turns: Turns, *, whole: bool) -> tuple[Tensor, Tensor]:
    """Lengths (L, K) just beside the turns of each line, and others to ask for on it; inf where there are fewer.

    Between turns the answer stays, and the cost is least at a turn, at the line's end, or where a feature is back at
    its start: the latter two count where the line may have flipped from its beginning on (``whole``).
    """
    allowed = lines.allowed
    begin = lines.states[lines.state]
    step = lines.sign.unsqueeze(1) * allowed.moves.vectors[lines.move]
    at = turns.along(begin, step, lines.longest).unsqueeze(2)
    unit, hair = lines.unit.view(-1, 1, 1), _HAIR * lines.scale().view(-1, 1, 1)
    steps = torch.round(at / torch.where(unit > 0, unit, 1.0)) + at.new_tensor([-1.0, 0.0, 1.0])
    # On the dearer side of a turn: the other belongs to the piece before it, whose cheapest point is elsewhere.
    hair = torch.where(_rising(lines, at.squeeze(2), hair.view(-1, 1)).unsqueeze(2), hair, -hair)
    near = torch.where(unit > 0, torch.inf, at + hair * at.new_tensor(_BESIDE if turns.few else _BESIDE[:1]))
    further = torch.where((unit > 0) | (not turns.few), torch.inf, at + hair * _FURTHER)
    others = torch.cat([torch.where(unit > 0, steps * unit, torch.inf), further], 2).flatten(1)
    if whole:
        others = torch.cat([others, lines.longest.unsqueeze(1), lines.back()], 1)
    return _inside(near.flatten(1), lines), _inside(others, lines)


def _rising(lines: Lines, at: Tensor, hair: Tensor) -> Tensor:
    """Whether the cost grows along the line at lengths (L, K)."""
    line, place = torch.isfinite(at).nonzero().unbind(1)
    here, side = at[line, place], hair[line, 0]
    rising = torch.ones_like(at, dtype=torch.bool)
    rising[line, place] = lines.cost(line, here + side) >= lines.cost(line, here - side)
    return rising


def _inside(length: Tensor, lines: Lines) -> Tensor:
    return _compact(torch.where((length > 0) & (length <= lines.longest.unsqueeze(1)), length, torch.inf))


def _spread(lines: Lines, grid: int) -> tuple[Tensor, Tensor]:
    """All whole lengths (L, K) where they are at most 4 * grid, else a grid that is finer near 0 as well."""
    unit = lines.unit
    count = torch.where(unit > 0, torch.round(lines.longest / torch.where(unit > 0, unit, 1.0)), torch.inf)
    exact = count <= 4 * grid
    steps = torch.arange(
        1, 1 + (int(count[exact].max()) if bool(exact.any()) else 0), dtype=torch.float64, device="cpu"
    )
    fine = 0.5 ** torch.arange(1, 12 if grid > 8 else 4, dtype=torch.float64, device="cpu")
    shares = torch.cat([torch.arange(1, grid + 1, dtype=torch.float64, device="cpu") / grid, fine / grid])
    gridded = lines.longest.unsqueeze(1) * shares
    whole = torch.ceil(gridded / torch.where(unit > 0, unit, 1.0).unsqueeze(1) - 1e-9) * unit.unsqueeze(1)
    gridded = torch.where((unit > 0).unsqueeze(1), torch.minimum(whole, lines.longest.unsqueeze(1)), gridded)
    gridded = torch.where(exact.unsqueeze(1), torch.inf, gridded)
    singly = torch.where(exact.unsqueeze(1) & (steps <= count.unsqueeze(1)), steps * unit.unsqueeze(1), torch.inf)
    return _compact(torch.cat([singly, gridded, lines.back()], 1)), exact


def _compact(length: Tensor) -> Tensor:
    """Sorted, each once, and no wider than needed."""
    length = length.sort(1).values
    again = torch.zeros_like(length, dtype=torch.bool)
    again[:, 1:] = length[:, 1:] == length[:, :-1]
    length = torch.where(again, torch.inf, length).sort(1).values
    return length[:, : max(1, int(torch.isfinite(length).sum(1).max()) if len(length) else 1)]


def _bisect(best: Best, lines: Lines, length: Tensor, which: Tensor) -> None:
    """On lines that were asked on a grid: at the best cost of their row look for flips, and bisect towards cheaper.

    Between a point that has flipped and a cheaper one on the same line that has not lies an end of the flip.
    """
    index = which.nonzero().squeeze(1)
    if len(index) == 0:
        return
    points = torch.cat([torch.zeros_like(length[index, :1]), length[index]], 1)
    line = index.unsqueeze(1).expand_as(points)
    finite = torch.isfinite(points)
    cost = torch.full_like(points, torch.inf)
    cost[finite] = lines.cost(line[finite], points[finite])
    limit = best.cost[lines.owner[lines.state[index]]].unsqueeze(1)
    # Cells of neighbouring points with one end below the best cost, and the other at it or above.
    low, high = points[:, :-1], points[:, 1:]
    cheap, dear = cost[:, :-1], cost[:, 1:]
    both = torch.isfinite(high)
    rising = both & (cheap < limit) & (dear >= limit * (1 - 1e-9))
    falling = both & (dear < limit) & (cheap >= limit * (1 - 1e-9))
    row, cell = (rising | falling).nonzero().unbind(1)
    if len(row) == 0:
        return
    up = rising[row, cell]
    inner = torch.where(up, low[row, cell], high[row, cell])
    outer = torch.where(up, high[row, cell], low[row, cell])
    inside = torch.where(up, cheap[row, cell], dear[row, cell])
    beyond = torch.where(up, dear[row, cell], cheap[row, cell])
    share = ((limit[row, 0] - inside) / (beyond - inside).clamp_min(1e-300)).clamp(0, 1) * (1 - 1e-6)
    share = torch.where(torch.isfinite(share), share, 1.0)
    which_line, unit = index[row], lines.unit[index[row]]
    outer = inner + (outer - inner) * share
    outer = torch.where(unit > 0, inner + ((outer - inner) / torch.where(unit > 0, unit, 1.0)).trunc() * unit, outer)
    owner = lines.owner[lines.state[which_line]]
    flips = _flips(best, lines, which_line, outer)
    keep = (flips & (outer != inner)).nonzero().squeeze(1)
    inner, outer, which_line, unit, owner = (part[keep] for part in (inner, outer, which_line, unit, owner))
    for _ in range(_BISECTIONS):
        middle = (inner + outer) / 2
        safe = torch.where(unit > 0, unit, 1.0)
        middle = torch.where(unit > 0, torch.floor(middle / safe + 1e-9) * unit, middle)
        far = (outer - inner).abs()
        open_ = torch.where(unit > 0, far > unit * 1.5, far > _FINE * torch.maximum(inner, outer))
        # What cannot get below the least that another line of the row has come to asks no more.
        least = torch.full_like(best.cost, torch.inf)
        least = least.scatter_reduce(0, owner, lines.cost(which_line, outer), "amin")
        open_ &= lines.cost(which_line, inner) < least[owner]
        index = open_.nonzero().squeeze(1)
        if len(index) == 0:
            break
        flips = _flips(best, lines, which_line[index], middle[index])
        outer = outer.index_copy(0, index, torch.where(flips, middle[index], outer[index]))
        inner = inner.index_copy(0, index, torch.where(flips, inner[index], middle[index]))
    # Steps aside, so that rounding in the model does not undo the flip; whole numbers stay.
    away, scale = (outer - inner).sign(), lines.scale()[which_line]
    for times, firmly in _ASIDE[1:] if best.decider.labels else _ASIDE:
        aside = outer + torch.where(unit > 0, 0.0, times * away * scale)
        aside = torch.minimum(aside.clamp_min(0), lines.longest[which_line])
        open_ = ~_flips(best, lines, which_line, aside, keep=True, edge=firmly)
        which_line, outer, unit, away, scale = (part[open_] for part in (which_line, outer, unit, away, scale))
        if len(outer) == 0:
            return


def _flips(best: Best, lines: Lines, line: Tensor, length: Tensor, *, keep: bool = False, edge: bool = False) -> Tensor:
    questions = lines.questions(line, length, edge=edge)
    records = changed(lines.allowed, lines.states, lines.owner, questions)
    whose = lines.owner[questions.state]
    return best.ask(records, questions.cost, whose, questions.edge)[1] if keep else best.look(records, whose)[1]
