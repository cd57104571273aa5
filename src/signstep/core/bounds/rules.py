"""How an interval goes through each kind of layer, function and method; what is not in a table has no rule.

Layers are taken in their usual meaning: a linear one has the centre mapped and the radius multiplied by absolute
weights, one that never falls has its two ends mapped (Gowal et al. 2018, section 3). Dropout is the identity. BatchNorm
in training mode normalises by the statistics of the centres and leaves its running ones alone; in evaluation mode it is
the affine map that it is.
"""

import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from signstep.core.bounds.interval import Interval

Layer = Callable[[Any, Interval], Interval]
_CONVOLUTIONS: dict[type, Callable[..., Tensor]] = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}

# Where two smooth activations have their least value, and stop falling.
_GELU_BOTTOM = -0.7517915
_TANH_GELU_BOTTOM = -0.7524614
_SILU_BOTTOM = -1.2784645


def _linear(layer: nn.Linear, part: Interval) -> Interval:
    weight = layer.weight
    return part.affine(lambda c: F.linear(c, weight, layer.bias), lambda r: F.linear(r, weight.abs()))


def _convolution(layer: Any, part: Interval) -> Interval:
    function = next(function for kind, function in _CONVOLUTIONS.items() if isinstance(layer, kind))
    how = (layer.stride, layer.padding, layer.dilation, layer.groups)
    weight = layer.weight
    return part.affine(lambda c: function(c, weight, layer.bias, *how), lambda r: function(r, weight.abs(), None, *how))


def _batch_norm(layer: Any, part: Interval) -> Interval:
    over = (1, -1, *([1] * (part.centre.ndim - 2)))
    if layer.training or layer.running_mean is None:
        others = [axis for axis in range(part.centre.ndim) if axis != 1]
        variance, mean = torch.var_mean(part.centre, others, correction=0)
    else:
        mean, variance = layer.running_mean, layer.running_var
    scale = (variance + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -mean * scale if layer.bias is None else layer.bias - mean * scale
    return part.affine(lambda c: c * scale.view(over) + shift.view(over), lambda r: r * scale.abs().view(over))


def _rising(layer: Any, part: Interval) -> Interval:
    return part.rising(layer)


def _shaped(layer: Any, part: Interval) -> Interval:
    return part.shaped(layer)


def _same(_: Any, part: Interval) -> Interval:
    return part


def _gelu(layer: nn.GELU, part: Interval) -> Interval:
    return part.valley(layer, _GELU_BOTTOM if layer.approximate == "none" else _TANH_GELU_BOTTOM)


def _silu(layer: nn.SiLU, part: Interval) -> Interval:
    return part.valley(F.silu if layer.inplace else layer, _SILU_BOTTOM)


def _not_in_place(function: Callable[..., Tensor], *names: str) -> Layer:
    """A rectifier that may be set to overwrite its input, by the function that does not."""
    return lambda layer, part: part.rising(partial(function, **{name: getattr(layer, name) for name in names}))


LAYERS: Mapping[type[nn.Module], Layer] = {
    nn.Linear: _linear,
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.ReLU: _not_in_place(F.relu),
    nn.ReLU6: _not_in_place(F.relu6),
    nn.LeakyReLU: _not_in_place(F.leaky_relu, "negative_slope"),
    nn.ELU: _not_in_place(F.elu, "alpha"),
    nn.CELU: _not_in_place(F.celu, "alpha"),
    nn.SELU: _not_in_place(F.selu),
    nn.Hardtanh: _not_in_place(F.hardtanh, "min_val", "max_val"),
    nn.Hardsigmoid: _not_in_place(F.hardsigmoid),
    nn.Softplus: _rising,
    nn.Sigmoid: _rising,
    nn.Tanh: _rising,
    nn.GELU: _gelu,
    nn.SiLU: _silu,
    nn.MaxPool1d: _rising,
    nn.MaxPool2d: _rising,
    nn.AdaptiveMaxPool2d: _rising,
    nn.AvgPool1d: _shaped,
    nn.AvgPool2d: _shaped,
    nn.AdaptiveAvgPool1d: _shaped,
    nn.AdaptiveAvgPool2d: _shaped,
    nn.Flatten: _shaped,
    nn.Unflatten: _shaped,
    nn.ZeroPad2d: _shaped,
    nn.PixelShuffle: _shaped,
    nn.Identity: _same,
    nn.Dropout: _same,
    nn.Dropout2d: _same,
}


def rule_of(layer: nn.Module) -> Layer | None:
    """The rule of a layer; None where there is none."""
    kind = next((kind for kind in LAYERS if isinstance(layer, kind)), None)
    if kind is None:
        return None
    if kind in _CONVOLUTIONS and layer.padding_mode != "zeros":
        return None
    if kind is nn.LeakyReLU and not float(layer.negative_slope) >= 0:  # type: ignore[arg-type]
        return None
    if kind in (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool2d) and layer.return_indices:
        return None
    return LAYERS[kind]


def _sum(one: Any, other: Any) -> Interval:
    if isinstance(one, Interval) and isinstance(other, Interval):
        return Interval(one.centre + other.centre, one.radius + other.radius)
    part, shift = (one, other) if isinstance(one, Interval) else (other, one)
    moved = part.centre + shift
    return Interval(moved, part.radius.expand_as(moved))


def _minus(part: Any) -> Any:
    return Interval(-part.centre, part.radius) if isinstance(part, Interval) else -part


def _difference(one: Any, other: Any) -> Interval:
    return _sum(one, _minus(other))


def _product(one: Any, other: Any) -> Interval:
    part, factor = (one, other) if isinstance(one, Interval) else (other, one)
    if isinstance(factor, Interval):
        raise TypeError("the product of two intervals")
    return Interval(part.centre * factor, part.radius * abs(factor))


def _quotient(part: Any, divisor: Any) -> Interval:
    if isinstance(divisor, Interval):
        raise TypeError("a quotient by an interval")
    return Interval(part.centre / divisor, part.radius / abs(divisor))


def _joined(parts: Any, dim: int = 0) -> Interval:
    whole = [part if isinstance(part, Interval) else Interval(part, torch.zeros_like(part)) for part in parts]
    return Interval(torch.cat([part.centre for part in whole], dim), torch.cat([part.radius for part in whole], dim))


def _by(way: Callable[[Interval, Callable[[Tensor], Tensor]], Interval], function: Callable[..., Any]) -> Any:
    """A function of one interval and plain arguments."""

    def applied(part: Interval, *args: Any, **kwargs: Any) -> Interval:
        kwargs.pop("inplace", None)
        return way(part, lambda values: function(values, *args, **kwargs))

    return applied


def _kept(part: Interval, *_: Any, **__: Any) -> Interval:
    return part


_RISING = (torch.relu, F.relu, F.relu6, F.hardtanh, F.softplus, torch.sigmoid, torch.tanh, F.elu, F.max_pool2d)
_SHAPED = (torch.flatten, torch.mean, torch.sum, torch.permute, torch.transpose, F.avg_pool2d, F.adaptive_avg_pool2d)

FUNCTIONS: Mapping[Callable[..., Any], Callable[..., Interval]] = {
    **{function: _by(Interval.rising, function) for function in _RISING},
    **{function: _by(Interval.shaped, function) for function in _SHAPED},
    operator.add: _sum,
    operator.iadd: _sum,
    torch.add: _sum,
    operator.sub: _difference,
    torch.sub: _difference,
    operator.neg: _minus,
    operator.mul: _product,
    torch.mul: _product,
    operator.truediv: _quotient,
    torch.div: _quotient,
    torch.cat: _joined,
    operator.getitem: lambda part, where: part.shaped(lambda values: values[where]),
    F.gelu: lambda part, approximate="none": part.valley(
        partial(F.gelu, approximate=approximate), _GELU_BOTTOM if approximate == "none" else _TANH_GELU_BOTTOM
    ),
    F.silu: lambda part, inplace=False: part.valley(F.silu, _SILU_BOTTOM),  # noqa: ARG005
    F.dropout: _kept,
}

_MOVES = ("view", "reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "expand")

METHODS: Mapping[str, Callable[..., Interval]] = {
    **{name: _by(Interval.shaped, getattr(torch.Tensor, name)) for name in (*_MOVES, "mean", "sum")},
    **{name: _by(Interval.rising, getattr(torch.Tensor, name)) for name in ("relu", "sigmoid", "tanh")},
    "add": _sum,
    "sub": _difference,
    "mul": _product,
    "div": _quotient,
}

# Questions about the shape are answered by the centre.
ABOUT = (getattr,)
ABOUT_METHODS = ("size", "dim")
