"""How much a layer can stretch a change of its input: from below by search, from above by proof.

For an affine layer y = A x the Lipschitz constant in L2 is the largest singular value of A. A convolution's A is never
written down: products with A and its transpose are the layer itself and its gradient, at the real stride and padding.

    from below    ||A v|| / ||v|| for v found by power iteration
    from above    convolution: sqrt(patches in which a value takes part) * ||K||_2, with K (out, in * taps)
                  and sqrt(||A||_1 ||A||_inf) by sums of absolute weights; the smaller of the two

Sources: Sedghi, Gupta & Long 2019 (arXiv:1805.10408); Tsuzuku, Sato & Sugiyama 2018 (arXiv:1802.04034); Kim,
Papamakarios & Mnih 2021 (arXiv:2006.04710), by which dot-product attention has no finite constant.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ROUNDS = 30
# Rounding of the singular values themselves.
_ROOM = 1 + 1e-6

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_AT_MOST_ONE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Tanh, nn.Softplus, nn.ELU, nn.Identity, nn.Flatten, nn.Dropout),
    *(nn.Dropout2d, nn.Softmax, nn.LogSigmoid, nn.Unflatten),
)
# Their largest slopes, rounded up.
_SLOPES: dict[type[nn.Module], float] = {nn.Sigmoid: 0.25, nn.GELU: 1.13, nn.SiLU: 1.1, nn.Mish: 1.09}


def above(layer: nn.Module, shape: tuple[int, ...]) -> float | None:
    """No less than the Lipschitz constant of a layer in evaluation mode; inf where it has none, None if not known.

    Args:
        layer: any module without children, or attention.
        shape: of its input, without rows.
    """
    found: float | None = None
    if isinstance(layer, nn.Linear):
        found = float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2)) * _ROOM
    elif isinstance(layer, _CONVS):
        found = _convolution(layer, shape)
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        found = _normalised(layer)
    elif isinstance(layer, nn.LayerNorm):
        weight = 1.0 if layer.weight is None else float(layer.weight.detach().double().abs().max())
        found = weight / math.sqrt(layer.eps) * _ROOM if layer.eps > 0 else math.inf
    elif is_attention(layer):
        found = math.inf
    elif isinstance(layer, (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d)):
        found = _pooled(layer)
    elif isinstance(layer, nn.LeakyReLU):
        found = max(1.0, abs(layer.negative_slope))
    elif isinstance(layer, nn.ELU):
        found = max(1.0, abs(layer.alpha))
    elif isinstance(layer, _AT_MOST_ONE):
        found = 1.0
    else:
        found = _SLOPES.get(type(layer))
    return found


def is_attention(layer: nn.Module) -> bool:
    """Whether a layer weighs values by products of queries and keys."""
    return isinstance(layer, nn.MultiheadAttention) or type(layer).__name__.lower().endswith("attention")


def below(layer: nn.Module, shape: tuple[int, ...], *, rounds: int = ROUNDS) -> float | None:
    """No more than the Lipschitz constant of an affine layer in L2: a change that it stretches so; None for others."""
    if not isinstance(layer, (nn.Linear, nn.AvgPool1d, nn.AvgPool2d, *_CONVS)):
        return None
    weight = next(iter(layer.parameters()), None)
    home: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    if weight is not None:
        home = {"dtype": weight.dtype, "device": weight.device}
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(1, *shape, generator=generator, dtype=torch.float32, device="cpu").to(**home)
    found = 0.0
    with torch.enable_grad(), torch.inference_mode(False):
        linear = _linear(layer, torch.zeros_like(v))
        for _ in range(rounds):
            length = float(v.double().norm())
            if length == 0 or not math.isfinite(length):
                break
            u = (v / length).detach().requires_grad_()
            out = linear(u)
            found = max(found, float(out.detach().double().norm() / u.detach().double().norm()))
            (v,) = torch.autograd.grad(out.square().sum() / 2, u)
    return found


def _linear(layer: nn.Module, zero: Tensor) -> Callable[[Tensor], Tensor]:
    """The layer without its offset."""
    if isinstance(layer, nn.Linear):
        return lambda u: functional.linear(u, layer.weight.detach())
    with torch.no_grad():
        offset = layer(zero)
    return lambda u: layer(u) - offset


def _convolution(layer: Any, shape: tuple[int, ...]) -> float:
    weight = layer.weight.detach().double()
    groups, taps = layer.groups, weight.shape[2:]
    often = 1
    for size, stride, apart in zip(taps, layer.stride, layer.dilation, strict=True):
        places = [(tap * apart) % stride for tap in range(size)]
        often *= max(places.count(place) for place in set(places))
    parts = weight.reshape(groups, weight.shape[0] // groups, -1)
    patches = math.sqrt(often) * float(torch.linalg.matrix_norm(parts, 2).max())
    rows = float(weight.abs().flatten(1).sum(1).max())
    # Of what one input value gives to all outputs: all taps, over the outputs of its group.
    columns = float(weight.reshape(groups, -1, weight.shape[1], math.prod(taps)).abs().sum(3).sum(1).max())
    return min(patches, math.sqrt(rows * columns)) * _padded(layer, shape) * _ROOM


def _padded(layer: Any, shape: tuple[int, ...]) -> float:
    """How much the padding stretches: sqrt of how often a value is repeated by it; 1 for zeros."""
    if layer.padding_mode == "zeros":
        return 1.0
    with torch.enable_grad(), torch.inference_mode(False):
        one = torch.ones(1, *shape, dtype=torch.float64, device="cpu", requires_grad=True)
        wide = functional.pad(one, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        (often,) = torch.autograd.grad(wide.sum(), one)
    return math.sqrt(float(often.max()))


def _normalised(layer: Any) -> float | None:
    if layer.running_var is None:
        return None
    scale = (layer.running_var.detach().double() + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight.detach().double().abs()
    return float(scale.max()) * _ROOM


def _pooled(layer: Any) -> float:
    def each(value: Any) -> tuple[int, ...]:
        dims = 1 if isinstance(layer, (nn.MaxPool1d, nn.AvgPool1d)) else 2
        return (int(value),) * dims if isinstance(value, int) else tuple(value)

    size, stride = each(layer.kernel_size), each(layer.stride)
    apart = each(getattr(layer, "dilation", 1))
    often = 1
    for taps, step, gap in zip(size, stride, apart, strict=True):
        places = [(tap * gap) % step for tap in range(taps)]
        often *= max(places.count(place) for place in set(places))
    average = isinstance(layer, (nn.AvgPool1d, nn.AvgPool2d))
    taken = math.prod(size)
    if average and getattr(layer, "divisor_override", None):
        return float(math.sqrt(often * taken) / layer.divisor_override * _ROOM)
    if average and not layer.count_include_pad and any(each(layer.padding)):
        return math.sqrt(often) * _ROOM  # a corner may be the mean of one value
    return math.sqrt(often / (taken if average else 1)) * _ROOM
