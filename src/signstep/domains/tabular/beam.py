"""A beam search for cheap flips: from each state every elementary move at several lengths, the most hopeful go on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.domains.tabular.encode import Layout
from signstep.domains.tabular.incumbents import Best
from signstep.domains.tabular.neighbours import Neighbours, cost_of, neighbours
from signstep.domains.tabular.reach import Set

_SHARES = (1.0, 0.5, 0.2, 0.05)
_FINE = tuple(0.5**power for power in range(12))
_HASTE = 1.2  # what is still to be done counts more than what was paid: longer steps win among equal rates


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
        grid: values asked of a feature alone where it has more than four times as many and the model cannot be read.
        pairs: features whose pairs are searched, those that move the answer most.
        walks: random walks of each record, from whose flips the search begins again.
        starts: flips of walks from which it does.
        refine: rounds of exchanging parts of the flip at the end.
        combinations: records cheaper than the flip that are all asked for, where every feature is discrete and there
            are at most so many; 0 for none.
    """

    beam: int = 4
    rounds: int = 40
    shortlist: int = 48
    polish: int = 40
    again: int = 2
    gradients: bool = True
    grid: int = 64
    pairs: int = 6
    walks: int = 16
    starts: int = 4
    refine: int = 12
    combinations: int = 4096


class Beam:
    """The search; what it finds goes to ``best``."""

    def __init__(self, best: Best) -> None:
        self.best, self.allowed = best, best.allowed
        self._polished_to = best.cost

    def search(self, state: Tensor, gap: Tensor, owner: Tensor, effort: Effort) -> None:
        """From states (Q, F) of the records ``owner`` (Q,): look for flips, make them cheaper, undo parts, go on."""
        self.expanded(state, gap, owner, effort)
        self.polish(effort.polish)
        for _ in range(effort.again):
            state, gap, owner = self.undone(effort.beam)
            for _ in range(2):
                if len(state):
                    state, gap, owner = self.expand(state, gap, owner, effort)
            if not self.polish(effort.polish):
                break

    def expanded(self, state: Tensor, gap: Tensor, owner: Tensor, effort: Effort) -> None:
        """Move after move from states (Q, F), as long as any goes on."""
        for _ in range(effort.rounds):
            if len(state) == 0:
                break
            state, gap, owner = self.expand(state, gap, owner, effort)

    def expand(self, state: Tensor, gap: Tensor, owner: Tensor, effort: Effort) -> tuple[Tensor, Tensor, Tensor]:
        """One move from every state (Q, F): note flips, return the states that go on."""
        here = self.allowed.take(owner)
        slope = None
        if effort.gradients:
            sign = torch.where(self.best.granted[owner], 1.0, -1.0).double().unsqueeze(1)
            slope = self.best.decider.slope(state) * sign
        near = neighbours(here, state, _SHARES, None if slope is None else _needed(here, slope, gap))
        ask = near.valid & (near.cost < self.best.cost[owner].unsqueeze(1) * (1 - 1e-9))
        if slope is not None:
            ask = ask & _ranked(self.best.decider.layout, state, near, ask, slope, gap, here, effort.shortlist)
        where = ask.nonzero()
        if len(where) == 0:
            return state[:0], gap[:0], owner[:0]
        q, c = where[:, 0], where[:, 1]
        records, cost, whose = near.records[q, c], near.cost[q, c], owner[q]
        lead, flipped = self.best.ask(records, cost, whose)
        before = cost_of(here, state, here.start)
        gain, extra = gap[q] - lead, cost - before[q]
        rate = torch.where((extra > 0) & (gain > 0), gain / extra.clamp_min(1e-300), 0.0)
        best = torch.zeros(len(self.best.cost), dtype=torch.float64, device="cpu").scatter_reduce(
            0, whose, rate, "amax"
        )
        ahead = torch.where(best[whose] > 0, lead.clamp_min(0) / best[whose].clamp_min(1e-300), 0.0)
        hope = torch.where(flipped | (cost + 0.0 >= self.best.cost[whose]), torch.inf, cost + _HASTE * ahead)
        pick = _best_of(whose, hope, cost, lead, effort.beam)
        return records[pick], lead[pick], whose[pick]

    def polish(self, rounds: int) -> bool:
        """Take the cheapest neighbour that is still flipped, as long as there is one; whether any row gained since."""
        began = self._polished_to.clone()
        for _ in range(rounds):
            before = self.best.cost.clone()
            self._cheaper(_FINE)
            if not bool((self.best.cost < before).any()):
                break
        self._polished_to = self.best.cost.clone()
        return bool((self.best.cost < began).any())

    def undone(self, beam: int) -> tuple[Tensor, Tensor, Tensor]:
        """States to go on from: the flip with one part taken back, so that it no longer flips; the nearest to it."""
        records, cost, whose, lead, flipped = self._cheaper(_SHARES)
        hope = torch.where(flipped, torch.inf, lead)
        pick = _best_of(whose, hope, cost, lead, beam)
        return records[pick], lead[pick], whose[pick]

    def _cheaper(self, shares: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Ask for all cheaper neighbours of the flips; returns them, their cost, owner, lead, and whether they flip."""
        rows = torch.isfinite(self.best.cost).nonzero().squeeze(1)
        here = self.allowed.take(rows)
        near = neighbours(here, self.best.record[rows], shares)
        where = (near.valid & (near.cost < self.best.cost[rows].unsqueeze(1) * (1 - 1e-4))).nonzero()
        q, c = where[:, 0], where[:, 1]
        records, cost, whose = near.records[q, c], near.cost[q, c], rows[q]
        lead, flipped = self.best.ask(records, cost, whose)
        return records, cost, whose, lead, flipped


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
