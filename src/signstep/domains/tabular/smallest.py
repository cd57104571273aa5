"""The cheapest change that flips a decision, under the schema's costs.

A beam search over elementary moves: from each state every move is tried at several lengths, the states that promise the
lowest total cost go on, and every point that flips counts. What is found is then polished: moves that make it cheaper
and keep it flipped are taken until there is none. Where the model has gradients they say which moves to try first, and
how far; otherwise all are asked for. What is returned did flip; that nothing cheaper exists is not claimed.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from signstep.domains.tabular.decide import Decider
from signstep.domains.tabular.directions import Moves
from signstep.domains.tabular.encode import Layout
from signstep.domains.tabular.neighbours import Neighbours, cost_of, neighbours
from signstep.domains.tabular.reach import Set

_SHARES = (1.0, 0.5, 0.2, 0.05)
_FINE = tuple(0.5**power for power in range(12))
_ROWS = 64
_HASTE = 1.2  # what is still to be done counts more than what was paid: longer steps win among equal rates


@dataclass(frozen=True, eq=False)
class Cheapest:
    """What was found for R records.

    Attributes:
        records: (R, F) the cheapest record found that flips the decision; the record itself where none was found.
        cost: (R,) what it costs; inf where none was found.
        granted: (R,) bool: the decision before.
        forwards: rows that the model was asked for.
        backwards: rows whose gradient was taken.
    """

    records: Tensor
    cost: Tensor
    granted: Tensor
    forwards: int
    backwards: int

    @property
    def found(self) -> Tensor:
        """Where a flip was found (R,) bool."""
        return torch.isfinite(self.cost)


@dataclass(frozen=True)
class Effort:
    """How hard to look.

    Attributes:
        beam: states that go on for each record.
        rounds: moves in a row.
        shortlist: moves asked for from each state where gradients rank them.
        polish: rounds of making the flip cheaper.
        again: times that parts of the flip are undone, and the search goes on from there.
        gradients: whether the model has any.
    """

    beam: int = 4
    rounds: int = 40
    shortlist: int = 48
    polish: int = 40
    again: int = 2
    gradients: bool = True


def cheapest_flips(decider: Decider, moves: Moves, decoded: Tensor, effort: Effort | None = None) -> Cheapest:
    """The cheapest flips found for decoded records (R, F).

    Bounds, steps, directions, immutable features and relations hold; budgets and the limit on changes, which belong to
    the audit, do not.
    """
    effort = effort or Effort()
    forwards, backwards = decider.forwards, decider.backwards
    parts = [_chunk(decider, moves, part, effort) for part in torch.split(decoded, _ROWS)]
    return Cheapest(
        torch.cat([records for records, _, _ in parts]),
        torch.cat([cost for _, cost, _ in parts]),
        torch.cat([granted for _, _, granted in parts]),
        decider.forwards - forwards,
        decider.backwards - backwards,
    )


def _chunk(decider: Decider, moves: Moves, decoded: Tensor, effort: Effort) -> tuple[Tensor, Tensor, Tensor]:
    allowed = Set.around(decider.layout, moves, decoded, None)
    lead, granted = decider(decoded)
    found = _Found(decider, allowed, granted)
    everyone = torch.arange(len(decoded), dtype=torch.int64, device="cpu")
    found.search(decoded, lead.abs(), everyone, effort)
    lost = everyone[torch.isinf(found.cost)]
    if effort.gradients and len(lost):  # a gradient that is zero, or points the wrong way, ranks nothing
        found.search(decoded[lost], lead.abs()[lost], lost, replace(effort, gradients=False))
    return found.record, found.cost, granted


class _Found:
    """The cheapest flip of each record so far."""

    def __init__(self, decider: Decider, allowed: Set, granted: Tensor) -> None:
        self.decider, self.allowed, self.granted = decider, allowed, granted
        self.record = allowed.start.clone()
        self.cost = torch.full((len(granted),), torch.inf, dtype=torch.float64, device="cpu")
        self._polished_to = self.cost

    def search(self, state: Tensor, gap: Tensor, owner: Tensor, effort: Effort) -> None:
        """From states (Q, F) of the records ``owner`` (Q,): look for flips, make them cheaper, undo parts, go on."""
        for _ in range(effort.rounds):
            if len(state) == 0:
                break
            state, gap, owner = self.expand(state, gap, owner, effort)
        self.polish(effort.polish)
        for _ in range(effort.again):
            state, gap, owner = self.undone(effort.beam)
            for _ in range(2):
                if len(state):
                    state, gap, owner = self.expand(state, gap, owner, effort)
            if not self.polish(effort.polish):
                break

    def expand(self, state: Tensor, gap: Tensor, owner: Tensor, effort: Effort) -> tuple[Tensor, Tensor, Tensor]:
        """One move from every state (Q, F): note flips, return the states that go on."""
        here = self.allowed.take(owner)
        slope = None
        if effort.gradients:
            sign = torch.where(self.granted[owner], 1.0, -1.0).double().unsqueeze(1)
            slope = self.decider.slope(state) * sign
        near = neighbours(here, state, _SHARES, None if slope is None else _needed(here, slope, gap))
        ask = near.valid & (near.cost < self.cost[owner].unsqueeze(1) * (1 - 1e-9))
        if slope is not None:
            ask = ask & _ranked(self.decider.layout, state, near, ask, slope, gap, here, effort.shortlist)
        where = ask.nonzero()
        if len(where) == 0:
            return state[:0], gap[:0], owner[:0]
        q, c = where[:, 0], where[:, 1]
        records, cost, whose = near.records[q, c], near.cost[q, c], owner[q]
        lead, flipped = self._asked(records, whose)
        self._note(records, cost, whose, flipped)
        before = cost_of(here, state, here.start)
        gain, extra = gap[q] - lead, cost - before[q]
        rate = torch.where((extra > 0) & (gain > 0), gain / extra.clamp_min(1e-300), 0.0)
        best = torch.zeros(len(self.cost), dtype=torch.float64, device="cpu").scatter_reduce(0, whose, rate, "amax")
        ahead = torch.where(best[whose] > 0, lead.clamp_min(0) / best[whose].clamp_min(1e-300), 0.0)
        hope = torch.where(flipped | (cost + 0.0 >= self.cost[whose]), torch.inf, cost + _HASTE * ahead)
        pick = _best_of(whose, hope, cost, lead, effort.beam)
        return records[pick], lead[pick], whose[pick]

    def polish(self, rounds: int) -> bool:
        """Take the cheapest neighbour that is still flipped, as long as there is one; whether any row gained since."""
        began = self._polished_to.clone()
        for _ in range(rounds):
            before = self.cost.clone()
            self._cheaper(_FINE)
            if not bool((self.cost < before).any()):
                break
        self._polished_to = self.cost.clone()
        return bool((self.cost < began).any())

    def undone(self, beam: int) -> tuple[Tensor, Tensor, Tensor]:
        """States to go on from: the flip with one part taken back, so that it no longer flips; the nearest to it."""
        records, cost, whose, lead, flipped = self._cheaper(_SHARES)
        hope = torch.where(flipped, torch.inf, lead)
        pick = _best_of(whose, hope, cost, lead, beam)
        return records[pick], lead[pick], whose[pick]

    def _cheaper(self, shares: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Ask for all cheaper neighbours of the flips; returns them, their cost, owner, lead, and whether they flip."""
        rows = torch.isfinite(self.cost).nonzero().squeeze(1)
        here = self.allowed.take(rows)
        near = neighbours(here, self.record[rows], shares)
        where = (near.valid & (near.cost < self.cost[rows].unsqueeze(1) * (1 - 1e-4))).nonzero()
        q, c = where[:, 0], where[:, 1]
        records, cost, whose = near.records[q, c], near.cost[q, c], rows[q]
        lead, flipped = self._asked(records, whose)
        self._note(records, cost, whose, flipped)
        return records, cost, whose, lead, flipped

    def _asked(self, records: Tensor, whose: Tensor) -> tuple[Tensor, Tensor]:
        """How far each record is from flipping, and whether it has."""
        if len(records) == 0:
            return records.new_zeros(0), torch.zeros(0, dtype=torch.bool, device="cpu")
        lead, granted = self.decider(records)
        return torch.where(self.granted[whose], lead, -lead), granted != self.granted[whose]

    def _note(self, records: Tensor, cost: Tensor, whose: Tensor, flipped: Tensor) -> None:
        price = torch.where(flipped, cost, torch.inf)
        low = self.cost.scatter_reduce(0, whose, price, "amin")
        winner = flipped & (price == low[whose]) & (price < self.cost[whose])
        for index in winner.nonzero().squeeze(1).tolist():
            owner = int(whose[index])
            if float(price[index]) < float(self.cost[owner]):
                self.record[owner], self.cost[owner] = records[index], price[index]


def _needed(here: Set, slope: Tensor, gap: Tensor) -> Tensor:
    """The lengths (Q, 2, D) at which a linear model would flip, a hair beyond."""
    rate = slope[:, here.layout.numeric_columns] @ here.moves.vectors.T
    need = gap.unsqueeze(1) * 1.0001 / rate.abs().clamp_min(1e-300)
    never = torch.zeros_like(need)
    return torch.stack([torch.where(rate < 0, need, never), torch.where(rate > 0, need, never)], 1)


def _ranked(
    layout: Layout, state: Tensor, near: Neighbours, ask: Tensor, slope: Tensor, gap: Tensor, here: Set, most: int
) -> Tensor:
    """The moves (Q, C) bool that promise most per cost, up to ``most`` of each state."""
    change = layout.widen(near.records) - layout.widen(state).unsqueeze(1)
    promised = -(change @ slope.unsqueeze(2)).squeeze(2).clamp_max(0)
    promised = torch.minimum(promised, gap.unsqueeze(1) * 1.0002)
    extra = near.cost - cost_of(here, state, here.start).unsqueeze(1)
    rate = torch.where(extra > 0, promised / extra.clamp_min(1e-12), promised * 1e12)
    rate = torch.where(ask, rate, -1.0)
    keep = min(most, rate.shape[1])
    top = rate.topk(keep, 1).indices
    return torch.zeros_like(ask).scatter(1, top, torch.ones_like(top, dtype=torch.bool)) & (rate > 0)


def _best_of(whose: Tensor, hope: Tensor, cost: Tensor, lead: Tensor, most: int) -> Tensor:
    """For each record the positions of its most hopeful states, at most ``most``; equal ones once."""
    order = hope.argsort(stable=True)
    order = order[whose[order].argsort(stable=True)]
    picked: list[int] = []
    count, last = 0, (-1, 0.0, 0.0)
    for index, owner, worth, price, left in zip(
        order.tolist(), *(part[order].tolist() for part in (whose, hope, cost, lead)), strict=True
    ):
        count = count if owner == last[0] else 0
        same = (owner, price, left) == last
        if count < most and not same and worth != float("inf"):
            picked.append(index)
            count += 1
        last = (owner, price, left)
    return torch.tensor(picked, dtype=torch.int64, device="cpu")
