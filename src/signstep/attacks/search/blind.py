"""Blind search: uniform points of the ball, the control that every query attack must beat."""

from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.attacks.search.rows import Rows, restarted
from signstep.engine.attack import Needs
from signstep.engine.interrupted import Run
from signstep.engine.keys import Key
from signstep.engine.oracles import Oracle
from signstep.engine.outcome import Found
from signstep.engine.passes import Passes, Setting
from signstep.engine.problem import HELD_OUT, Problem
from signstep.engine.region import Region
from signstep.engine.tree import Tree, leaves, take
from signstep.errors import InputError, VictimError
from signstep.messages import Arg


@dataclass(frozen=True)
class Blind:
    """Points drawn uniformly from the ball, until one fools: u_t = x + uniform(ball), t = 1 .. queries.

    A control: what an attacker finds who guesses as often as another attack asks. For random corners instead of
    points, ``random-sign:restarts=``. Nothing is learnt from the answers, so labels are enough.

    Attributes:
        queries: points for each row; the verdict comes on top.
    """

    queries: int = 1000
    name: str = "random-direction"
    steps: int = 0
    draws: bool = True
    from_clean: bool = False
    needs: Needs = "labels"

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise InputError(Arg("queries", self.queries), remedy="pass at least 1", where="random-direction")

    def passes(self, setting: Setting) -> Passes:
        """What the plan lets one example spend: the budget and the verdict."""
        verdict = HELD_OUT if setting.random else 1
        return Passes(1 + verdict, self.queries + verdict, self.queries + verdict, 0, 0)

    def __call__(
        self,
        problem: Problem,
        region: Region,
        clean: Tree,
        key: Key,
        begin: Tree | None = None,  # noqa: ARG002
    ) -> Found:
        """Attack every row; the point of a row that is not fooled is the last one drawn."""
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
        rows, point = Rows(problem, region, clean, key, self.queries), clean
        answer: Tensor | None = None
        try:
            while len(rows) and rows.asked < self.queries:
                draws = key.fold("point", rows.asked).draws(rows.problem.ids, leaves(clean)[0].device)
                drawn = rows.region.land(rows.region.sample(draws))
                score = rows.ask(drawn)
                point, answer = drawn, score.answer
                sure = rows.sure(point, score.fooled)
                gone = sure | rows.broke if problem.random else sure
                if bool(gone.any()):
                    stay = rows.leave(gone, point, sure, answer)
                    point, answer = take(point, stay), answer[stay]
        except VictimError as error:
            rows.ended = str(error)
        if answer is None:
            point = take(clean, rows.live)
        return rows.close(point, torch.zeros_like(rows.live, dtype=torch.bool), answer)


def random_direction(*, queries: int = 1000, oracle: Oracle | None = None) -> Blind:  # noqa: ARG001
    """Uniform points of the ball, one for each query: the control."""
    return Blind(queries)
