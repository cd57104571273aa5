"""What each layer, function and method is to a bound that goes backwards: a linear map, or an activation with lines.

What is in none of the tables has its interval and no lines: there the way back ends.
"""

import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from signstep.certify.bounds.rules import MOVES, SHAPED
from signstep.certify.linear.lines import Bend, cornered, curved, rectifier

# The largest second derivatives: of the logistic function 1 / (6 sqrt 3), of tanh 4 / (3 sqrt 3), of GELU sqrt(2 / pi),
# of SiLU 1/2; of GELU's other form a little less than 0.8.
_SIGMOID, _TANH, _GELU, _TANH_GELU, _SILU = 0.0963, 0.7699, 0.7979, 0.8, 0.5
# Softplus is cut to the identity at its threshold, 20 at least: a step of exp(-20).
_SOFTPLUS_STEP = 3e-9

LAYERS: Mapping[type[nn.Module], Callable[[Any], Bend | None]] = {
    nn.ReLU: lambda _: rectifier(),
    nn.LeakyReLU: lambda layer: rectifier(layer.negative_slope) if 0 <= layer.negative_slope <= 1 else None,
    nn.ReLU6: lambda _: cornered(F.relu6, 0.0, 6.0),
    nn.Hardtanh: lambda layer: cornered(
        partial(F.hardtanh, min_val=layer.min_val, max_val=layer.max_val), layer.min_val, layer.max_val
    ),
    nn.Hardsigmoid: lambda _: cornered(F.hardsigmoid, -3.0, 3.0),
    nn.Sigmoid: lambda _: curved(torch.sigmoid, _SIGMOID),
    nn.Tanh: lambda _: curved(torch.tanh, _TANH),
    nn.GELU: lambda layer: _gelu(layer.approximate),
    nn.SiLU: lambda _: curved(F.silu, _SILU),
    nn.Softplus: lambda layer: curved(
        partial(F.softplus, beta=layer.beta, threshold=layer.threshold), layer.beta / 4, _SOFTPLUS_STEP / layer.beta
    ),
    nn.ELU: lambda layer: curved(F.elu, 1.0) if layer.alpha == 1 else None,
    nn.CELU: lambda layer: curved(partial(F.celu, alpha=layer.alpha), 1 / layer.alpha),
}


def _gelu(approximate: str = "none") -> Bend:
    return curved(partial(F.gelu, approximate=approximate), _GELU if approximate == "none" else _TANH_GELU)


def _plain(bend: Callable[[], Bend]) -> Callable[..., Bend]:
    """An activation without arguments, but for one that says where its result is written."""
    return lambda inplace=False: bend()  # noqa: ARG005


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Bend:  # noqa: ARG001
    return cornered(partial(F.hardtanh, min_val=min_val, max_val=max_val), min_val, max_val)


FUNCTIONS: Mapping[Callable[..., Any] | str, Callable[..., Bend]] = {
    **dict.fromkeys((torch.relu, F.relu, "relu"), _plain(rectifier)),
    **dict.fromkeys((torch.sigmoid, "sigmoid"), _plain(lambda: curved(torch.sigmoid, _SIGMOID))),
    **dict.fromkeys((torch.tanh, "tanh"), _plain(lambda: curved(torch.tanh, _TANH))),
    F.relu6: _plain(lambda: cornered(F.relu6, 0.0, 6.0)),
    F.hardtanh: _hardtanh,
    F.silu: _plain(lambda: curved(F.silu, _SILU)),
    F.gelu: _gelu,
}

AFFINE_LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Unflatten,
    nn.ZeroPad2d,
    nn.PixelShuffle,
    nn.Upsample,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
)

# Number by number, each output from the input in the same place: windows stay windows.
DIAGONAL_LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Identity, nn.Dropout, nn.Dropout2d)
DIAGONAL: tuple[Callable[..., Any] | str, ...] = (
    operator.add,
    operator.sub,
    operator.neg,
    operator.mul,
    operator.truediv,
    torch.add,
    torch.sub,
    torch.mul,
    torch.div,
    F.dropout,
    "add",
    "sub",
    "mul",
    "div",
)
RESHAPING: tuple[Callable[..., Any] | str, ...] = (
    torch.flatten,
    "view",
    "reshape",
    "flatten",
    "squeeze",
    "unsqueeze",
    "contiguous",
)
AFFINE: tuple[Callable[..., Any] | str, ...] = (
    *DIAGONAL,
    *SHAPED,
    *MOVES,
    torch.cat,
    operator.getitem,
    F.avg_pool2d,
    F.interpolate,
    torch.mean,
    torch.sum,
    "mean",
    "sum",
)
