"""Coordinate search: an attack on tables that asks for scores alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.attacks.recipe import SCORES, Recipe
from signstep.attacks.search.rows import Rows, restarted
from signstep.domains.tabular.reach import Set
from signstep.domains.tabular.region import TabularRegion
from signstep.engine.attack import Needs
from signstep.engine.interrupted import Run
from signstep.engine.keys import Key
from signstep.engine.outcome import Found
from signstep.engine.passes import Passes, Setting
from signstep.engine.problem import HELD_OUT, Problem
from signstep.engine.region import Region
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree
from signstep.errors import InputError, ThreatError, VictimError
from signstep.messages import Arg

_SHARES = (1.0, 0.5, 0.2, 0.05, 0.0)  # of the longest move; 0 is one unit, or a hundredth
_BLOCK = 64


@dataclass(frozen=True)
class CoordinateSearch:
    """One elementary move at a time, kept where the margin shrinks.

    1. From the record, every move is asked for at its full length: each number up and down, each category, and the
       moves that keep relations.
    2. Those moves are tried one after the other from the best point, the most promising first.
    3. The remaining queries go to random moves of random length; points that are as good are moved to as well, since
       the scores of trees are flat.

    Attributes:
        queries: forward passes for each row; the verdict comes on top.
    """

    queries: int = 500
    name: str = "coordinate-search"
    steps: int = 0
    draws: bool = True
    from_clean: bool = False
    needs: Needs = "scores"

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise InputError(Arg("queries", self.queries), remedy="pass at least 1", where="coordinate-search")

    def passes(self, setting: Setting) -> Passes:
        """What the plan lets one example spend; where no move is left it ends before its budget does."""
        verdict = HELD_OUT if setting.random else 1
        return Passes(1 + verdict, 1 + verdict, self.queries + verdict, 0, 0)

    def __call__(
        self,
        problem: Problem,
        region: Region,
        clean: Tree,
        key: Key,
        begin: Tree | None = None,  # noqa: ARG002
    ) -> Found:
        """Attack every row.

        Raises:
            ThreatError: the region is not that of a table.
        """
        if not isinstance(region, TabularRegion):
            raise ThreatError(
                "coordinate-search moves in tables", remedy="pass a TabularThreat, or the recipe square elsewhere"
            )
        return restarted(problem, region, clean, key, None, 1, self._search)

    @torch.no_grad()
    def _search(
        self,
        problem: Problem,
        region: Region,
        clean: Tree,
        key: Key,
        begin: Tree | None,  # noqa: ARG002
    ) -> tuple[Run, Tensor]:
        assert isinstance(region, TabularRegion)
        rows = Rows(problem.with_loss("margin"), region, clean, key, self.queries)
        walk = _Walk(rows, region, key)
        try:
            walk.begin()
            while len(rows) and rows.asked < self.queries:
                walk.step()
        except VictimError as error:
            rows.ended = str(error)
        return walk.close()


class _Walk:
    """One run: the best record of each live row, and what each move was worth on its own."""

    def __init__(self, rows: Rows, region: TabularRegion, key: Key) -> None:
        self._rows, self._key, self._layout = rows, key, region.layout
        self._allowed = region.reachable()
        self._record = self._allowed.start.clone()
        whole = _candidates(
            self._allowed, self._record, torch.ones(len(self._record), dtype=torch.float64, device="cpu")
        )
        valid = (whole != self._record.unsqueeze(1)).any(2)
        self._first = whole
        self._order = (~valid).long().argsort(dim=1, stable=True)
        self._count = valid.sum(1)
        self._worth = torch.full(valid.shape, -torch.inf, dtype=torch.float64, device="cpu")
        self._loss = torch.zeros(len(self._record), dtype=torch.float32, device="cpu")
        self._numbers = torch.empty(0, dtype=torch.float32, device="cpu")
        self._answer: Tensor | None = None

    def begin(self) -> None:
        """The first query: the record itself."""
        score = self._rows.ask(self._layout.widen(self._record))
        self._loss, self._answer = score.loss.double(), score.answer
        self._dismiss(score)

    def step(self) -> None:
        """One query: each row asks for its next move."""
        query = self._rows.asked - 1
        row = torch.arange(len(self._record), dtype=torch.int64, device="cpu")
        count = self._count.clamp_min(1)
        sweeping = query < self._count
        ranking = (query >= self._count) & (query < 2 * self._count)
        numbers = self._next()
        drawn = self._order[row, (numbers[:, 0] * count).long().clamp_max(self._order.shape[1] - 1)]
        ranked = self._worth.argsort(dim=1, descending=True, stable=True)[row, (query - self._count) % count]
        swept = self._order[row, query % count]
        move = torch.where(sweeping, swept, torch.where(ranking, ranked, drawn))
        chosen = torch.tensor(_SHARES, dtype=torch.float64, device="cpu")[(numbers[:, 1] * len(_SHARES)).long()]
        share = torch.where(sweeping | ranking, 1.0, chosen)
        tried = _candidates(self._allowed, self._record, share)[row, move]
        if self._allowed.changes:
            over = self._allowed.changed(tried) > self._allowed.changes
            tried = torch.where(over.unsqueeze(1), self._first[row, move], tried)
        tried = torch.where(sweeping.unsqueeze(1), self._first[row, move], tried)
        if self._allowed.changes:
            over = self._allowed.changed(tried) > self._allowed.changes
            tried = torch.where(over.unsqueeze(1), self._record, tried)
        score = self._rows.ask(self._layout.widen(tried))
        loss = score.loss.double()
        self._worth[row[sweeping], move[sweeping]] = loss[sweeping]
        better = torch.where(ranking | sweeping, loss > self._loss, loss >= self._loss)
        # A single move that is better than the best point replaces it; otherwise the sweep only learns.
        keep = score.fooled | better
        self._record = torch.where(keep.unsqueeze(1), tried, self._record)
        self._loss = torch.where(keep, loss, self._loss)
        assert self._answer is not None
        self._answer = torch.where(keep, score.answer, self._answer)
        self._dismiss(score)

    def close(self) -> tuple[Run, Tensor]:
        """The end: the best points of the rows that are left."""
        standing = torch.zeros(len(self._rows), dtype=torch.bool, device="cpu")
        return self._rows.close(self._layout.widen(self._record), standing, self._answer)

    def _dismiss(self, score: Score) -> None:
        """Rows leave that have fooled the model, and of a random one those that cannot pay for more.

        The untouched record is never called a success: a row that is wrong to begin with goes on for one query.
        """
        point = self._layout.widen(self._record)
        fooled = score.fooled & (self._record != self._allowed.start).any(1)
        sure = self._rows.sure(point, fooled)
        gone = sure | self._rows.broke if self._rows.problem.random else sure
        if not bool(gone.any()):
            return
        assert self._answer is not None
        stay = self._rows.leave(gone, point, sure, self._answer)
        self._allowed = self._allowed.take(stay)
        for name in ("_record", "_first", "_order", "_count", "_worth", "_loss", "_answer"):
            setattr(self, name, getattr(self, name)[stay])
        self._numbers = self._numbers[stay] if len(self._numbers) else self._numbers

    def _next(self) -> Tensor:
        """Two random numbers (R, 2) for this query, from a block drawn ahead for each row."""
        place = (self._rows.asked - 1) % _BLOCK
        if place == 0 or len(self._numbers) == 0:
            problem = self._rows.problem
            draws = self._key.fold("block", (self._rows.asked - 1) // _BLOCK).draws(problem.ids, problem.ids.device)
            self._numbers = draws.uniform("moves", (_BLOCK, 2)).double()
        return self._numbers[:, place]


def _candidates(allowed: Set, here: Tensor, share: Tensor) -> Tensor:
    """The records (R, C, F) that each move leads to, at the given share (R,) of its longest; C is the same for all."""
    layout, vectors, units = allowed.layout, allowed.moves.vectors, allowed.moves.units
    value = here[:, layout.numeric]
    found = []
    for sign in (1.0, -1.0):
        longest = allowed.lengths(value, sign)
        length = longest * torch.where(share > 0, share, 0.01).unsqueeze(1)
        safe = torch.where(units > 0, units, 1.0)
        stepped = torch.where((share > 0).unsqueeze(1), torch.ceil(length / safe - 1e-9) * safe, units)
        length = torch.minimum(torch.where(units > 0, stepped, length), longest)
        moved = here.unsqueeze(1).repeat(1, len(vectors), 1)
        moved[:, :, layout.numeric] = value.unsqueeze(1) + sign * length.unsqueeze(2) * vectors
        found.append(moved)
    for column, (number, _, width) in enumerate(layout.groups):
        moved = here.unsqueeze(1).repeat(1, width, 1)
        level = torch.arange(width, dtype=torch.int64, device="cpu").to(here).expand(len(here), -1)
        moved[:, :, number] = torch.where(allowed.open_groups[:, column : column + 1], level, moved[:, :, number])
        found.append(moved)
    return torch.cat(found, 1)


def coordinate_search(*, queries: int = 500) -> CoordinateSearch:
    """See `CoordinateSearch`."""
    return CoordinateSearch(queries)


RECIPES = {
    "coordinate-search": Recipe(
        "coordinate-search",
        coordinate_search,
        "one elementary move of a record at a time, kept where the margin shrinks",
        "Signstep, documented in Tables",
        SCORES,
        "queries + 1 forward",
        needs="scores",
    )
}
"""Attacks of tables alone."""
