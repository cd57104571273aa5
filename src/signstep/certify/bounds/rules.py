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

from signstep.certify.bounds.interval import Interval
from signstep.certify.bounds.rectified import rectified

Layer = Callable[[Any, Interval], Interval]
_CONVOLUTIONS: dict[type, Callable[..., Tensor]] = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}

# Where two smooth activations have their least value, and stop falling.
_GELU_BOTTOM = -0.7517915
_TANH_GELU_BOTTOM = -0.7524614
_SILU_BOTTOM = -1.2784645
# Softplus is cut to the identity at its threshold: a step down that float64 does not see from here on.
_SEAMLESS = 20.0

# Ways of enlarging whose weights are at least 0.
_MEANS = ("nearest", "nearest-exact", "linear", "bilinear", "trilinear", "area")


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
    nn.ReLU: lambda _, part: rectified(part),
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
    nn.Upsample: _shaped,
    nn.Identity: _same,
    nn.Dropout: _same,
    nn.Dropout2d: _same,
}


# What a layer of a kind must be for its rule to hold; torch's own default is each time.
_UNLESS: Mapping[type[nn.Module], Callable[[Any], bool]] = {
    **dict.fromkeys(_CONVOLUTIONS, lambda layer: layer.padding_mode != "zeros"),
    **dict.fromkeys(
        (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
        lambda layer: layer.running_mean is None and not layer.training,  # rows depend on each other
    ),
    nn.LeakyReLU: lambda layer: not layer.negative_slope >= 0,
    nn.ELU: lambda layer: not layer.alpha >= 0,
    nn.CELU: lambda layer: not layer.alpha > 0,
    nn.Softplus: lambda layer: not (layer.beta > 0 and layer.threshold >= _SEAMLESS),
    nn.AvgPool2d: lambda layer: layer.divisor_override is not None,
    nn.Upsample: lambda layer: layer.mode not in _MEANS,
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool2d), lambda layer: layer.return_indices),
}


def rule_of(layer: nn.Module) -> Layer | None:
    """The rule of a layer; None where there is none.

    A subclass with a ``forward`` of its own is another layer, and so is one with hooks.
    """
    kind = next((kind for kind in LAYERS if isinstance(layer, kind)), None)
    if kind is None or type(layer).forward is not kind.forward or "forward" in vars(layer):
        return None
    if kind in _CONVOLUTIONS and getattr(type(layer), "_conv_forward") is not getattr(kind, "_conv_forward"):  # noqa: B009
        return None
    if layer._forward_hooks or layer._forward_pre_hooks or _UNLESS.get(kind, lambda _: False)(layer):
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


def _dropout(
    part: Interval,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,  # noqa: ARG001
) -> Interval:
    if training and p > 0:
        raise TypeError("it draws; take nn.Dropout, which bounds leave out")
    return part


def _reduced(function: Callable[..., Tensor]) -> Callable[..., Interval]:
    """A sum or a mean inside of each row."""

    def applied(part: Interval, dim: Any = None, *args: Any, **kwargs: Any) -> Interval:
        places = (dim,) if isinstance(dim, int) else tuple(dim or ())
        if not places or any(place % part.centre.ndim == 0 for place in places):
            raise TypeError("it goes over rows, which then depend on each other")
        return part.shaped(lambda values: function(values, dim, *args, **kwargs))

    return applied


def _enlarged(part: Interval, *args: Any, **kwargs: Any) -> Interval:
    """Every new number is one of the old ones, or a mean of some."""
    if (args[2] if len(args) > 2 else kwargs.get("mode", "nearest")) not in _MEANS:
        raise TypeError("its weights have both signs")
    return part.shaped(lambda values: F.interpolate(values, *args, **kwargs))


def _averaged(part: Interval, *args: Any, **kwargs: Any) -> Interval:
    if len(args) > _BEFORE_DIVISOR or kwargs.get("divisor_override") is not None:
        raise TypeError("divisor_override")
    return part.shaped(lambda values: F.avg_pool2d(values, *args, **kwargs))


_BEFORE_DIVISOR = 5
_RISING = (F.relu6, F.hardtanh, torch.sigmoid, torch.tanh, F.max_pool2d)
SHAPED = (torch.flatten, torch.permute, torch.transpose, F.adaptive_avg_pool2d)

FUNCTIONS: Mapping[Callable[..., Any], Callable[..., Interval]] = {
    **{function: _by(Interval.rising, function) for function in _RISING},
    **{function: _by(Interval.shaped, function) for function in SHAPED},
    torch.relu: rectified,
    F.relu: lambda part, inplace=False: rectified(part),  # noqa: ARG005
    operator.add: _sum,
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
    F.dropout: _dropout,
    F.avg_pool2d: _averaged,
    F.interpolate: _enlarged,
    torch.mean: _reduced(torch.mean),
    torch.sum: _reduced(torch.sum),
}

MOVES = ("view", "reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "expand")

METHODS: Mapping[str, Callable[..., Interval]] = {
    **{name: _by(Interval.shaped, getattr(torch.Tensor, name)) for name in MOVES},
    **{name: _by(Interval.rising, getattr(torch.Tensor, name)) for name in ("sigmoid", "tanh")},
    **{name: _reduced(getattr(torch.Tensor, name)) for name in ("mean", "sum")},
    "relu": rectified,
    "add": _sum,
    "sub": _difference,
    "mul": _product,
    "div": _quotient,
}

# Questions about the tensor and not about its numbers, which the centre answers.
ATTRIBUTES = ("shape", "ndim", "dtype", "device")
QUESTIONS = ("size", "dim", "numel")
