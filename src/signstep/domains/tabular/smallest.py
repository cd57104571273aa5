"""The cheapest change that flips a decision, under the schema's costs.

1. A beam search over elementary moves (`beam`), led by gradients where there are any, else by asking.
2. Every feature alone, and every other elementary move: all values that are cheaper than what is known (`lines`).
3. Pairs of the moves that bring the answer nearest to flipping, and exchanges within the flip, until none is cheaper
   (`refine`).
4. Where every feature is discrete and few records are cheaper than the flip: all of them (`combined`).

What is returned did flip. That nothing cheaper exists is claimed only where all of it was asked for, or could be read
from the model (`turns`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from signstep.domains.tabular.beam import Beam, Effort
from signstep.domains.tabular.breakpoints import Turns, turns_of
from signstep.domains.tabular.combined import ask_all
from signstep.domains.tabular.decide import Decider
from signstep.domains.tabular.directions import Moves
from signstep.domains.tabular.incumbents import Best
from signstep.domains.tabular.random_walks import wander
from signstep.domains.tabular.reach import Set
from signstep.domains.tabular.refine import alone, descend, in_pairs, refine, tidy
from signstep.errors import VictimError

_ROWS = 64
_MORE = 16  # times as many walks where no flip is known
_LINES = 2**14  # elementary moves of all rows that are searched at once


@dataclass(frozen=True, eq=False)
class Cheapest:
    """What was found for R records.

    Attributes:
        records: (R, F) the cheapest record found that flips the decision; the record itself where none was found.
        cost: (R,) what it costs; inf where none was found.
        granted: (R,) bool: the decision before.
        alone: (R,) bool: no change of one feature alone is cheaper; every value of each was looked at.
        whole: (R,) bool: no allowed change at all is cheaper; every one was looked at.
        forwards: rows that the model was asked for.
        backwards: rows whose gradient was taken.
        ended: why the search ended before it was done, such as a victim that answers no more; None if it was done.
            Records that it had not come to stand as they were, not found.
    """

    records: Tensor
    cost: Tensor
    granted: Tensor
    alone: Tensor
    whole: Tensor
    forwards: int
    backwards: int
    ended: str | None = None

    @property
    def found(self) -> Tensor:
        """Where a flip was found (R,) bool."""
        return torch.isfinite(self.cost)


def cheapest_flips(decider: Decider, moves: Moves, decoded: Tensor, effort: Effort | None = None) -> Cheapest:
    """The cheapest flips found for decoded records (R, F).

    Bounds, steps, directions, immutable features and relations hold; budgets and the limit on changes, which belong to
    the audit, do not. What is found for a record does not depend on the others.
    """
    effort = effort or Effort()
    forwards, backwards = decider.forwards, decider.backwards
    wide = 2 * len(moves.vectors) + decider.layout.width
    parts, ended = [], None
    for part in torch.split(decoded, max(1, min(_ROWS, _LINES // max(1, wide)))):
        search = _Search(decider, moves, part)
        if ended is None and len(part):
            try:
                search.run(effort)
            except VictimError as error:
                ended = str(error)
        parts.append(search)

    def joined(pick: Callable[[_Search], Tensor]) -> Tensor:
        return torch.cat([pick(part) for part in parts])

    return Cheapest(
        records=joined(lambda part: part.best.record),
        cost=joined(lambda part: part.best.cost),
        granted=joined(lambda part: part.best.granted),
        alone=joined(lambda part: part.alone),
        whole=joined(lambda part: part.whole),
        forwards=decider.forwards - forwards,
        backwards=decider.backwards - backwards,
        ended=ended,
    )


class _Search:
    """The search for some records; what it has found stays when it ends early."""

    def __init__(self, decider: Decider, moves: Moves, decoded: Tensor) -> None:
        nothing = torch.zeros(len(decoded), dtype=torch.bool, device="cpu")
        self.decider = decider
        self.best = Best(decider, Set.around(decider.layout, moves, decoded, None), nothing.clone())
        self.alone, self.whole = nothing.clone(), nothing.clone()

    def run(self, effort: Effort) -> None:
        best, decoded = self.best, self.best.allowed.start
        lead, granted = self.decider(decoded)
        best.granted.copy_(granted)
        turns = turns_of(self.decider, decoded, lead, granted)
        gap = lead.abs()
        self._beam(torch.arange(len(gap), dtype=torch.int64, device="cpu"), gap, effort)
        lost = torch.isinf(best.cost).nonzero().squeeze(1)
        if effort.gradients and len(lost):  # a gradient that is zero, or points the wrong way, ranks nothing
            self._beam(lost, gap, replace(effort, gradients=False))
        searched = alone(best, turns, effort)
        chosen = in_pairs(best, gap, turns, effort)
        self._wander(turns, effort)
        refine(best, chosen, turns, effort)
        tidy(best)
        self.alone = searched
        self.whole = ask_all(best, effort.combinations)
        self.alone = self.alone | self.whole

    def _beam(self, rows: Tensor, gap: Tensor, effort: Effort) -> None:
        """The beam search for some rows, apart from the others."""
        part = self.best.part(rows)
        try:
            Beam(part).search(
                part.allowed.start, gap[rows], torch.arange(len(rows), dtype=torch.int64, device="cpu"), effort
            )
        finally:
            self.best.learn(part)

    def _wander(self, turns: Turns | None, effort: Effort) -> None:
        """Walks end in other flips, each of which is made cheaper by itself.

        Where nothing was found there are more of them, and the beam search begins again from where they came nearest.
        """
        best = self.best
        lost = torch.isinf(best.cost)
        for rows, walks in ((~lost, effort.walks), (lost, _MORE * effort.walks)):
            index = rows.nonzero().squeeze(1)
            if len(index) == 0 or walks == 0:
                continue
            came = wander(best, index, walks, effort.starts)
            try:
                descend(came.flips, turns)
            finally:
                best.learn(came.flips)
            still = torch.isinf(best.cost[came.owner])
            if bool(still.any()):
                Beam(best).expanded(came.nearest[still], came.gap[still], came.owner[still], effort)
