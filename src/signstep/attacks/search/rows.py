"""The rows of one run of a query attack: who is still searching, what the model said, and what it has cost."""

from collections.abc import Callable

import torch
from torch import Tensor

from signstep.engine.interrupted import Run, found, settle
from signstep.engine.keys import Key
from signstep.engine.ledger import Ledger
from signstep.engine.outcome import Found
from signstep.engine.problem import LOOKS, Problem, confirm
from signstep.engine.region import Region
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree, put, take, tree_map

Search = Callable[[Problem, Region, Tree, Key, Tree | None], tuple[Run, Tensor]]


class Rows:
    """The rows that are still searching, by position among all rows of the run.

    Every row has the same budget of ``queries`` forward passes; the verdict comes on top. Rows ask in step, so the
    number of queries asked is one number; only a random model's second looks at a success differ from row to row.
    """

    def __init__(self, problem: Problem, region: Region, point: Tree, key: Key, queries: int) -> None:
        self.problem, self.region, self.key, self.queries = problem, region, key, queries
        self.asked = 0
        self.live = torch.arange(len(problem.ids), device=problem.ids.device, dtype=torch.int64)
        self.ended: str | None = None
        self._point = tree_map(torch.clone, point)
        self._fooled = torch.zeros_like(problem.ids, dtype=torch.bool)
        self._answer: Tensor | None = None
        self._looked = torch.zeros_like(problem.ids)  # second looks of all rows
        self._spent = torch.zeros_like(problem.ids)  # queries of the rows that have left

    def __len__(self) -> int:
        return len(self.live)

    @torch.no_grad()
    def ask(self, point: Tree) -> Score:
        """The score of the live rows; one query of each."""
        score = self.problem(point, self.key.fold("query", self.asked))
        self.asked += 1
        return score

    @torch.no_grad()
    def sure(self, point: Tree, fooled: Tensor) -> Tensor:
        """Which of the rows that look fooled may leave; a random model is asked again, within the budget."""
        if not self.problem.random:
            return fooled
        looked = self._looked[self.live]
        may = fooled & (self.asked + looked + LOOKS <= self.queries)
        seen = confirm(self.problem, point, self.key.fold("query", self.asked, "sure"), may)
        self._looked[self.live] = looked + seen.passes * may
        return seen.fooled

    @property
    def broke(self) -> Tensor:
        """The live rows (R,) bool that cannot pay for another query."""
        return self.asked + self._looked[self.live] >= self.queries

    def leave(self, gone: Tensor, point: Tree, fooled: Tensor, answer: Tensor) -> Tensor:
        """Let rows ``gone`` (bool) go with their points; returns the positions of those that stay.

        Args:
            gone: which live rows leave.
            point: the point of every live row.
            fooled: whether the model failed there.
            answer: what it said there.
        """
        self._keep(gone.nonzero().squeeze(1), point, fooled, answer)
        stay = (~gone).nonzero().squeeze(1)
        self._spent[self.live[gone]] = self.asked
        self.live = self.live[stay]
        if len(stay):
            self.problem, self.region = self.problem.take(stay), self.region.take(stay)
        return stay

    def _keep(self, index: Tensor, point: Tree, fooled: Tensor, answer: Tensor) -> None:
        owners = self.live[index]
        put(self._point, owners, take(point, index))
        self._fooled[owners] = fooled[index]
        if self._answer is None:
            self._answer = answer.new_full((len(self._fooled), *answer.shape[1:]), _UNKNOWN[answer.is_floating_point()])
        self._answer[owners] = answer[index]

    def close(self, point: Tree, fooled: Tensor, answer: Tensor | None) -> tuple[Run, Tensor]:
        """The end of the run: the rows that are still live leave with these points; and what each row has spent."""
        everyone = torch.arange(len(self.live), device=self.live.device, dtype=torch.int64)
        if answer is not None:
            self._keep(everyone, point, fooled, answer)
        elif len(self.live):
            put(self._point, self.live, point)
        self._spent[self.live] = self.asked
        return Run(self._point, self._fooled, self._answer, self.ended), self._spent + self._looked


_UNKNOWN = {False: -1, True: torch.nan}


def restarted(
    problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None, restarts: int, search: Search
) -> Found:
    """Run a search several times, each time for the rows that still stand; the best point of each row counts.

    When the victim stops answering, what was found by then is returned (`settle`).
    """
    ledger = Ledger(problem.ids)
    ended = None
    for restart in range(restarts):
        index = ledger.standing()
        if len(index) == 0 or ended is not None:
            break
        everyone = len(index) == len(problem.ids)
        folded = key.fold("restart", restart)
        asked = problem if everyone else problem.take(index)
        run, spent = search(
            asked,
            region if everyone else region.take(index),
            clean if everyone else take(clean, index),
            folded,
            begin if begin is None or everyone else take(begin, index),
        )
        ledger.forwards.index_add_(0, index, spent)
        ended = settle(ledger, asked, index, run, folded)
    return found(ledger, region, ended)
