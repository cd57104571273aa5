"""Square: a random search that needs scores alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from signstep.attacks.search.painted import painted
from signstep.attacks.search.rows import Rows, restarted
from signstep.attacks.search.walk import Walk
from signstep.attacks.search.windows import SCHEDULES, halving_share
from signstep.engine.attack import Needs
from signstep.engine.interrupted import Run
from signstep.engine.keys import Key
from signstep.engine.oracles import Oracle
from signstep.engine.outcome import Found
from signstep.engine.passes import Passes, Setting
from signstep.engine.problem import HELD_OUT, Problem
from signstep.engine.region import Region
from signstep.engine.tree import Tree
from signstep.errors import InputError, VictimError
from signstep.messages import Arg

_BLOCK = 100  # queries whose random numbers are drawn at once, so that drawing costs little for each


@dataclass(frozen=True)
class Square:
    """Change a window to the ends of what is allowed; keep the change where the margin shrinks.

        u' = u with a random window repainted;  u <- u' if loss(u') > loss(u)

    Source: Andriushchenko et al. 2020 (arXiv:1912.00049), algorithms 1 to 3. Differs: the loss is the margin for
    targeted goals too; a window that would change nothing is turned to the opposite signs instead of asked in vain;
    windows of inputs that are no images lie along the last axis.

    Attributes:
        queries: forward passes of a row and restart; the verdict comes on top.
        p: share of the positions that the first windows cover.
        restarts: independent runs; each goes on with the rows that are still standing.
        start: "stripes", or "best": the best point that other attacks came to (stripes where there is none).
        patience: a row gives up when its margin, gaining three times as fast as over its last ``patience`` queries,
            would not reach zero within its budget; 0 never gives up.
        window: (query, queries, p) -> share of the positions that a window covers.
    """

    queries: int = 5000
    p: float = 0.8
    restarts: int = 1
    start: Literal["stripes", "best"] = "stripes"
    patience: int = 0
    window: Callable[[int, int, float], float] = halving_share
    name: str = "square"
    steps: int = 0
    draws: bool = True
    from_clean: bool = False
    needs: Needs = "scores"

    def __post_init__(self) -> None:
        if self.queries < 1 or self.restarts < 1 or self.patience < 0:
            raise InputError(
                Arg("queries", self.queries),
                Arg("restarts", self.restarts),
                Arg("patience", self.patience),
                remedy="pass at least 1 query and 1 restart, and patience 0 or more",
                where="square",
            )
        if not 0 < self.p <= 1:
            raise InputError(
                Arg("p", self.p),
                remedy="pass the share that the first windows cover, above 0, at most 1",
                where="square",
            )
        if self.start not in ("stripes", "best"):
            raise InputError(Arg("start", self.start), remedy="pass 'stripes' or 'best'", where="square")

    def passes(self, setting: Setting) -> Passes:
        """What the plan lets one example spend: the budget, or what it had spent when it gave up."""
        verdict = HELD_OUT if setting.random else 1
        least = min(self.patience or self.queries, self.queries)
        return Passes(1 + verdict, self.restarts * (least + verdict), self.restarts * (self.queries + verdict), 0, 0)

    def __call__(self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None = None) -> Found:
        """Attack every row; ``begin`` is where start="best" goes on."""
        known = begin if self.start == "best" else None
        return restarted(problem, region, clean, key, known, self.restarts, self._search)

    @torch.no_grad()
    def _search(
        self, problem: Problem, region: Region, clean: Tree, key: Key, begin: Tree | None
    ) -> tuple[Run, Tensor]:
        rows = Rows(problem.with_loss("margin"), region, clean, key, self.queries)
        walk = Walk(rows, painted(region, clean if begin is None else begin), key, _BLOCK)
        try:
            walk.begin(stripes=begin is None)
            while len(rows) and rows.asked < self.queries:
                walk.step(self.window(rows.asked, self.queries, self.p))
                if self.patience and rows.asked % self.patience == 0:
                    walk.give_up(self.patience)
        except VictimError as error:
            rows.ended = str(error)
        return walk.close()


def square(
    *,
    queries: int = 5000,
    p: float = 0.8,
    restarts: int = 1,
    start: Literal["stripes", "best"] = "stripes",
    patience: int = 0,
    schedule: str = "halving",
    oracle: Oracle | None = None,  # noqa: ARG001
) -> Square:
    """Random windows at the corners of the ball, kept where the margin shrinks (Andriushchenko et al. 2020).

    It asks the attacked model itself, also where other attacks take their gradients from a surrogate. ``schedule``:
    "halving" as in the paper, or "constant" for windows of the share ``p`` throughout.
    """
    if schedule not in SCHEDULES:
        raise InputError(Arg("schedule", schedule), remedy=f"pass one of {', '.join(SCHEDULES)}", where="square")
    return Square(queries, p, restarts, start, patience, SCHEDULES[schedule])
