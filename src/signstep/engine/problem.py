"""The question an attack is asked: for each row, how near is this input to making the model fail?"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from signstep.engine.keys import Key
from signstep.engine.origin import foreign
from signstep.engine.outputs import Asked, Outputs
from signstep.engine.tasks import Aim, Binary, Goal, Labels, Multiclass, Multilabel, Score, Task
from signstep.engine.transform import Transform
from signstep.engine.tree import Tree, leaves, named_map, take, tree_map
from signstep.engine.untouched import reseed
from signstep.errors import ModelError


class Problem(Protocol):
    """What an attack may know. Rows are independent; ``ids`` (R,) say which draws belong to them."""

    @property
    def ids(self) -> Tensor:
        """The id (R,) int64 of each row's owner."""

    @property
    def random(self) -> bool:
        """Whether two calls at the same point may differ: one look then proves nothing."""

    @property
    def warm(self) -> "Warm | None":
        """A differentiable pass at the clean input that was already paid for."""

    def __call__(self, u: Tree, key: Key | None = None) -> Score:
        """The score of every row at u; ``key`` seeds a random model."""

    def take(self, index: Tensor, way: Tensor | None = None, loss: str | None = None) -> "Problem":
        """The problem of the rows at ``index`` (repeats allowed), perhaps led towards a class ``way`` (R,) each."""

    def through(self, render: Callable[[Tree], Tree]) -> "Problem":
        """The same problem asked of render(u): for patches, embeddings, changes of variables."""

    def on(self, predictor: Asked) -> "Problem":
        """The same question asked of another model."""

    def by(self, predictor: Asked) -> "Problem":
        """The same question asked of a copy of the same model, as random as the model itself."""

    def with_loss(self, loss: str | None) -> "Problem":
        """The same question, led by another loss where the task has it; None and unknown ones change nothing."""

    @property
    def classwise(self) -> bool:
        """Whether failing means another class, so that rows can be led towards one with ``take(way=...)``."""

    @property
    def jointly(self) -> bool:
        """Whether a row has failed only when it has failed in every one of its ways, not in any of them."""

    def read(self, outputs: Outputs) -> Score:
        """The score that these outputs mean."""

    def reported(self, loss: Tensor) -> Tensor:
        """The searched loss in the units of its name (log-odds become cross-entropy)."""


class Warm(NamedTuple):
    """The score at the clean input ``x`` with its graph to the leaf ``u``."""

    x: Tree
    u: Tree
    score: Score


@dataclass(frozen=True, eq=False)
class ModelProblem:
    """A model, a task and the rows' labels.

    Attributes:
        predictor: calls the model.
        task: what its outputs mean.
        aim: the rows' labels and targets.
        loss: the name of the task's loss to climb.
        ids: the rows' ids (R,) int64.
        random: whether the model answers differently to the same input.
        frozen: further inputs of a model that takes several, which the attack leaves alone.
        render: from the attacked variable to the model's input.
        warm: a differentiable pass at the clean input that was already paid for.
        shape: of the model's scores, which those of a surrogate must have; None where it is not known.
        transform: what is declared to happen to inputs before the model sees them, drawn anew by each key.
    """

    predictor: Asked
    task: Task
    aim: Aim
    loss: str
    ids: Tensor
    random: bool = False
    frozen: dict[str, Tensor] = field(default_factory=dict)
    render: Callable[[Tree], Tree] | None = None
    warm: Warm | None = None
    shape: torch.Size | None = None
    transform: Transform | None = None

    @property
    def goal(self) -> Goal:
        """Untargeted or targeted."""
        return "untargeted" if self.aim.target is None else "targeted"

    def __call__(self, u: Tree, key: Key | None = None) -> Score:
        """The score of every row at u."""
        if self.random and key is not None:
            reseed(key.integer())
        return self.read(self.ask(u, key))

    def ask(self, u: Tree, key: Key | None = None) -> Outputs:
        """The model's outputs at u, or at what the declared transform makes of it under ``key``."""
        outputs = self.predictor(self.inputs(u, key))
        if self.shape is not None and _columns(outputs.raw.shape) != _columns(self.shape):
            raise ModelError(
                f"a surrogate's scores have shape {tuple(outputs.raw.shape)}, the model's {tuple(self.shape)}",
                remedy="pass a surrogate with the same classes",
            )
        return outputs

    def inputs(self, u: Tree, key: Key | None = None) -> Tree:
        """The model's inputs at u: rendered, transformed where there is a key, with the frozen ones beside."""
        if self.render is not None:
            u = self.render(u)
        if self.transform is not None and key is not None:
            transform, draws = self.transform, key.fold("transform").draws(self.ids, leaves(u)[0].device)
            with foreign("transform="):
                u = tree_map(lambda part: transform(part, draws), u)
        return {**self.frozen, **u} if isinstance(u, dict) else u

    def read(self, outputs: Outputs) -> Score:
        """The score that these outputs mean."""
        return self.task.score(outputs, self.aim, self.loss)

    def take(self, index: Tensor, way: Tensor | None = None, loss: str | None = None) -> "ModelProblem":
        """The problem of the rows at ``index``."""
        aim = self.aim.take(index)
        return replace(
            self,
            aim=aim if way is None else aim._replace(way=way),
            loss=loss or self.loss,
            ids=self.ids[index],
            frozen=named_map(lambda part: part[index], self.frozen),
            warm=None,
        )

    def through(self, render: Callable[[Tree], Tree]) -> "ModelProblem":
        """The same problem asked of render(u)."""
        inner = self.render
        return replace(self, render=render if inner is None else lambda u: inner(render(u)), warm=None)

    def on(self, predictor: Asked) -> "ModelProblem":
        """The same question asked of another model, which is seeded in any case: it may be random where this is not."""
        return replace(self, predictor=predictor, random=True, warm=None)

    def by(self, predictor: Asked) -> "ModelProblem":
        """The same question asked of a copy of the same model."""
        return replace(self, predictor=predictor, warm=None)

    def with_loss(self, loss: str | None) -> "ModelProblem":
        """The same question, led by another loss where the task has it."""
        if loss is None or loss == self.loss or loss not in self.task.losses:
            return self
        if loss == "dlr" and self.shape is not None and _classes(self.shape) < (3 if self.goal == "untargeted" else 4):
            loss = "margin"
        return replace(self, loss=loss, warm=None)

    @property
    def classwise(self) -> bool:
        """Whether rows can be led towards one class: classification, untargeted."""
        several = isinstance(self.task, Multiclass) and not isinstance(self.task, (Binary, Labels))
        return several and self.goal == "untargeted"

    @property
    def jointly(self) -> bool:
        """Several labels that must all come out as wished."""
        return isinstance(self.task, Multilabel) and (self.goal == "targeted" or self.task.success == "all")

    def reported(self, loss: Tensor) -> Tensor:
        """The searched loss in the units of its name."""
        return self.task.reported(loss, self.loss, self.goal)


def _classes(shape: torch.Size) -> int:
    return shape[1] if len(shape) > 1 and shape[1] > 1 else 2


def _columns(shape: torch.Size) -> list[int]:
    return [size for size in shape[1:] if size != 1]


# Looks at a random model: a row leaves a run only when most of LOOKS fresh passes agree that it is fooled (a flip that
# happens in 1 % of passes would otherwise be found in 63 % of rows by looking 100 times); the verdict takes HELD_OUT
# passes that no decision has used.
LOOKS = 8
HELD_OUT = 32


class Verdict(NamedTuple):
    """What the user's own model says at the returned points.

    ``rate`` (R,) is the share of passes that were fooled, ``answer`` (R, ...) the model's answer (of a random model the
    last of several), ``near`` (R,) how near to failing, on a scale that does not depend on the loss: the negative
    margin to the closest way of failing.
    """

    fooled: Tensor
    loss: Tensor
    valid: Tensor
    rate: Tensor
    answer: Tensor
    near: Tensor
    passes: int


class Confirmed(NamedTuple):
    """Which rows may leave (R,) bool, and the forward passes spent on each row that looked fooled."""

    fooled: Tensor
    passes: int


def judge(problem: Problem, point: Tree, key: Key) -> Verdict:
    """Score points on the real model: one pass, or HELD_OUT fresh ones and the majority if it is random."""
    return _look(problem, point, key.fold("verdict"), HELD_OUT if problem.random else 1)


def confirm(problem: Problem, point: Tree, key: Key, fooled: Tensor, *, exact: bool = True) -> Confirmed:
    """Which of the rows that look fooled (R,) bool may leave the run.

    A random model has to agree several times; a copy's opinion (``exact`` False) is put to the model itself.
    """
    if exact and not problem.random:
        return Confirmed(fooled, 0)
    index = fooled.nonzero().squeeze(1)
    passes = LOOKS if problem.random else 1
    if len(index) == 0:
        return Confirmed(fooled, 0)
    sure = _look(problem.take(index), take(point, index), key.fold("looks"), passes).fooled
    return Confirmed(fooled.index_copy(0, index, sure), passes)


@torch.no_grad()
def _look(problem: Problem, point: Tree, key: Key, passes: int) -> Verdict:
    scores = [problem(point, key.fold(number)) for number in range(passes)]
    if passes == 1:
        score = scores[0]
        rate = score.fooled.to(score.loss.dtype)
        return Verdict(score.fooled, score.loss, score.valid, rate, score.answer, nearness(score), 1)
    rate = torch.stack([score.fooled for score in scores]).to(scores[0].loss.dtype).mean(0)
    loss = torch.stack([score.loss for score in scores]).mean(0)
    near = torch.stack([nearness(score) for score in scores]).mean(0)
    valid = torch.stack([score.valid for score in scores]).all(0)
    return Verdict((rate > 0.5) & valid, loss, valid, rate, scores[-1].answer, near, passes)


def nearness(score: Score) -> Tensor:
    """Minus the margin to the closest way of failing (R,); the loss for tasks that name no ways."""
    return -score.ways.amin(1) if score.ways.ndim == 2 and score.ways.shape[1] else score.loss
