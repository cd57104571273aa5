"""The inner attack: from a batch to the displacements that one step of training uses.

Its gradients are asked for the inputs alone, so that no weight gradient is computed and none is left behind. The
geometry is that of `signstep.engine.region`; what differs from an attack is that a start and an iterate may lie outside
the allowed set where the recipe says so, and that nothing is scored.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from signstep.engine.norms import L0, Linf
from signstep.engine.region import BallRegion
from signstep.engine.threat import ThreatModel
from signstep.engine.tree import per_row, search_dtype
from signstep.errors import GradientError, InputError, ThreatError
from signstep.messages import Arg
from signstep.train.draws import BatchDraws
from signstep.train.recipes import TrainingRecipe

Forward: TypeAlias = Callable[[Tensor], Tensor]
Rowwise: TypeAlias = Callable[[Tensor], Tensor]


def ball(x: Tensor, threat: ThreatModel, *, share: float = 1.0, check: bool = True) -> BallRegion:
    """The allowed set around a batch x (R, ...), its radius scaled by ``share``.

    Args:
        x: inputs, raw.
        threat: with an eps.
        share: of eps, for a warm-up.
        check: look at every value of x: that it lies inside the box and is a number. A loop needs it once.

    Raises:
        InputError: x or threat cannot be trained on.
        ThreatError: the threat counts changes.
    """
    if not isinstance(threat, ThreatModel) or threat.eps is None:
        raise InputError(
            Arg("threat", threat), ": training needs a ball with an eps", remedy="pass one, such as ss.linf('8/255')"
        )
    if isinstance(threat.norm, L0):
        raise ThreatError(
            f"norm {threat.norm.name}: training starts and steps outside the box, and a count has no size there",
            remedy="pass a ball in another norm, such as ss.l1(12)",
        )
    if threat.grid is not None:
        threat = replace(threat, grid=None)  # a grid is for points that are scored, not for those that are learnt from
    x = x.detach()
    if check:
        region = BallRegion.around(x, threat)
    else:
        assert threat.eps is not None
        dtype = search_dtype(x.dtype)
        radius = _told(threat.eps, x, dtype).expand(len(x))
        ends = (_end(threat.low, x, dtype), _end(threat.high, x, dtype))
        mask = None if threat.mask is None else threat.mask.to(x.device)
        region = BallRegion(threat.norm, x, radius, *ends, _batched(mask, x), None)
    return region if share == 1.0 else region.resized(region.radius * share)


def started(recipe: TrainingRecipe, region: BallRegion, draws: BatchDraws) -> Tensor | None:
    """Where the inner attack begins, (R, ...); None for the clean point."""
    if recipe.start == "clean":
        return None
    shape = tuple(region.x.shape[1:])
    if recipe.start == "gaussian":
        d = draws.normal("start", shape).mul_(recipe.spread)
    elif recipe.start == "sign":
        d = region.norm.steepest(draws.normal("start", shape), region.radius * recipe.spread)
    else:
        d = noise(region, draws, recipe.spread)
    d = region.restrict(d.to(search_dtype(region.x.dtype)))
    # Without a step the start is what is trained on.
    return region.project(d) if recipe.inside or (recipe.steps == 0 and recipe.clip) else d


def noise(region: BallRegion, draws: BatchDraws, spread: float) -> Tensor:
    """Uniform in the ball of radius ``spread`` eps, neither boxed nor projected."""
    shape = tuple(region.x.shape[1:])
    drawn = draws.between(shape, 1.0) if isinstance(region.norm, Linf) else region.norm.sample(draws, shape)
    return drawn.mul_(per_row(region.radius * spread, drawn))


def advanced(recipe: TrainingRecipe, region: BallRegion, d: Tensor | None, gradient: Tensor) -> Tensor:
    """One step of ``recipe.step`` eps along the gradient, and the projection that the recipe has."""
    gradient = region.restrict(gradient.to(search_dtype(region.x.dtype)))
    length = region.radius * recipe.step
    inside = d is None or recipe.inside
    if recipe.clip and inside and not isinstance(region.norm, Linf):
        change = region.step(d, gradient, length)  # knows the box, so that no length is lost in clipping
    else:
        change = region.norm.steepest(gradient, length)
    moved = change if d is None else change.add_(d)
    return region.project(moved) if recipe.clip else moved


def craft(recipe: TrainingRecipe, forward: Forward, loss: Rowwise, region: BallRegion, draws: BatchDraws) -> Tensor:
    """The displacements (R, ...) that a recipe trains on: start, then its steps.

    Args:
        recipe: how.
        forward: the model, (R, ...) to outputs.
        loss: from outputs to the scalar to climb; its scale does not matter.
        region: around the batch.
        draws: of this step.
    """
    d = started(recipe, region, draws)
    for _ in range(recipe.steps):
        gradient, _ = input_gradient(forward, loss, region.x if d is None else region.x + d)
        d = advanced(recipe, region, d, gradient)
    return region.zero() if d is None else d


def input_gradient(
    forward: Forward, loss: Rowwise, point: Tensor, *, keep: bool = False, twice: bool = False
) -> tuple[Tensor, Tensor]:
    """The gradient (R, ...) of the loss at a point, and the outputs there; weights get none.

    Args:
        forward: the model.
        loss: from outputs to a scalar.
        point: (R, ...).
        keep: keep the graph of the outputs for the update.
        twice: make the gradient itself differentiable.

    Raises:
        GradientError: the outputs do not depend on the point.
    """
    with torch.enable_grad():
        u = point.detach().requires_grad_()
        outputs = forward(u)
        (gradient,) = torch.autograd.grad(
            loss(outputs), u, retain_graph=keep or twice, create_graph=twice, allow_unused=True
        )
    if gradient is None:
        raise GradientError(
            "the model's outputs do not depend on its input, and training against an attack needs a path",
            remedy="remove detach, argmax or NumPy on the way",
        )
    return (finite(gradient) if _halved(point.device.type) else gradient), outputs


def finite(gradient: Tensor) -> Tensor:
    """A gradient that went through half precision: what overflowed is as large as can be, what is no number is 0."""
    most = torch.finfo(torch.float16).max
    return torch.nan_to_num(gradient, 0.0, most, -most)


def _halved(device: str) -> bool:
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16


@contextmanager
def inner_mode(model: object, recipe: TrainingRecipe) -> Iterator[None]:
    """The model's mode while the attack runs; each submodule's own comes back after it."""
    modules = list(model.modules()) if isinstance(model, nn.Module) and recipe.mode == "eval" else []
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def frozen(model: object) -> Iterator[None]:
    """No weight of a model with compiled parts wants a gradient while the attack runs; afterwards they do again.

    Compiled code computes the gradients of all that wants one, whatever is asked of it; with frozen weights there is
    other code, for the input alone. Autograd itself computes what is asked for: other models are left alone.
    """
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    compiled = any("_orig_mod" in part._modules or part._compiled_call_impl is not None for part in parts)
    wanting = [weight for weight in parts[0].parameters() if weight.requires_grad] if compiled else []
    for weight in wanting:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in wanting:
            weight.requires_grad_(True)


def _end(end: float | Tensor | None, x: Tensor, dtype: torch.dtype) -> Tensor | None:
    return None if end is None else _batched(_told(end, x, dtype), x)


def _told(value: float | Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """A value where x is; a number is filled in there, since a card would be waited for to copy it."""
    if isinstance(value, Tensor):
        return value.to(x.device, dtype)
    return torch.full((), value, dtype=dtype, device=x.device)


def _batched(part: Tensor | None, x: Tensor) -> Tensor | None:
    """A tensor for one example gets a dimension for the rows; `ball` with ``check`` has seen that it fits."""
    if part is None or part.ndim in (0, x.ndim):
        return part
    return part.reshape(1, *([1] * (x.ndim - 1 - part.ndim)), *part.shape)
