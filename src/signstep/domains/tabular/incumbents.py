"""The cheapest flip of each record so far, and the questions that may lower it, cheapest first."""

from typing import NamedTuple

import torch
from torch import Tensor

from signstep.domains.tabular.decide import Decider
from signstep.domains.tabular.neighbours import cost_of, prices
from signstep.domains.tabular.reach import Set

_WAVE = 64  # questions of each record at once, in the order of their cost
_MOST = 2**14  # questions of each record in a row
_GAIN = 1 - 1e-9
_SMALL = 1e-10


class Questions(NamedTuple):
    """P records to ask for, as changes of states: along an elementary move, or of a category.

    Attributes:
        state: (P,) which state is changed.
        move: (P,) the elementary move.
        length: (P,) how far along it, with its sign; 0 where a category changes.
        feature: (P,) the categorical feature that changes; -1 for none.
        level: (P,) its new category.
        cost: (P,) of the record, from the start.
        edge: (P,) bool: just beside the end of a flip, where only one that is more than rounding counts.
    """

    state: Tensor
    move: Tensor
    length: Tensor
    feature: Tensor
    level: Tensor
    cost: Tensor
    edge: Tensor

    def pick(self, index: Tensor) -> "Questions":
        """Those at ``index``, or where a mask holds."""
        return Questions(*(part[index] for part in self))

    def join(self, other: "Questions") -> "Questions":
        """These and others about the same states."""
        return Questions(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


class Best:
    """The cheapest flip of each of R records so far.

    Attributes:
        record: (R, F) the flip; the record itself where none is known.
        cost: (R,) what it costs; inf where none is known.
        granted: (R,) bool: the decision before.
        rows: (R,) which rows of another `Best` these are.
    """

    def __init__(self, decider: Decider, allowed: Set, granted: Tensor, rows: Tensor | None = None) -> None:
        self.decider, self.allowed, self.granted = decider, allowed, granted
        self.rows = torch.arange(len(granted), dtype=torch.int64, device="cpu") if rows is None else rows
        self.record = allowed.start.clone()
        self.cost = torch.full((len(granted),), torch.inf, dtype=torch.float64, device="cpu")

    def ask(self, records: Tensor, cost: Tensor, whose: Tensor, edge: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Ask for records (P, F) of the rows ``whose`` (P,); keeps flips that are cheaper. ``edge``: see `Questions`.

        Returns:
            How far each is from flipping (P,), and whether it has (P,) bool.
        """
        left, flipped = self.look(records, whose, edge)
        self._note(records, cost, whose, flipped)
        return left, flipped

    def look(self, records: Tensor, whose: Tensor, edge: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`ask` without keeping what has flipped."""
        if len(records) == 0:
            return records.new_zeros(0), torch.zeros(0, dtype=torch.bool, device="cpu")
        lead, granted, firm = self.decider.firmly(records)
        flipped = granted != self.granted[whose]
        return torch.where(self.granted[whose], lead, -lead), flipped if edge is None else flipped & (firm | ~edge)

    def ask_cheapest(self, states: Tensor, owner: Tensor, questions: Questions) -> Tensor:
        """Ask about states (Q, F) of the rows ``owner`` (Q,), cheapest first, until a record has flipped.

        Returns:
            (R,) bool: rows that had not flipped after 16,384 questions, and were not asked the others.
        """
        whose = owner[questions.state]
        cheaper = (questions.cost < self.cost[whose] * _GAIN).nonzero().squeeze(1)
        order = cheaper[questions.cost[cheaper].argsort(stable=True)]
        order = order[whose[order].argsort(stable=True)]
        questions, whose = questions.pick(order), whose[order]
        rank = torch.arange(len(whose), dtype=torch.int64, device="cpu") - torch.searchsorted(whose, whose)
        wave = rank // _WAVE
        for number in range(min(int(wave.max()) + 1, _MOST // _WAVE) if len(wave) else 0):
            index = ((wave == number) & (questions.cost < self.cost[whose] * _GAIN)).nonzero().squeeze(1)
            if len(index) == 0:
                continue
            asked = questions.pick(index)
            self.ask(changed(self.allowed, states, owner, asked), asked.cost, whose[index], asked.edge)
        cut = torch.zeros(len(self.cost), dtype=torch.bool, device="cpu")
        cut[whose[(rank >= _MOST) & (questions.cost < self.cost[whose] * _GAIN)]] = True
        return cut

    def part(self, rows: Tensor) -> "Best":
        """Some rows, with nothing known of them."""
        return Best(self.decider, self.allowed.take(rows), self.granted[rows], rows)

    def learn(self, part: "Best") -> None:
        """Keep what a part has found, where it is cheaper."""
        found = torch.isfinite(part.cost)
        self._note(part.record[found], part.cost[found], part.rows[found], found[found])

    def replace(self, records: Tensor, cost: Tensor, whose: Tensor) -> None:
        """Take flips (P, F) that cost the same but for a hair, of several for a row the first."""
        for index in range(len(whose) - 1, -1, -1):
            self.record[whose[index]], self.cost[whose[index]] = records[index], cost[index]

    def _note(self, records: Tensor, cost: Tensor, whose: Tensor, flipped: Tensor) -> None:
        price = torch.where(flipped, cost, torch.inf)
        low = self.cost.scatter_reduce(0, whose, price, "amin")
        winner = flipped & (price == low[whose]) & (price < self.cost[whose])
        for index in winner.nonzero().squeeze(1).tolist():
            owner = int(whose[index])
            if float(price[index]) < float(self.cost[owner]):
                self.record[owner], self.cost[owner] = records[index], price[index]


def changed(allowed: Set, states: Tensor, owner: Tensor, questions: Questions) -> Tensor:
    """The records (P, F) that questions about states (Q, F) of the rows ``owner`` (Q,) ask for."""
    records = states[questions.state].clone()
    numeric = allowed.layout.numeric
    if len(allowed.moves.vectors):
        value = records[:, numeric] + questions.length.unsqueeze(1) * allowed.moves.vectors[questions.move]
        records[:, numeric] = settled(allowed.take(owner[questions.state]), value)
    switched = (questions.feature >= 0).nonzero().squeeze(1)
    records[switched, questions.feature[switched]] = questions.level[switched]
    return records


def settled(here: Set, value: Tensor) -> Tensor:
    """Numbers (P, N) without what adding up has rounded: whole steps, within their ends, at the start where near it."""
    start = here.start[:, here.layout.numeric]
    step = value.new_tensor([feature.step for feature in here.layout.schema.features])[here.layout.numeric]
    whole = start + torch.round((value - start) / torch.where(step > 0, step, 1.0)) * step
    value = torch.where(step > 0, whole, value)
    value = torch.where((value - start).abs() <= _SMALL * (1 + start.abs()), start, value)
    return torch.minimum(torch.maximum(value, here.low), here.high)


def switches(allowed: Set, states: Tensor, owner: Tensor) -> Questions:
    """Every other category of every open group, from states (Q, F) of the rows ``owner``."""
    groups = allowed.layout.groups
    price, start = prices(allowed), allowed.start[owner]
    before = cost_of(allowed, states, start)
    parts = []
    for column, (number, _, width) in enumerate(groups):
        levels = torch.arange(width, dtype=states.dtype, device="cpu").expand(len(states), -1)
        here = allowed.open_groups[owner, column].unsqueeze(1) & (levels != states[:, number : number + 1])
        q, level = here.nonzero().unbind(1)
        was = (states[q, number] != start[q, number]).double()
        now = (level != start[q, number]).double()
        cost = before[q] + price[number] * (now - was)
        none = torch.zeros_like(q)
        parts.append(Questions(q, none, none.double(), none + number, level.double(), cost, none > 0))
    if not parts:
        empty = torch.zeros(0, dtype=torch.int64, device="cpu")
        return Questions(empty, empty, empty.double(), empty, empty.double(), empty.double(), empty > 0)
    return Questions(*(torch.cat(part) for part in zip(*parts, strict=True)))
