"""Tasks: what the outputs mean, what counts as failure, and which loss leads there.

A task reads scores and labels and gives a `Score` for each row; `TASKS` names the built-in ones.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from signstep.engine import losses
from signstep.engine.batch_invariant import softplus
from signstep.engine.defaults import plain_tensor
from signstep.engine.origin import foreign
from signstep.engine.outputs import Outputs
from signstep.errors import InputError, LabelError, ModelError, SignstepWarning
from signstep.messages import Arg, Blank, Part

Goal = Literal["untargeted", "targeted"]


class Score(NamedTuple):
    """How near each row is to failing.

    ``loss`` (R,) is what the attack climbs; ``ways`` (R, K) one distance for each way of failing, at most 0 when the
    row has failed that way, infinite where there is no such way; ``fooled`` (R,) what the model's own answer says,
    never true where it is none (where ``valid`` is false); ``answer`` (R, ...) that answer in the form of a label.
    """

    loss: Tensor
    ways: Tensor
    fooled: Tensor
    valid: Tensor
    answer: Tensor


class Aim(NamedTuple):
    """Rows' labels and where they are led: ``y`` as the task understands it, ``target`` for targeted goals.

    ``way`` (R,) leads an untargeted row towards one class without changing what counts as failure.
    """

    y: Tensor | None
    target: Tensor | None = None
    way: Tensor | None = None

    def take(self, index: Tensor) -> "Aim":
        """The rows at ``index``."""
        return Aim(*(None if part is None else part[index] for part in self))


class Task(Protocol):
    """What the outputs of a model mean."""

    @property
    def name(self) -> str:
        """As written in results."""

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses that can lead an attack; the first is the default."""

    def labels(self, y: Tensor, outputs: Tensor, name: str) -> Tensor:
        """Labels checked against outputs and in the task's own form; ``name`` is the argument to blame."""

    def predict(self, outputs: Outputs) -> Tensor:
        """The model's answer, in the form of a label."""

    def score(self, outputs: Outputs, aim: Aim, loss: str) -> Score:
        """Loss, ways and verdict for each row."""

    def reported(self, loss: Tensor, name: str, goal: Goal) -> Tensor:
        """The searched loss in the units of its name: log-odds become cross-entropy."""


@dataclass(frozen=True)
class Multiclass:
    """One of K classes: scores (R, K), labels (R,) integers from 0; argmax decides, the first index at a tie.

    A logit of minus infinity marks a class that is absent from a row (`engine.losses`).

    Attributes:
        ignore: a label of examples that are to be left out (-100 or 255 in many data sets), or None. Whatever reads
            data leaves them out and counts them.
    """

    name: str = "multiclass"
    losses: tuple[str, ...] = ("ce", "margin", "dlr", "plain-ce")
    ignore: int | None = None

    def __post_init__(self) -> None:
        _check_ignore(self.ignore)

    def labels(self, y: Tensor, outputs: Tensor, name: str) -> Tensor:
        """Integers 0..K-1, shape (R,)."""
        if outputs.ndim != 2:
            raise ModelError(
                f"the model's scores have shape {tuple(outputs.shape)}, classification needs (examples, classes)",
                remedy=(
                    "pass",
                    Arg("output"),
                    "to pick them,",
                    Arg("task", "segmentation"),
                    "for scores at every position, or",
                    Arg("task", "regression"),
                ),
            )
        self._refuse_ignored(y, name)
        return class_indices(y, outputs.shape[0], outputs.shape[1], name)

    def _refuse_ignored(self, y: Tensor, name: str) -> None:
        """A batch that is attacked has an outcome for each of its rows, and these would have none."""
        count = 0 if self.ignore is None else int((y == self.ignore).sum())
        if count:
            raise LabelError(
                Arg(name),
                f"has {count} examples with the label {self.ignore}, which is to be ignored",
                remedy=f"leave them out, x[{name} != {self.ignore}], as audits of whole data do",
            )

    def predict(self, outputs: Outputs) -> Tensor:
        """The class of the largest score."""
        return outputs.raw.argmax(1)

    def logits(self, outputs: Outputs) -> Tensor:
        """Scores whose softmax are the probabilities."""
        if outputs.form != "lost":
            return outputs.scores
        return outputs.scores.clamp_min(torch.finfo(outputs.scores.dtype).tiny).log()

    def score(self, outputs: Outputs, aim: Aim, loss: str) -> Score:
        """Failure is another class than y (untargeted) or the target class (targeted)."""
        z = self.logits(outputs)
        return classification_score(z, self.predict(outputs), aim, loss, self.valid(outputs))

    def valid(self, outputs: Outputs) -> Tensor:
        """True (R,) where the outputs name a class: `classes_valid`."""
        return classes_valid(outputs.raw)

    def reported(self, loss: Tensor, name: str, goal: Goal) -> Tensor:
        """Cross-entropy to y, or minus cross-entropy to the target; other losses as they are."""
        if name != "ce":
            return loss
        return softplus(loss) if goal == "untargeted" else -softplus(-loss)


@dataclass(frozen=True)
class Binary(Multiclass):
    """Two classes from one logit: scores (R,) or (R, 1), labels 0 or 1; exactly the two-logit model (0, z).

    Attributes:
        ignore: see `Multiclass`.
    """

    name: str = "binary"
    losses: tuple[str, ...] = ("ce", "margin", "dlr", "plain-ce")

    def labels(self, y: Tensor, outputs: Tensor, name: str) -> Tensor:
        """0 or 1, shape (R,)."""
        if not (outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1)):
            raise ModelError(
                Arg("task", "binary"),
                f"means one logit for each example, the scores have shape {tuple(outputs.shape)}",
                remedy=("pass", Arg("task", "multiclass"), "or 'multilabel'"),
            )
        self._refuse_ignored(y, name)
        return class_indices(y, outputs.shape[0], 2, name)

    def predict(self, outputs: Outputs) -> Tensor:
        """1 where the logit is above 0, or the probability above 0.5."""
        return (outputs.raw.reshape(-1) > _threshold(outputs)).long()

    def logits(self, outputs: Outputs) -> Tensor:
        """The two logits (0, z)."""
        z = outputs.scores.reshape(len(outputs.scores))
        if outputs.form == "lost":
            z = logit_of(z)
        return torch.stack([torch.zeros_like(z), z], 1)

    def valid(self, outputs: Outputs) -> Tensor:
        """True (R,) where the logit is a number; an infinite one leaves a single class."""
        return rows_valid(outputs.raw)


@dataclass(frozen=True)
class Labels(Multiclass):
    """One of K classes from a model that answers with the class alone: answers (R,), labels (R,) integers from 0.

    Loss and way are +1 or -1 for a row, by whether it is fooled. Scores of a surrogate are read as `Multiclass` does.
    """

    name: str = "multiclass"
    losses: tuple[str, ...] = ("label", "ce", "margin", "dlr", "plain-ce")

    def labels(self, y: Tensor, outputs: Tensor, name: str) -> Tensor:
        """Integers from 0, shape (R,); the model does not tell how many classes there are."""
        known = int(max(plain_tensor(y).max(), outputs.max())) + 1 if len(outputs) == len(y) else 1
        return class_indices(y, len(outputs), known, name)

    def predict(self, outputs: Outputs) -> Tensor:
        """The answer itself."""
        return outputs.raw if outputs.form == "labels" else super().predict(outputs)

    def score(self, outputs: Outputs, aim: Aim, loss: str) -> Score:
        """Failure is another answer than y (untargeted) or the target (targeted)."""
        if outputs.form != "labels":
            return super().score(outputs, aim, "ce" if loss == "label" else loss)
        goal = aim.y if aim.target is None else aim.target
        assert goal is not None
        fooled = (outputs.raw != goal) if aim.target is None else (outputs.raw == goal)
        value = torch.where(fooled, 1.0, -1.0).to(torch.float32)
        return Score(value, -value.unsqueeze(1), fooled, torch.ones_like(fooled), outputs.raw)

    def reported(self, loss: Tensor, name: str, goal: Goal) -> Tensor:  # noqa: ARG002
        """As it is: +1 where fooled, -1 elsewhere."""
        return loss


@dataclass(frozen=True)
class Multilabel:
    """Several yes/no labels: scores (R, L), labels (R, L) of 0 and 1.

    Attributes:
        success: "any" label flipped, "all" labels flipped, or the index of the one label that must flip.
    """

    success: Literal["any", "all"] | int = "any"
    losses: tuple[str, ...] = ("ce", "margin")

    def __post_init__(self) -> None:
        if self.success not in ("any", "all") and not isinstance(self.success, int):
            raise InputError(
                Arg("success", self.success), remedy="pass 'any', 'all' or the index of the one label that must flip"
            )

    @property
    def name(self) -> str:
        """With its success rule."""
        return f"multilabel ({self.success if isinstance(self.success, str) else f'label {self.success}'})"

    def labels(self, y: Tensor, outputs: Tensor, name: str) -> Tensor:
        """0 or 1, the shape of the scores."""
        if y.shape != outputs.shape or outputs.ndim != 2:
            raise LabelError(
                Arg(name, tuple(y.shape), of="shape"),
                f", the model's scores {tuple(outputs.shape)}",
                remedy="pass one 0 or 1 for each score, shape (examples, labels), as multilabel needs",
            )
        if not bool(((y == 0) | (y == 1)).all()):
            raise LabelError(
                Arg(name),
                f"has values other than 0 and 1 (from {float(y.min()):.4g} to {float(y.max()):.4g})",
                remedy="pass 1 for each label that an example has, and 0 for the others",
            )
        if isinstance(self.success, int) and not 0 <= self.success < outputs.shape[1]:
            raise InputError(
                Arg("success", self.success),
                f": the model has labels 0 to {outputs.shape[1] - 1}",
                remedy="pass one of these",
            )
        return y.to(outputs.device).bool()

    def predict(self, outputs: Outputs) -> Tensor:
        """True where the logit is above 0, or the probability above 0.5."""
        return outputs.raw > _threshold(outputs)

    def score(self, outputs: Outputs, aim: Aim, loss: str) -> Score:
        """Failure by the success rule; a targeted row fails when every label is as in the target."""
        z = logit_of(outputs.scores) if outputs.form == "lost" else outputs.scores
        goal = aim.target if aim.target is not None else aim.y
        assert goal is not None
        sign = torch.where(goal, 1.0, -1.0).to(z.dtype)
        right = sign * z  # positive: the label is as in y (or as in the target)
        agrees = self.predict(outputs) == goal
        if aim.target is not None:
            fooled = agrees.all(1)
            ways = -right
            value = -_log_failures(right) if loss == "ce" else right.amin(1)
        elif isinstance(self.success, int):
            fooled, ways = ~agrees[:, self.success], right[:, self.success : self.success + 1]
            value = -right[:, self.success]
        elif self.success == "any":
            fooled, ways = ~agrees.all(1), right
            value = _log_failures(right) if loss == "ce" else -right.amin(1)
        else:
            fooled, ways = (~agrees).all(1), right
            value = -_log_failures(-right) if loss == "ce" else -right.amax(1)
        valid = rows_valid(outputs.raw)
        return Score(value, ways, fooled & valid, valid, self.predict(outputs))

    def reported(self, loss: Tensor, name: str, goal: Goal) -> Tensor:
        """Summed binary cross-entropy where the loss is its logarithm; minus it where it is to be small."""
        if name != "ce":
            return loss
        if isinstance(self.success, int) and goal == "untargeted":
            return softplus(loss)
        return loss.exp() if goal == "untargeted" and self.success == "any" else -(-loss).exp()


@dataclass(frozen=True)
class Segmentation:
    """A class at every position: scores (R, K, ...), labels (R, ...); fails when a share of positions is wrong.

    Attributes:
        share: the share of an example's positions that must be wrong; 0.5 is half of them.
        ignore: a label that marks positions to leave out (255 in many data sets), or None. An example with no other
            positions is left out whole, and counted, by whatever reads data.
    """

    share: float = 0.5
    ignore: int | None = None
    losses: tuple[str, ...] = ("ce", "margin")

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(
                Arg("share", self.share), remedy="pass the share of positions that must be wrong, above 0, at most 1"
            )
        _check_ignore(self.ignore)

    @property
    def name(self) -> str:
        """With its success rule."""
        return f"segmentation (at least {self.share:.0%} of positions wrong)"

    def labels(self, y: Tensor, outputs: Tensor, name: str) -> Tensor:
        """Integers 0..K-1, shape (R, ...)."""
        if outputs.ndim < 3 or y.shape != (outputs.shape[0], *outputs.shape[2:]):
            raise LabelError(
                Arg(name, tuple(y.shape), of="shape"),
                f", the model's scores {tuple(outputs.shape)}",
                remedy="segmentation needs scores (examples, classes, positions...), labels (examples, positions...)",
            )
        counted = y if self.ignore is None else torch.where(y == self.ignore, 0, y)
        class_indices(counted.flatten(), counted.numel(), outputs.shape[1], name, "Segmentation")
        return y.to(outputs.device).long()

    def predict(self, outputs: Outputs) -> Tensor:
        """The class of the largest score at each position."""
        return outputs.raw.argmax(1)

    def score(self, outputs: Outputs, aim: Aim, loss: str) -> Score:
        """Positions that have failed already no longer pull: the loss sums over those that still hold."""
        goal = aim.target if aim.target is not None else aim.y
        assert goal is not None
        scores = outputs.scores
        if outputs.form == "lost":
            scores = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
        rows, classes = scores.shape[:2]
        counted = torch.ones_like(goal, dtype=torch.bool) if self.ignore is None else goal != self.ignore
        k = torch.where(counted, goal, 0)
        flat = scores.movedim(1, -1).reshape(-1, classes)
        step = losses.log_odds if loss == "ce" else losses.margin
        towards = -1.0 if aim.target is not None else 1.0
        nearness = (towards * step(flat, k.reshape(-1))).reshape(rows, -1)
        counted = counted.reshape(rows, -1)
        hit = (self.predict(outputs) != goal).reshape(rows, -1)
        hit = (~hit if aim.target is not None else hit) & counted
        wrong = hit.sum(1) / counted.sum(1).clamp_min(1)
        # Positions that cannot fail, where no other class is present, would hide what the others do.
        pull = torch.where(counted & ~torch.isneginf(nearness), nearness.clamp_max(0), 0)
        value = pull.sum(1) / counted.sum(1).clamp_min(1)
        valid = classes_valid(outputs.raw)
        ways = (self.share - wrong).unsqueeze(1)
        return Score(value, ways, (wrong >= self.share) & valid, valid, self.predict(outputs))

    def reported(self, loss: Tensor, name: str, goal: Goal) -> Tensor:  # noqa: ARG002
        """As searched: the mean over positions of the log-odds (or margin) that still hold, at most 0."""
        return loss


@dataclass(frozen=True)
class Regression:
    """Real values: scores (R, ...), labels of the same shape; fails when an error exceeds the tolerance.

    Attributes:
        tolerance: largest absolute error, in output units, that still counts as right.
    """

    tolerance: float
    losses: tuple[str, ...] = ("mse",)

    @property
    def name(self) -> str:
        """With its tolerance."""
        return f"regression (error beyond {self.tolerance:g})"

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise InputError(
                Arg("tolerance", self.tolerance), remedy="pass the largest error that still counts as right, above 0"
            )

    def labels(self, y: Tensor, outputs: Tensor, name: str) -> Tensor:
        """The shape of the outputs; (R,) and (R, 1) are taken for each other."""
        columns = {(len(outputs),), (len(outputs), 1)}
        if y.shape == outputs.shape or {tuple(y.shape), tuple(outputs.shape)} == columns:
            return y.to(outputs).reshape(outputs.shape)
        raise LabelError(
            Arg(name, tuple(y.shape), of="shape"),
            f", the model's outputs {tuple(outputs.shape)}",
            remedy="pass the same shape, as regression needs",
        )

    def predict(self, outputs: Outputs) -> Tensor:
        """The outputs themselves."""
        return outputs.raw

    def score(self, outputs: Outputs, aim: Aim, loss: str) -> Score:  # noqa: ARG002
        """Untargeted: some error beyond the tolerance; targeted: all within it of the target."""
        goal = aim.target if aim.target is not None else aim.y
        assert goal is not None
        error = (outputs.scores - goal).reshape(len(goal), -1)
        squared = error.square().mean(1)
        valid = rows_valid(outputs.raw)
        if aim.target is not None:
            ways = (error.abs() - self.tolerance).amax(1, keepdim=True)
            return Score(-squared, ways, (ways[:, 0] <= 0) & valid, valid, outputs.raw)
        # Where the label is the model's own answer the error is exactly zero, and so would its gradient be: up and down
        # are as good as each other there, and up is taken. The values are the same.
        ways = self.tolerance - torch.where(error == 0, error, error.abs())
        squared = torch.where((error == 0).all(1), error.mean(1), squared)
        return Score(squared, ways, (ways < 0).any(1) & valid, valid, outputs.raw)

    def reported(self, loss: Tensor, name: str, goal: Goal) -> Tensor:  # noqa: ARG002
        """Mean squared error; minus it for a targeted goal."""
        return loss


@dataclass(frozen=True)
class Custom:
    """Any loss with its own success rule.

    Attributes:
        loss: (outputs, y) -> (R,), to be made large; one value for each example, never averaged over the batch.
        success: (outputs, y) -> (R,) bool, True where the attack has succeeded.
    """

    loss: Callable[[Tensor, Tensor | None], Tensor]
    success: Callable[[Tensor, Tensor | None], Tensor]
    name: str = "custom"
    losses: tuple[str, ...] = ("custom",)

    def labels(self, y: Tensor, outputs: Tensor, name: str) -> Tensor:  # noqa: ARG002
        """As they are, on the outputs' device."""
        return y.to(outputs.device)

    def predict(self, outputs: Outputs) -> Tensor:
        """The outputs themselves."""
        return outputs.raw

    def score(self, outputs: Outputs, aim: Aim, loss: str) -> Score:  # noqa: ARG002
        """Loss and success as given."""
        if aim.target is not None:
            raise InputError(
                Arg("target"),
                "has no meaning for a custom loss",
                remedy="put the target into the loss and its success rule",
            )
        with foreign("loss="):
            value = self.loss(outputs.scores, aim.y)
        with foreign("success="):
            fooled = self.success(outputs.raw, aim.y)
        rows = len(outputs.raw)
        for name, part in (("loss", value), ("success", fooled)):
            if not isinstance(part, Tensor) or part.shape != (rows,):
                got = f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
                raise InputError(
                    f"{name} returned {got}",
                    remedy=(
                        f"return one value for each example, shape ({rows},): use reduction='none' and sum over the "
                        "remaining dimensions, never over the batch"
                    ),
                )
        valid = rows_valid(outputs.raw)
        fooled = fooled.bool() & valid
        return Score(value, torch.where(fooled, -1.0, 1.0).to(torch.float32).unsqueeze(1), fooled, valid, outputs.raw)

    def reported(self, loss: Tensor, name: str, goal: Goal) -> Tensor:  # noqa: ARG002
        """As it is."""
        return loss


@dataclass(frozen=True)
class Objective:
    """One number for each example, to be made large: scores (R,) or (R, 1); reached where it is at least the level.

    Labels (R,) are a level for each example; without labels all have this one.

    Attributes:
        level: what counts as reached, in the units of the model's output; None: nothing does, and an attack climbs to
            its end.
    """

    level: float | None = None
    losses: tuple[str, ...] = ("value",)

    def __post_init__(self) -> None:
        if self.level is not None and math.isnan(self.level):
            raise InputError(Arg("level", self.level), remedy="pass the value that counts as reached, or None")

    @property
    def name(self) -> str:
        """With its level."""
        return "objective" if self.level is None else f"objective (at least {self.level:g})"

    def labels(self, y: Tensor, outputs: Tensor, name: str) -> Tensor:
        """A level for each example, (R,)."""
        self._values(outputs)
        if y.shape not in ((len(outputs),), (len(outputs), 1)):
            raise LabelError(
                Arg(name, tuple(y.shape), of="shape"), remedy=f"pass a level for each example, ({len(outputs)},)"
            )
        return y.to(outputs).reshape(len(outputs))

    def predict(self, outputs: Outputs) -> Tensor:
        """The value itself, (R,)."""
        return self._values(outputs.raw)

    def score(self, outputs: Outputs, aim: Aim, loss: str) -> Score:  # noqa: ARG002
        """The one way to fail is to reach the level."""
        if aim.target is not None:
            raise InputError(
                Arg("target"), "has no meaning for an objective", remedy="put the target into the objective"
            )
        value, raw, valid = self._values(outputs.scores), self._values(outputs.raw), rows_valid(outputs.raw)
        level = self._level(aim.y, value)
        if level is None:
            return Score(value, value.new_zeros(len(value), 0), torch.zeros_like(valid), valid, raw)
        return Score(value, (level - value).unsqueeze(1), (raw >= level) & valid, valid, raw)

    def reported(self, loss: Tensor, name: str, goal: Goal) -> Tensor:  # noqa: ARG002
        """The value itself."""
        return loss

    def _level(self, y: Tensor | None, value: Tensor) -> Tensor | None:
        if y is not None:
            return y
        return None if self.level is None else torch.full_like(value.detach(), self.level)

    @staticmethod
    def _values(outputs: Tensor) -> Tensor:
        if outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1):
            return outputs.reshape(len(outputs))
        raise ModelError(
            f"an objective gives one number for each example, shape (R,), and this one gave {tuple(outputs.shape)}",
            remedy="sum or take the largest over the other dimensions, never over the examples",
        )


def classification_score(z: Tensor, predicted: Tensor, aim: Aim, loss: str, valid: Tensor) -> Score:
    """The score of logits z (R, K): shared by all tasks that choose one of K classes."""
    if aim.target is not None:
        fooled = predicted == aim.target
        # Towards the target: how far each other class still lies above it.
        ways = -losses.margins(z, aim.target).amin(1, keepdim=True)
        value = _targeted(z, aim.y, aim.target, loss)
    else:
        assert aim.y is not None
        fooled = predicted != aim.y
        ways = losses.margins(z, aim.y)
        value = _untargeted(z, aim.y, loss) if aim.way is None else _towards(z, aim.y, aim.way, loss)
    return Score(value, ways, fooled & valid, valid, predicted)


def _untargeted(z: Tensor, y: Tensor, loss: str) -> Tensor:
    if loss == "ce":
        return losses.log_odds(z, y)
    if loss == "plain-ce":
        return losses.plain_ce(z, y)
    if loss == "dlr" and z.shape[1] >= 3:
        return losses.dlr(z, y)
    return losses.margin(z, y)


def _targeted(z: Tensor, y: Tensor | None, target: Tensor, loss: str) -> Tensor:
    if loss == "ce":
        return -losses.log_odds(z, target)
    if loss == "plain-ce":
        return -losses.plain_ce(z, target)
    if loss == "dlr" and z.shape[1] >= 4 and y is not None:
        return losses.dlr_targeted(z, y, target)
    return -losses.margin(z, target)


def _towards(z: Tensor, y: Tensor, way: Tensor, loss: str) -> Tensor:
    if loss == "ce":
        return -losses.log_odds(z, way)
    if loss == "plain-ce":
        return -losses.plain_ce(z, way)
    if loss == "dlr" and z.shape[1] >= 4:
        return losses.dlr_targeted(z, y, way)
    return -losses.margins(z, y).gather(1, way.unsqueeze(1)).squeeze(1)


def check_loss(task: Task, loss: str | None, classes: int | None, goal: Goal, *, labelled: bool) -> str:
    """The name of the loss to search on; DLR needs enough classes and says so when it gives way to the margin.

    Raises:
        InputError: the task has no such loss.
    """
    if loss is None:
        return task.losses[0]
    if loss not in task.losses:
        raise InputError(
            Arg("loss", loss),
            f"is not one of {', '.join(task.losses)} for the task {task.name}",
            remedy="pass one of these",
        )
    needed = 3 if goal == "untargeted" else 4
    if loss == "dlr" and classes is not None and classes < needed:
        warnings.warn(
            SignstepWarning(
                Arg("loss", "dlr"),
                f"needs at least {needed} classes for {goal} attacks, the model has {classes}: the margin loss is used",
            ),
            stacklevel=3,
        )
        return "margin"
    if loss == "dlr" and goal == "targeted" and not labelled:
        warnings.warn(
            SignstepWarning(Arg("loss", "dlr"), "towards a target needs the labels y as well: the margin loss is used"),
            stacklevel=3,
        )
        return "margin"
    return loss


def ignored(task: Task | str) -> int | None:
    """The label that a task ignores."""
    return task.ignore if isinstance(task, (Multiclass, Segmentation)) else None


def _check_ignore(ignore: int | None) -> None:
    if ignore is not None and (not isinstance(ignore, int) or isinstance(ignore, bool)):
        raise InputError(Arg("ignore", ignore), remedy="pass the label to leave out, such as -100 or 255, or None")


# Values that data sets write where there is no label.
_NO_LABELS = (-100, -1, 255)


def class_indices(y: Tensor, rows: int, classes: int | None, name: str, task: str = "Multiclass") -> Tensor:
    """Labels as int64 (R,), checked.

    Args:
        y: as given.
        rows: R.
        classes: how many the model has; None where that is not known.
        name: of the argument.
        task: that could ignore labels.

    Raises:
        LabelError: wrong shape, fractions, or out of range; the message says what would fit.
    """
    if y.ndim == 2 and y.shape == (rows, 1):
        y = y[:, 0]
    if y.ndim == 2 and y.shape == (rows, classes):
        raise LabelError(
            Arg(name, tuple(y.shape), of="shape"),
            ", like the scores: one-hot?",
            remedy=(f"pass {name}.argmax(1), or", Arg("task", "multilabel")),
        )
    if y.shape != (rows,):
        raise LabelError(
            Arg(name, tuple(y.shape), of="shape"),
            f"for {rows} examples",
            remedy=f"pass one class index for each, ({rows},)",
        )
    if y.is_floating_point():
        if not bool((y == y.round()).all()):
            raise LabelError(
                Arg(name),
                f"has fractions such as {float(y[y != y.round()][0]):.4g}; class labels are whole numbers from 0",
                remedy=("pass integers, or", Arg("task", "regression")),
            )
    elif y.is_complex():
        raise LabelError(Arg(name, y.dtype, of="dtype"), remedy="pass integers")
    y = y.long()
    if not len(y):
        return y
    smallest, largest = (int(value) for value in torch.aminmax(y))
    if smallest < 0 or (classes is not None and largest >= classes):
        guess, cure = _hint(y, smallest, largest, classes, name, task)
        known = "classes are numbered from 0"
        if classes is not None:
            known = f"the model has {classes} classes (0 to {classes - 1})"
        text = f"runs from {smallest} to {largest}; {known}{': ' if guess else ''}{guess}"
        raise LabelError(Arg(name), text, remedy=cure if isinstance(cure, str) else ("pass", cure))
    return y


def _hint(y: Tensor, smallest: int, largest: int, classes: int | None, name: str, task: str) -> tuple[str, Part]:
    """A guess at what is behind labels that are no classes, and what to do then."""
    if smallest >= 1 and largest == classes:
        return "are they 1-based?", f"pass {name} - 1"
    if smallest == -1 and largest <= 1 and classes == 2:
        return "the two are 0 and 1, not -1 and 1", f"pass ({name} + 1) // 2"
    outside = [value for value in y.tolist() if value < 0 or (classes is not None and value >= classes)]
    value = outside[0]
    if value in _NO_LABELS and all(other == value for other in outside):
        return (
            f"are the {len(outside)} with {value} to be ignored?",
            Arg("ignore_label", value, python=f"task=signstep.{task}(ignore={value})"),
        )
    return "", "check the order of classes"


def rows_valid(raw: Tensor) -> Tensor:
    """True (R,) where the outputs have no NaN; infinite numbers still have an order."""
    return ~torch.isnan(raw).reshape(len(raw), -1).any(1)


def classes_valid(raw: Tensor) -> Tensor:
    """True (R,) where scores of classes (R, K, ...) name one: no NaN, no plus infinity, and a class that is present.

    Minus infinity marks an absent class; plus infinity is an overflow, behind which there is no order.
    """
    top = raw.amax(1)  # NaN where there is one
    return torch.isfinite(top).reshape(len(raw), -1).all(1)


def _threshold(outputs: Outputs) -> float:
    return 0.0 if outputs.form == "logits" else 0.5


def logit_of(p: Tensor) -> Tensor:
    """log(p / (1 - p)), finite at 0 and 1."""
    tiny = torch.finfo(p.dtype).tiny
    return p.clamp_min(tiny).log() - (1 - p).clamp_min(tiny).log()


def _log_failures(right: Tensor) -> Tensor:
    """log of the summed binary cross-entropy of signed logits ``right`` (R, L): its direction, never saturating."""
    return losses.total(losses.log_softplus(-right))


TaskName = Literal["auto", "multiclass", "binary", "multilabel", "segmentation", "regression"]
TASK_NAMES: tuple[str, ...] = get_args(TaskName)


def task_for(task: Task | str, outputs: Tensor, tolerance: float | None = None) -> Task:
    """The task by name; "auto" takes one column for a one-logit model and several for classes.

    Raises:
        InputError: no such task, or a regression without its tolerance.
    """
    if not outputs.is_floating_point() and (task in ("auto", "multiclass", "binary") or type(task) in _ONE_OF_K):
        return Labels()
    if not isinstance(task, str):
        return task
    if task == "auto":
        one_logit = outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1)
        return Binary() if one_logit else Multiclass()
    if task == "regression":
        if tolerance is None:
            raise InputError(
                Arg("task", "regression"),
                "needs to know which error counts as failure",
                remedy=("pass", Arg("task", Blank("Regression(tolerance)"))),
            )
        return Regression(tolerance)
    if task not in TASKS:
        raise InputError(
            Arg("task", task),
            f"is not one of auto, {', '.join(TASKS)}, regression",
            remedy="pass one of these, or a task object",
        )
    return TASKS[task]


_ONE_OF_K = (Multiclass, Binary)

TASKS: dict[str, Task] = {
    "multiclass": Multiclass(),
    "binary": Binary(),
    "multilabel": Multilabel(),
    "segmentation": Segmentation(),
}
