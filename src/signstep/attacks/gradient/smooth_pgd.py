"""Gradients through softened rectifiers: the forward pass is the model's own, the backward pass looks past its kinks.

A network that was trained on single sign steps can hide behind its rectifiers: where a unit is off, its derivative is
exactly zero, and the gradient does not say that a small change would turn it on. Here the derivative 1[z > 0] of a
rectifier is replaced by sigmoid(k z / s), s the mean |z| of the layer for the row at hand, with k growing during a run
from soft to nearly exact.

Source: backward pass differentiable approximation, Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 4.1,
applied to the rectifiers of an ordinary network; the annealing is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.batch_invariant import row_sum, sigmoid
from signstep.engine.keys import Key
from signstep.engine.moves import shrinking
from signstep.engine.oracles import Around, Autograd, Oracle
from signstep.engine.problem import Problem
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree, per_row, search_dtype
from signstep.errors import InputError
from signstep.messages import Arg


@dataclass(frozen=True)
class Smooth(Around):
    """Another oracle's gradient with the rectifiers softened in the backward pass; its score is unchanged.

    Attributes:
        soft: sharpness k at the first step of a run.
        sharp: sharpness at the last; between them it grows geometrically.
        progress: how far the run is, 0 to 1.
    """

    soft: float = 2.0
    sharp: float = 40.0
    progress: float = 0.0

    @property
    def warms(self) -> bool:
        """Never: a pass that was already paid for was not softened."""
        return False

    def at(self, progress: float) -> "Smooth":
        """As sharp as it is this far into the run."""
        return replace(self, inner=self.inner.at(progress), progress=progress)

    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """The inner oracle's score, and its gradient through softened rectifiers."""
        with _Softened(self.soft * (self.sharp / self.soft) ** self.progress):
            return super().__call__(problem, point, key, cotangent)


class _Softened(TorchFunctionMode):
    """While active, rectifiers are computed exactly and differentiated softly."""

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self._sharpness = sharpness

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        rule = _RULES.get(func)
        if rule is None or not args or not torch.is_grad_enabled() or not _worth(args[0]):
            return func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            return rule(self._sharpness, *args, **(kwargs or {}))


def _worth(z: Any) -> bool:
    return isinstance(z, Tensor) and z.requires_grad and z.is_floating_point() and z.ndim > 1


class _Rectifier(torch.autograd.Function):
    """max(z, 0), or between 0 and ``top``, with slope ``leak`` below; the derivative is softened.

    ``inplace`` writes the result into z as well: other parts of the model may go on with it.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, sharpness: float, leak: float, top: float | None, inplace: bool) -> Tensor:
        ctx.save_for_backward(z.clone() if inplace else z)
        ctx.terms = (sharpness, leak, top)
        if inplace:
            ctx.mark_dirty(z)
            if top is not None:
                return z.clamp_(0, top)
            return functional.leaky_relu_(z, leak) if leak else z.clamp_min_(0)
        if top is not None:
            return z.clamp(0, top)
        return functional.leaky_relu(z, leak) if leak else z.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (z,) = ctx.saved_tensors
        sharpness, leak, top = ctx.terms
        # Row by row, so that a row's gradient does not depend on the batch it is in.
        scale = row_sum(z.abs().to(search_dtype(z.dtype))) / z[0].numel()
        steep = per_row(sharpness / scale.clamp_min(torch.finfo(torch.float32).tiny), z).to(z.dtype)
        open_ = sigmoid(z * steep)
        if top is not None:
            open_ = open_ * sigmoid((top - z) * steep)
        if leak:
            open_ = leak + (1 - leak) * open_
        return gradient * open_, None, None, None, None


def _relu(sharpness: float, z: Tensor, inplace: bool = False) -> Tensor:
    found: Tensor = _Rectifier.apply(z, sharpness, 0.0, None, inplace)  # type: ignore[no-untyped-call]
    return found


def _relu6(sharpness: float, z: Tensor, inplace: bool = False) -> Tensor:
    found: Tensor = _Rectifier.apply(z, sharpness, 0.0, 6.0, inplace)  # type: ignore[no-untyped-call]
    return found


def _leaky(sharpness: float, z: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    found: Tensor = _Rectifier.apply(z, sharpness, float(negative_slope), None, inplace)  # type: ignore[no-untyped-call]
    return found


# Calls that change their argument in place and whose result is ignored (x.relu_()) are left as they are.
_RULES: dict[Any, Callable[..., Tensor]] = {
    functional.relu: _relu,
    torch.relu: _relu,
    Tensor.relu: _relu,
    functional.relu6: _relu6,
    functional.leaky_relu: _leaky,
}


_JITTER = 0.3


def smooth_pgd(
    *,
    steps: int = 10,
    step: float = 1.0,
    restarts: int = 1,
    start: str = "clean",
    jitter: float = _JITTER,
    targets: int = 0,
    soft: float = 2.0,
    sharp: float = 40.0,
    oracle: Oracle | None = None,
) -> GradientAttack:
    """PGD on the margin with the rectifiers softened in the backward pass, and a step that shrinks to a twentieth.

    ``start``: "clean"; "uniform"; or "best", the best point of earlier attacks with uniform noise of ``jitter * eps``.
    Backward pass: Athalye, Carlini & Wagner 2018, section 4.1; see `attacks.gradient.smooth_pgd`.
    """
    step_length(None, 1.0, steps)
    if start not in ("clean", "uniform", "best"):
        raise InputError(Arg("start", start), remedy="pass 'clean', 'uniform' or 'best'", where="smooth-pgd")
    if not 0 < soft <= sharp:
        raise InputError(Arg("soft", soft), Arg("sharp", sharp), remedy="pass 0 < soft <= sharp", where="smooth-pgd")
    if jitter != _JITTER and start != "best":
        raise InputError(
            Arg("jitter", jitter),
            "belongs to",
            Arg("start", "best"),
            f", and the start is {start!r}",
            remedy="pass both, or no jitter",
            where="smooth-pgd",
        )
    return GradientAttack(
        "smooth-pgd",
        shrinking(step, step / 20),
        steps,
        start,  # type: ignore[arg-type]
        restarts,
        Smooth(soft, sharp, inner=oracle or Autograd()),
        loss="margin",
        targets=targets,
        keep="best",
        jitter=jitter if start == "best" else 0.0,
    )


ROW = Recipe(
    "smooth-pgd",
    smooth_pgd,
    "PGD through softened rectifiers, on the margin",
    "backward pass: Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 4.1",
    WHITE_BOX,
    "steps + 2 forwards, steps backwards; with targets those of each, and 1 forward",
)
