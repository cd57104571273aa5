"""Square: a random search that needs scores alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from signstep.attacks.search.painted import Painted, painted
from signstep.attacks.search.rows import Rows, restarted
from signstep.attacks.search.windows import SCHEDULES, halving_share
from signstep.engine.attack import Needs
from signstep.engine.interrupted import Run
from signstep.engine.keys import Key, RowDraws
from signstep.engine.moves import rose
from signstep.engine.oracles import Oracle
from signstep.engine.outcome import Found
from signstep.engine.passes import Passes, Setting
from signstep.engine.problem import HELD_OUT, Problem, nearness
from signstep.engine.region import Region
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree
from signstep.errors import InputError, VictimError
from signstep.messages import Arg

_BLOCK = 100  # queries whose random numbers are drawn at once, so that drawing costs little for each
_ROUNDING = 16  # units in the last place
_HOPE = 3.0  # a row may gain this many times faster than of late, and is still given up


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
        walk = _Walk(rows, painted(region, clean if begin is None else begin), key)
        try:
            walk.begin(stripes=begin is None)
            while len(rows) and rows.asked < self.queries:
                walk.step(self.window(rows.asked, self.queries, self.p))
                if self.patience and rows.asked % self.patience == 0:
                    walk.give_up(self.patience)
        except VictimError as error:
            rows.ended = str(error)
        return walk.close()


class _Walk:
    """One run over its live rows: the canvas, and the best each row has come to."""

    def __init__(self, rows: Rows, painted: dict[str, Painted], key: Key) -> None:
        self._rows, self._painted, self._key = rows, painted, key
        self._numbers = torch.empty(0, dtype=torch.float32, device="cpu")
        self._loss = torch.empty(0, dtype=torch.float32, device="cpu")
        self._near = self._bar = self._loss
        self._then: tuple[Tensor, Tensor] | None = None
        self._answer: Tensor | None = None

    def begin(self, *, stripes: bool) -> None:
        """The first query: the stripes, or the point to go on from."""
        if stripes:
            counts = [canvas.stripes for canvas in self._painted.values()]
            numbers = torch.split(self._draws().uniform("stripes", (sum(counts),)), counts, 1)
            for canvas, own in zip(self._painted.values(), numbers, strict=True):
                canvas.stripe(own)
        score = self._rows.ask(self._point())
        self._loss, self._near, self._answer = score.loss, nearness(score), score.answer
        self._bar = _bar(self._loss)
        self._then = self._loss, self._near
        self._dismiss(score.fooled)

    def step(self, share: float) -> None:
        """One query: repaint a window in each row, ask, and keep what is better."""
        numbers = self._next()
        for canvas, own in zip(self._painted.values(), numbers, strict=True):
            canvas.propose(own, share)
        try:
            score = self._rows.ask(self._point())
        except VictimError:
            for canvas in self._painted.values():
                canvas.settle(torch.zeros_like(self._loss, dtype=torch.bool))
            raise
        keep = (score.loss > self._bar) | score.fooled
        for canvas in self._painted.values():
            canvas.settle(keep)
        if bool(keep.any()):
            self._improve(keep, score)
        if self._rows.problem.random or bool(score.fooled.any()):
            self._dismiss(score.fooled)

    def _improve(self, keep: Tensor, score: Score) -> None:
        """Note what the model said in the rows ``keep`` (R,) bool."""
        assert self._answer is not None
        self._loss = torch.where(keep, score.loss, self._loss)
        self._bar = _bar(self._loss)
        self._near = torch.where(keep, nearness(score), self._near)
        self._answer = torch.where(keep.reshape(-1, *([1] * (score.answer.ndim - 1))), score.answer, self._answer)

    def give_up(self, patience: int) -> None:
        """Rows whose margin cannot reach zero in time, going by its last ``patience`` queries, leave.

        A task whose margin does not move with its loss (a custom one) gives up when the loss stands still.
        """
        assert self._then is not None
        loss, near = self._then
        gained = self._near - near
        reach = self._near + gained * (_HOPE * (self._rows.queries - self._rows.asked) / patience)
        self._then = self._loss, self._near
        gone = (reach < 0) & ~((gained == 0) & rose(self._loss, loss))
        self._part(gone, torch.zeros_like(gone))

    def close(self) -> tuple[Run, Tensor]:
        """The end: the best points of the rows that are left."""
        standing = torch.zeros(len(self._rows), dtype=torch.bool, device=self._rows.live.device)
        return self._rows.close(self._point(), standing, self._answer)

    def _dismiss(self, fooled: Tensor) -> None:
        """Let rows leave that have fooled the model, and of a random one those that cannot pay for more."""
        sure = self._rows.sure(self._point(), fooled)
        self._part(sure | self._rows.broke if self._rows.problem.random else sure, sure)

    def _part(self, gone: Tensor, fooled: Tensor) -> None:
        if not bool(gone.any()):
            return
        assert self._answer is not None
        assert self._then is not None
        stay = self._rows.leave(gone, self._point(), fooled, self._answer)
        self._painted = {name: canvas.take(stay) for name, canvas in self._painted.items()}
        self._loss, self._near, self._bar = self._loss[stay], self._near[stay], self._bar[stay]
        self._then = self._then[0][stay], self._then[1][stay]
        self._answer = self._answer[stay]
        self._numbers = self._numbers[stay] if len(self._numbers) else self._numbers

    def _point(self) -> Tree:
        points = {name: canvas.point for name, canvas in self._painted.items()}
        alone = points.get("")
        return points if alone is None else alone

    def _next(self) -> tuple[Tensor, ...]:
        """The numbers of this query for each canvas, from a block that was drawn ahead for each row."""
        counts = [canvas.numbers for canvas in self._painted.values()]
        place = (self._rows.asked - 1) % _BLOCK
        if place == 0:
            block = (self._rows.asked - 1) // _BLOCK
            self._numbers = self._draws().uniform(f"block {block}", (_BLOCK, sum(counts)))
        return torch.split(self._numbers[:, place], counts, 1)

    def _draws(self) -> RowDraws:
        problem = self._rows.problem
        return self._key.draws(problem.ids, problem.ids.device)


def _bar(loss: Tensor) -> Tensor:
    """What a loss (R,) must exceed to be a better one: more than rounding, which differs from batch to batch.

    Anything is better than NaN, any number than minus infinity.
    """
    above = loss + _ROUNDING * torch.finfo(loss.dtype).eps * loss.abs()
    return torch.where(torch.isfinite(loss) | torch.isposinf(loss), above, -torch.inf)


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
