"""Random search on a canvas: change something small in every row, ask, and keep what is better."""

import torch
from torch import Tensor

from signstep.attacks.search.painted import Painted
from signstep.attacks.search.rows import Rows
from signstep.engine.interrupted import Run
from signstep.engine.keys import Key, RowDraws
from signstep.engine.moves import rose
from signstep.engine.problem import nearness
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree
from signstep.errors import VictimError

_ROUNDING = 16  # units in the last place
_HOPE = 3.0  # a row may gain this many times faster than of late, and is still given up


class Walk:
    """One run over its live rows: the canvas, and the best each row has come to."""

    def __init__(self, rows: Rows, painted: dict[str, Painted], key: Key, block: int) -> None:
        self._rows, self._painted, self._key, self._block = rows, painted, key, block
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
        place = (self._rows.asked - 1) % self._block
        if place == 0:
            block = (self._rows.asked - 1) // self._block
            self._numbers = self._draws().uniform(f"block {block}", (self._block, sum(counts)))
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
