"""``adversarial_loss``: a recipe inside anybody's own loop."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from signstep.engine.origin import contained
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.messages import Arg, Blank
from signstep.model.declaration import Model
from signstep.train.craft import Forward, ball
from signstep.train.deployed import trained_module
from signstep.train.draws import BatchDraws
from signstep.train.memory import Memory
from signstep.train.objectives import OBJECTIVES, Batch
from signstep.train.recipes import TrainingRecipe, training_recipe

Criterion = Callable[[Tensor, Tensor], Tensor]


@contained
def adversarial_loss(
    model: Model | Forward,
    x: Tensor,
    y: Tensor,
    recipe: str | TrainingRecipe = "n-fgsm",
    *,
    threat: ThreatModel,
    smoothing: float = 0.0,
    criterion: Criterion | None = None,
    memory: Memory | None = None,
    ids: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The loss of one step of adversarial training, a scalar to call ``backward`` on.

    The inner attack computes no weight gradients, touches no ``.grad`` and leaves the model's mode as it was. The
    recipe ``free`` is the exception that its paper is: the caller's ``backward`` gives its perturbation a gradient too,
    and the next call with the same ``memory`` takes the step.

    Args:
        model: from inputs to scores; a module, a function around one, or an `ss.Model` of a module.
        x: inputs (R, ...), raw; a graph of their own (embeddings) is kept for the update, not for the attack.
        y: labels.
        recipe: "n-fgsm", "pgd-at:steps=7", ... (``signstep.train.TRAINING_RECIPES``) or a recipe.
        threat: what may change, with an eps: ``ss.linf("8/255")``.
        smoothing: label smoothing of the loss that the weights follow; the attack climbs the loss without it.
        criterion: (outputs, y) -> (R,), one loss for each row; None for cross-entropy.
        memory: keep one `Memory` for the whole run with the recipes ``free`` and ``fgsm-pgi``.
        ids: (R,) int64, row numbers in the training set, for ``fgsm-pgi``.
        generator: randomness on the device of x; None for torch's own.

    Raises:
        InputError: recipe, memory, threat or a value of x does not fit.
        ModelError: ``mtl-ibp`` or ``ibp``, and no interval goes through a part of the model.

    Example:
        >>> import torch, signstep as ss
        >>> model = torch.nn.Linear(4, 3)
        >>> x, y = torch.rand(8, 4), torch.randint(3, (8,))
        >>> loss = ss.adversarial_loss(model, x, y, "n-fgsm", threat=ss.linf(0.1))
        >>> loss.backward()
        >>> model.weight.grad.shape
        torch.Size([3, 4])
    """
    chosen = training_recipe(recipe)
    if chosen.fade != 1:
        raise InputError(
            Arg("recipe", recipe),
            Arg("fade", chosen.fade, shown=f"{chosen.fade:g}"),
            "needs a run of known length",
            remedy=("pass another", Arg("weight"), "by and by"),
        )
    if criterion is not None and chosen.objective == "bounded":
        raise InputError(
            Arg("recipe", chosen.name),
            "bounds cross-entropy by margins",
            remedy=("drop", Arg("criterion"), ", or take another recipe"),
        )
    if memory is None and chosen.objective in ("free", "prior"):
        raise InputError(
            Arg("recipe", chosen.name),
            "remembers",
            remedy=("pass", Arg("memory", Blank("signstep.train.Memory()")), ", the same at each call"),
        )
    if ids is None and chosen.objective == "prior":
        raise InputError(
            Arg("recipe", chosen.name),
            "remembers each example",
            remedy=("pass", Arg("ids"), ", row numbers in the training set"),
        )
    if smoothing and criterion is not None:
        raise InputError(
            Arg("smoothing", smoothing, shown=f"{smoothing:g}"),
            "belongs to cross-entropy",
            remedy="put it into your criterion, or drop one",
        )
    forward: Forward = trained_module(model) if isinstance(model, Model) else model
    rowwise, learnt = losses(smoothing, criterion)
    draws = BatchDraws(len(x), x.device, generator)
    batch = Batch(forward, x, y, chosen, ball(x, threat), draws, rowwise, learnt, memory or Memory(), ids)
    return OBJECTIVES[chosen.objective](batch)


def losses(smoothing: float, criterion: Criterion | None) -> tuple[Criterion, Criterion]:
    """What the attack climbs, (R,), and what the weights follow, a scalar."""
    if criterion is None:
        return (
            lambda outputs, y: F.cross_entropy(outputs, y, reduction="none"),
            lambda outputs, y: F.cross_entropy(outputs, y, label_smoothing=smoothing),
        )
    given = criterion

    def rowwise(outputs: Tensor, y: Tensor) -> Tensor:
        value = given(outputs, y)
        if value.shape != (len(y),):
            raise InputError(
                Arg("criterion"),
                f"returned shape {tuple(value.shape)} for {len(y)} rows",
                remedy="return one loss for each row, such as with reduction='none'",
            )
        return value

    return rowwise, lambda outputs, y: rowwise(outputs, y).mean()
