"""What the weights follow: the scalar that one step of a recipe sends backwards.

Each objective is a function of a `Batch` and returns the mean loss over its rows, with a graph to the weights.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from signstep.certify.bounds import ends, worst_margins
from signstep.engine.region import BallRegion
from signstep.errors import InputError, ModelError
from signstep.messages import Arg
from signstep.model.layout import ChannelsLast
from signstep.train.craft import Forward, advanced, craft, finite, frozen, inner_mode, input_gradient, noise
from signstep.train.deployed import Deployed
from signstep.train.draws import BatchDraws
from signstep.train.memory import Memory
from signstep.train.recipes import Objective, TrainingRecipe


@dataclass(frozen=True)
class Frame:
    """How augmented rows lie to the examples that memory belongs to; both maps take (R, ...)."""

    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """One step's rows and everything that its loss is made of.

    Attributes:
        model: the model.
        x: inputs (R, ...); may have a graph of its own (embeddings).
        y: labels.
        recipe: how.
        region: around x.
        draws: of this step.
        rowwise: (outputs, y) -> (R,) loss of each row without label smoothing: what the attack climbs.
        learnt: (outputs, y) -> the mean loss that the weights follow.
        memory: of recipes that have one.
        ids: (R,) row numbers in the training set, for memory.
        frame: of augmentation, for memory.
        scale: of the loss that the attack climbs: only the direction counts, and in half precision small gradients
            would vanish.
        tell: given the loss (R,) of each row, by who asks for it.
    """

    model: Forward
    x: Tensor
    y: Tensor
    recipe: TrainingRecipe
    region: BallRegion
    draws: BatchDraws
    rowwise: Callable[[Tensor, Tensor], Tensor]
    learnt: Callable[[Tensor, Tensor], Tensor]
    memory: Memory
    ids: Tensor | None = None
    frame: Frame | None = None
    scale: float = 1.0
    tell: Callable[[Tensor], None] | None = None

    def followed(self, outputs: Tensor) -> Tensor:
        """The mean loss that the weights follow, where it is all that they follow of each row."""
        self.told(lambda: self.rowwise(outputs, self.y))
        return self.learnt(outputs, self.y)

    def told(self, losses: Callable[[], Tensor]) -> None:
        """Tell the loss of each row, which costs nothing where nobody asks."""
        if self.tell is not None:
            with torch.no_grad():
                self.tell(losses().detach())

    def climbed(self, outputs: Tensor) -> Tensor:
        """The sum over rows of the loss that the attack climbs."""
        return self.rowwise(outputs, self.y).sum() * self.scale

    def moved(self, d: Tensor) -> Tensor:
        """The inputs at displacement d, in their own dtype; with ``clip`` rounding does not leave the box."""
        if not self.recipe.clip:
            return self.x + d.to(self.x.dtype)
        u = self.x + d.to(self.x.dtype)
        if self.region.low is None and self.region.high is None:
            return u
        return torch.clamp(u, self.region.low, self.region.high)

    def crafted(self) -> Tensor:
        """The displacements of the inner attack on the loss itself."""
        with inner_mode(self.model, self.recipe), frozen(self.model):
            return craft(self.recipe, self.model, self.climbed, self.region, self.draws)


def clean(batch: Batch) -> Tensor:
    """J(x)."""
    return batch.followed(batch.model(batch.x))


def adversarial(batch: Batch) -> Tensor:
    """J(x + d)."""
    return batch.followed(batch.model(batch.moved(batch.crafted())))


def mixed(batch: Batch) -> Tensor:
    """(J(x) + J(x + d)) / 2, both in one pass: BatchNorm sees the mixture (Goodfellow et al. 2014, section 6)."""
    outputs = batch.model(torch.cat([batch.x, batch.moved(batch.crafted())]))
    twice = torch.cat([batch.y, batch.y])
    batch.told(lambda: batch.rowwise(outputs, twice).reshape(2, -1).mean(0))
    return batch.learnt(outputs, twice)


def trades(batch: Batch) -> Tensor:
    """J(x) + weight KL(p(x) || p(x + d)), both KLs as means over rows (Zhang et al. 2019, equation 5)."""
    with inner_mode(batch.model, batch.recipe), frozen(batch.model):
        with torch.no_grad():
            wanted = _logarithms(batch.model(batch.x))

        def divergence(outputs: Tensor) -> Tensor:
            return _divergences(wanted, _logarithms(outputs)).sum() * batch.scale

        d = craft(batch.recipe, batch.model, divergence, batch.region, batch.draws)
    outputs = batch.model(batch.x)
    attacked = batch.model(batch.moved(d))
    gaps = _divergences(_logarithms(outputs), _logarithms(attacked))
    batch.told(lambda: batch.rowwise(outputs, batch.y) + batch.recipe.weight * gaps)
    return batch.learnt(outputs, batch.y) + batch.recipe.weight * gaps.mean()


def _logarithms(outputs: Tensor) -> Tensor:
    """Of the probabilities, in float32 at least: autocast on a CPU would leave them in half precision."""
    half = outputs.dtype in (torch.float16, torch.bfloat16)
    return outputs.log_softmax(1, dtype=torch.float32 if half else None)


def _divergences(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of each row (R,) from logarithms (R, K, ...); classes that are absent, at -inf, count for nothing.

    torch's own kl_div has a gradient of NaN where a probability is 0, also by underflow.
    """
    there = torch.isfinite(p) & torch.isfinite(q)
    return (p.exp() * torch.where(there, p - q, 0.0)).flatten(1).sum(1)


def aligned(batch: Batch) -> Tensor:
    """J(x + d) + weight mean(1 - cos(g(x), g(x + n))), n uniform in the ball.

    The gradient at x serves the attack as well (Andriushchenko & Flammarion 2020, equation 5).
    """
    recipe, region, x = batch.recipe, batch.region, batch.x
    with inner_mode(batch.model, recipe):
        here, _ = input_gradient(batch.model, batch.climbed, x, twice=True)
        near = region.restrict(noise(region, batch.draws, recipe.spread)).to(x.dtype)
        there, _ = input_gradient(batch.model, batch.climbed, x.detach() + near, twice=True)
    parting = 1 - F.cosine_similarity(here.flatten(1), there.flatten(1), dim=1)
    d = advanced(recipe, region, None, here.detach())
    outputs = batch.model(batch.moved(d))
    batch.told(lambda: batch.rowwise(outputs, batch.y) + recipe.weight * parting)
    return batch.learnt(outputs, batch.y) + recipe.weight * parting.mean()


def prior(batch: Batch) -> Tensor:
    """J(x + d) + weight mean((f(x + d) - f(x + p))^2), p where this example was led before, d one step from there.

    p moves along a momentum over the epochs (Jia et al. 2022, equations 7 to 10). Directions are the steepest unit
    steps of the norm, which are signs for L-infinity.
    """
    recipe, region = batch.recipe, batch.region
    fresh = region.project(region.restrict(noise(region, batch.draws, recipe.spread)))
    ids = torch.arange(len(fresh), device=fresh.device, dtype=torch.int64) if batch.ids is None else batch.ids
    frame = batch.frame or Frame(lambda part: part, lambda part, _: part)
    stored, drifted = batch.memory.recall(ids, fresh)
    begin, drift = region.project(frame.apply(stored)), frame.apply(drifted)
    with inner_mode(batch.model, recipe):
        gradient, before = input_gradient(batch.model, batch.climbed, batch.x + begin.to(batch.x.dtype), keep=True)
    d = advanced(recipe, region, begin, gradient)
    unit = torch.ones_like(region.radius)
    drift = recipe.decay * drift + region.norm.steepest(region.restrict(gradient), unit)
    onwards = advanced(recipe, region, begin, drift)
    batch.memory.keep(ids, frame.undo(onwards, stored), frame.undo(drift, drifted))
    outputs = batch.model(batch.moved(d))
    changes = F.mse_loss(outputs, before, reduction="none").flatten(1).mean(1)
    batch.told(lambda: batch.rowwise(outputs, batch.y) + recipe.weight * changes)
    return batch.learnt(outputs, batch.y) + recipe.weight * changes.mean()


def free(batch: Batch) -> Tensor:
    """J(x + d) for a d that the same backward pass gives its gradient (Shafahi et al. 2019, algorithm 1).

    The step along it is taken when the next loss is asked for, on the same batch or on the next one.
    """
    d, gradient = batch.memory.carry(batch.region.zero())
    if gradient is not None and batch.scale != 1.0:
        gradient = finite(gradient)
    d = batch.region.project(d) if gradient is None else advanced(batch.recipe, batch.region, d, gradient)
    batch.memory.carried = d.detach().clone().requires_grad_()
    return batch.followed(batch.model(batch.x + batch.memory.carried.to(batch.x.dtype)))


def bounded(batch: Batch) -> Tensor:
    """(1 - weight) J(x + d) + weight J(m), m the worst margins that interval bounds allow in the ball.

    J(m), without label smoothing, is at least the loss of every point of the ball, so that it cannot be learnt away by
    hiding from one step (De Palma et al. 2024, equation 6; Gowal et al. 2018, equation 10). With BatchNorm that holds
    in evaluation mode; here it normalises by the statistics of the centres.
    """
    share = batch.recipe.weight
    low, high = ends(batch.region)
    network = network_of(batch.model)
    if isinstance(network, Deployed):
        low, high = network.space.normalise(low), network.space.normalise(high)
        network = network_of(network.model)
    kind = batch.x.device.type
    # Half precision has no room for the ends of wide intervals.
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    with torch.autocast(kind, enabled=False) if half else nullcontext():
        try:
            margins = worst_margins(network, low.to(batch.x.dtype), high.to(batch.x.dtype), batch.y)
        except ModelError as error:
            instead = "; or pass a recipe without bounds, such as n-fgsm"
            raise ModelError(*error.parts, remedy=(*error.cure, instead), where=error.where) from error
    bounds = F.cross_entropy(margins, batch.y, reduction="none")
    if share < 1:
        outputs = batch.model(batch.moved(batch.crafted()))
        batch.told(lambda: (1 - share) * batch.rowwise(outputs, batch.y) + share * bounds)
        return (1 - share) * batch.learnt(outputs, batch.y) + share * bounds.mean()
    batch.told(lambda: bounds)
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules()):
        with torch.no_grad():
            batch.model(batch.x)  # running statistics, which bounds leave alone
    return bounds.mean()


def network_of(model: object) -> nn.Module:
    """The module itself, where steps run through compiled code or bring images to another layout first.

    Raises:
        InputError: it is no module.
    """
    network = model
    while isinstance(network, ChannelsLast) or hasattr(network, "_orig_mod"):
        network = network.model if isinstance(network, ChannelsLast) else network._orig_mod
    if not isinstance(network, nn.Module):
        raise InputError(
            Arg("model"),
            f"is a {type(network).__name__}, and bounds go through layers",
            remedy="pass the nn.Module itself",
        )
    return network


OBJECTIVES: dict[Objective, Callable[[Batch], Tensor]] = {
    "clean": clean,
    "adversarial": adversarial,
    "mixed": mixed,
    "trades": trades,
    "aligned": aligned,
    "prior": prior,
    "free": free,
    "bounded": bounded,
}
