"""What the small networks share: activations by name, and a bound on each layer's gain."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from signstep.errors import InputError
from signstep.messages import Arg

Network = TypeVar("Network", bound=nn.Module)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
}
"""The last two saturate hard: their gradient is exactly zero outside a range, which can hide a model from FGSM."""


def activation(name: str) -> nn.Module:
    """A fresh activation layer.

    Raises:
        InputError: no such name.
    """
    if name not in ACTIVATIONS:
        raise InputError(Arg("activation", name), remedy=f"pass one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def bounded(model: Network) -> Network:
    """Divide the weight of every convolution and linear layer by its largest singular value; in place.

    Of a convolution that is the value of the kernel read as a matrix (C_out, C_in k k), as in Miyato et al. (2018),
    "Spectral Normalization for Generative Adversarial Networks"; torch's own parametrisation. The value is followed by
    one power iteration in each training pass, so it lags while weights move fast and is met as the rate goes to 0. The
    gain of a convolution itself may be larger, since its windows overlap.
    """
    for part in list(model.modules()):
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            spectral_norm(part)
    return model


def at_least_one(**given: int) -> None:
    """See that sizes are whole numbers of at least 1.

    Raises:
        InputError: one is not.
    """
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(Arg(name, value), remedy="pass a whole number of at least 1")
