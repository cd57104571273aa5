"""A few examples through a model before all others: how many outputs it has, and whether it can be differentiated."""

import warnings
from dataclasses import dataclass

from torch import nn

from signstep.data import DataSource
from signstep.engine.arrays import Home
from signstep.engine.untouched import untouched
from signstep.model.declaration import Model
from signstep.model.victims.endpoint import HttpVictim

WITH_GRADIENTS: tuple[str, ...] = ("random-sign", "fgsm", "pgd")
BY_QUERIES: dict[bool, tuple[str, ...]] = {
    False: ("random-sign", "square:queries=500"),
    True: ("random-sign", "hop-skip-jump:queries=500"),
}
"""What attacks a model that is asked and not differentiated, by whether it answers with labels alone."""


# Fewer outputs of one logit would not tell whether they are probabilities.
_FEW = 8


@dataclass(frozen=True)
class FirstLook:
    """What the first examples showed.

    Attributes:
        outputs: how many classes the model tells apart; None where its output is no row of scores.
        gradients: whether its scores follow from its input through what torch can differentiate.
        labels: whether it answers with labels alone.
    """

    outputs: int | None
    gradients: bool
    labels: bool


def first_look(model: Model, source: DataSource) -> FirstLook:
    """One forward pass on the first few examples; where it fails, the work itself will say why.

    A module without names of classes to compare is not looked at, and an endpoint is not asked: requests may cost.
    """
    asked = getattr(model.network, "gradients", None) is False
    if isinstance(model.network, nn.Module) and not (model.classes or source.classes):
        return FirstLook(None, gradients=True, labels=False)
    if isinstance(model.network, HttpVictim):
        return FirstLook(None, gradients=False, labels=model.outputs == "labels")
    try:
        x = next(iter(source))[0][:_FEW].to(Home(model.network).device)
        with untouched(model.network, mode=model.mode), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = model.predictor()(x.detach().clone().requires_grad_(x.is_floating_point()))
    except Exception:
        return FirstLook(None, gradients=not asked, labels=False)
    several = found.raw.ndim == 2 and found.raw.shape[1] > 1
    return FirstLook(
        found.raw.shape[1] if several else None,
        gradients=found.scores.requires_grad,
        labels=found.form == "labels",
    )
