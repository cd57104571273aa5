"""Where the gradient comes from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor

from signstep.engine.keys import Key
from signstep.engine.origin import foreign
from signstep.engine.outputs import Asked, no_path
from signstep.engine.problem import Problem
from signstep.engine.region import Region
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree, leaves, tree_map, unit_l1
from signstep.errors import GradientError, ModelError


class Oracle(Protocol):
    """Maps a point to its score and the gradient of the loss there."""

    @property
    def sees_victim(self) -> bool:
        """Whether the score is the attacked model's own, so that a fooled row may leave the run."""

    @property
    def exact(self) -> bool:
        """Whether that score is the verdict itself; if not, a fooled row leaves only when the model confirms."""

    @property
    def warms(self) -> bool:
        """Whether it uses a pass at the clean input that was already paid for."""

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers of its own, and so needs ids."""

    @property
    def gradients(self) -> int:
        """Forward passes for each call, and backward passes unless it is `Asking`."""

    @property
    def looks(self) -> int:
        """Forward passes for each `look`."""

    def at(self, progress: float) -> "Oracle":
        """The oracle for a step ``progress`` (0 to 1) into a run: for oracles that change on the way."""

    def look(self, problem: Problem, point: Tree, key: Key) -> Score:
        """The score alone, without gradient: for searches that only ask."""

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """Score and gradient at ``point``.

        Args:
            problem: the question.
            point: inputs (R, ...).
            key: seeds a random model.
            cotangent: (R, K) weights over the score's ``ways`` to differentiate instead of the loss.
        """


@runtime_checkable
class Asking(Protocol):
    """An oracle that estimates the gradient from forward passes alone, at points around the one it is asked for."""

    def around(self, region: Region) -> Oracle:
        """The same oracle, asking only inside the region's box and mask."""


def within(oracle: Oracle, region: Region) -> Oracle:
    """The oracle as it must be asked in this region."""
    return oracle.around(region) if _asks(oracle) else oracle


def backwards_of(oracle: Oracle) -> int:
    """Backward passes for each call; forward passes are ``oracle.gradients``."""
    return 0 if _asks(oracle) else oracle.gradients


def _asks(oracle: Oracle) -> TypeGuard[Asking]:
    # What isinstance(oracle, Asking) looks up as well, without walking the protocol's members at every step.
    return hasattr(oracle, "around")


@dataclass(frozen=True)
class Autograd:
    """The gradient of the attacked model itself (white box); weight gradients are never computed."""

    sees_victim: bool = True
    exact: bool = True
    warms: bool = True
    draws: bool = False
    gradients: int = 1
    looks: int = 1

    def at(self, progress: float) -> "Oracle":  # noqa: ARG002
        """Always itself."""
        return self

    @torch.no_grad()
    def look(self, problem: Problem, point: Tree, key: Key) -> Score:
        """One forward pass."""
        return problem(point, key)

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """One forward and one backward pass; at the clean input a forward pass already paid for is used.

        Raises:
            GradientError: the output does not depend on the input through differentiable operations.
        """
        if problem.warm is not None and problem.warm.x is point:
            u, score = problem.warm.u, problem.warm.score
        else:
            u = leaf_of(point)
            score = problem(u, key)
        if cotangent is None:
            value = score.loss.sum()
        else:
            value = (torch.where(cotangent != 0, score.ways, 0.0) * cotangent).sum()
        return Score(*(part.detach() for part in score)), gradient_of(value, u)


@dataclass(frozen=True)
class Twin:
    """The gradient of a fast copy of the attacked model; a row leaves only when the model itself confirms."""

    predictor: Asked
    sees_victim: bool = True
    exact: bool = False
    warms: bool = False
    draws: bool = False
    gradients: int = 1
    looks: int = 1

    def at(self, progress: float) -> "Oracle":  # noqa: ARG002
        """Always itself."""
        return self

    @torch.no_grad()
    def look(self, problem: Problem, point: Tree, key: Key) -> Score:
        """One forward pass of the copy."""
        return problem.by(self.predictor)(point, key)

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """One forward and one backward pass of the copy."""
        return Autograd()(problem.by(self.predictor), point, key, cotangent)


@dataclass(frozen=True)
class Surrogates:
    """The mean gradient over other models (transfer attack): the attacked model is only asked for the verdict.

    Each model's gradient is scaled to unit L1 length first, row by row, so that a model with large logits does not
    outvote the others (Liu et al. 2017 average losses; Dong et al. 2018 logits).
    """

    predictors: tuple[Asked, ...]
    sees_victim: bool = False
    exact: bool = False
    warms: bool = False
    draws: bool = False

    @classmethod
    def of(cls, predictors: Sequence[Asked]) -> "Surrogates":
        """From one or several models' predictors."""
        return cls(tuple(predictors))

    @property
    def gradients(self) -> int:
        """One backward pass for each surrogate."""
        return len(self.predictors)

    @property
    def looks(self) -> int:
        """One forward pass for each surrogate."""
        return len(self.predictors)

    def at(self, progress: float) -> "Oracle":  # noqa: ARG002
        """Always itself."""
        return self

    @torch.no_grad()
    def look(self, problem: Problem, point: Tree, key: Key) -> Score:
        """The surrogates' mean score."""
        return mean_score([problem.on(predictor)(point, key) for predictor in self.predictors])

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """The mean score's parts that a move may use, and the mean gradient."""
        oracle = Autograd()
        answers = [oracle(problem.on(predictor), point, key, cotangent) for predictor in self.predictors]
        if len(answers) == 1:
            return answers[0]
        unit = [unit_l1(gradient) for _, gradient in answers]
        score = mean_score([score for score, _ in answers])
        return score, tree_map(lambda *parts: torch.stack(parts).mean(0), *unit)


@dataclass(frozen=True)
class Around:
    """An oracle that changes what another one is asked; what it does not say for itself is as of the inner one.

    Attributes:
        inner: where gradients come from: the model, its twin, or surrogates.
    """

    inner: Oracle = field(default_factory=Autograd, kw_only=True)

    @property
    def sees_victim(self) -> bool:
        """As the inner oracle."""
        return self.inner.sees_victim

    @property
    def exact(self) -> bool:
        """As the inner oracle."""
        return self.inner.exact

    @property
    def warms(self) -> bool:
        """As the inner oracle."""
        return self.inner.warms

    @property
    def draws(self) -> bool:
        """As the inner oracle."""
        return self.inner.draws

    @property
    def gradients(self) -> int:
        """As the inner oracle."""
        return self.inner.gradients

    @property
    def looks(self) -> int:
        """As the inner oracle."""
        return self.inner.looks

    def at(self, progress: float) -> Oracle:
        """Around the inner oracle of that moment."""
        inner = self.inner.at(progress)
        return self if inner is self.inner else replace(self, inner=inner)

    def look(self, problem: Problem, point: Tree, key: Key) -> Score:
        """The inner oracle's look at the input itself."""
        return self.inner.look(problem, point, key)

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """The inner oracle's score and gradient."""
        return self.inner(problem, point, key, cotangent)


def innermost(oracle: Oracle, new: Callable[[Oracle], Oracle]) -> Oracle:
    """The same oracle with its innermost one replaced by ``new`` of it; those around it stay."""
    if isinstance(oracle, Around):
        return replace(oracle, inner=innermost(oracle.inner, new))
    return new(oracle)


def mean_score(scores: Sequence[Score]) -> Score:
    """Losses and ways averaged; fooled where all are."""
    if len(scores) == 1:
        return scores[0]
    return Score(
        torch.stack([s.loss for s in scores]).mean(0),
        torch.stack([s.ways for s in scores]).mean(0),
        torch.stack([s.fooled for s in scores]).all(0),
        torch.stack([s.valid for s in scores]).all(0),
        scores[0].answer,
    )


def on_twin(oracle: Oracle, twin: Asked) -> Oracle:
    """The same oracle with the fast twin wherever it would ask the attacked model itself."""
    return innermost(oracle, lambda inner: Twin(twin) if isinstance(inner, Autograd) else inner)


def leaf_of(point: Tree) -> Tree:
    """A fresh leaf with the values of ``point`` that gradients flow to; inference tensors are copied out."""
    return tree_map(lambda part: (part.clone() if part.is_inference() else part.detach()).requires_grad_(), point)


def gradient_of(value: Tensor, u: Tree, *, again: bool = False) -> Tree:
    """The gradient of a scalar with respect to the leaves ``u``; ``again`` keeps the graph for the next one.

    Raises:
        GradientError: there is no path from ``u`` to the value that can be differentiated.
    """
    inputs = leaves(u)
    if not value.requires_grad:
        raise no_path()
    try:
        with foreign("the model's backward pass"):
            found = torch.autograd.grad(value, inputs, allow_unused=True, retain_graph=again)
    except RuntimeError as error:
        if "use_reentrant" in str(error):
            raise GradientError(
                "the model uses torch.utils.checkpoint with use_reentrant=True, which computes gradients of weights "
                "whether they are wanted or not",
                remedy="pass use_reentrant=False there, or switch checkpointing off for the attack",
            ) from error
        if "backward through the graph a second time" in str(error):
            raise ModelError(
                "the model carries values with their gradient from one call to the next (a hidden state?), so that a "
                "pass leads back into passes that are done",
                remedy="detach them, or reset the state at the start of forward()",
            ) from error
        if "modified by an inplace operation" in str(error):
            raise GradientError(
                "the model writes in place into values that its own gradient is computed from (p[:, k] = 0, p *= w, "
                "p.clamp_() after a softmax, sigmoid, exp or the like)",
                remedy=(
                    "write into a copy there (p = p.clone()), or use an attack that only asks (square, hop-skip-jump)"
                ),
            ) from error
        raise
    if all(part is None for part in found):
        raise no_path()
    gradients = iter(found)

    def filled(part: Tensor) -> Tensor:
        gradient = next(gradients)
        return torch.zeros_like(part) if gradient is None else gradient

    return tree_map(filled, u)
