"""Operators of ONNX graphs as functions of torch, by name; from the standard (onnx.ai/onnx/operators).

A function gets what the node says (`Said`) and its inputs, None for one that is left out, and returns its outputs. What
it does not do it refuses with `Unconverted`. Whether it does the rest as ONNX Runtime does is seen by running the whole
graph beside it.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from signstep.model.opening.onnx_layers import LAYERS
from signstep.model.opening.onnx_said import Function, Said, Unconverted, beside, number_type, one, whole

# Elements that a graph of constants may ask for.
_MOST = 2**28


def _plain(function: Callable[..., Tensor]) -> Function:
    """A function of the inputs alone, which may lie on different devices where one is a small constant."""

    def apply(_: Said, *inputs: Tensor) -> Tensor:
        at = next((part for part in inputs if part.device.type != "cpu"), inputs[0])
        return function(*(beside(part, at) for part in inputs))

    return apply


def _unary(function: Callable[[Tensor], Tensor]) -> Function:
    return lambda _, x: function(x)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """Of two inputs or more, one after the other."""

    def apply(_: Said, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = function(first, beside(other, first))
        return first

    return apply


def _divided(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _leaky(said: Said, x: Tensor) -> Tensor:
    return F.leaky_relu(x, said.get("alpha", 0.01))


def _elu(said: Said, x: Tensor) -> Tensor:
    return F.elu(x, said.get("alpha", 1.0))


def _selu(said: Said, x: Tensor) -> Tensor:
    alpha, gamma = said.number("alpha", 1.6732632), said.number("gamma", 1.0507010)
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x))


def _hard_sigmoid(said: Said, x: Tensor) -> Tensor:
    return (said.number("alpha", 0.2) * x + said.number("beta", 0.5)).clamp(0, 1)


def _gelu(said: Said, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=said.get("approximate", "none"))


def _prelu(_: Said, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * beside(slope, x), x)


def _softmax(function: Callable[..., Tensor]) -> Function:
    def apply(said: Said, x: Tensor) -> Tensor:
        if said.opset >= 13:
            return function(x, dim=said.get("axis", -1))
        axis = said.get("axis", 1) % x.ndim
        if axis == x.ndim - 1:
            return function(x, dim=-1)
        return function(x.flatten(axis), dim=-1).reshape(x.shape)

    return apply


def _clip(said: Said, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    ends = one(low, said.get("min", -math.inf)), one(high, said.get("max", math.inf))
    return x.clamp(*ends)


def _cast(said: Said, x: Tensor) -> Tensor:
    return x.to(number_type(said.get("to")))


def _dropout(said: Said, x: Tensor, *_: Tensor | None) -> Tensor:
    said.unless(said.outputs == 1, "its mask")
    return x


def _where(_: Said, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    at = next((part for part in (x, y, condition) if part.device.type != "cpu"), x)
    return torch.where(beside(condition, at), beside(x, at), beside(y, at))


# Shapes.


def _flatten(said: Said, x: Tensor) -> Tensor:
    axis = said.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1) if axis else x.reshape(1, -1)


def _reshape(said: Said, x: Tensor, shape: Tensor) -> Tensor:
    sizes = whole(shape)
    if not said.get("allowzero", 0):
        sizes = [x.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
    return x.reshape(sizes)


def _transpose(said: Said, x: Tensor) -> Tensor:
    return x.permute(*said.get("perm", range(x.ndim)[::-1]))


def _concat(said: Said, *parts: Tensor) -> Tensor:
    at = next((part for part in parts if part.device.type != "cpu"), parts[0])
    return torch.cat([beside(part, at) for part in parts], dim=said.get("axis"))


def _split(said: Said, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = said.get("axis", 0)
    given = said.get("split") if sizes is None else sizes
    if given is not None:
        return tuple(torch.split(x, whole(given), dim=axis))
    return tuple(torch.split(x, -(-x.shape[axis] // said.get("num_outputs", said.outputs)), dim=axis))


def _slice(
    said: Said,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    begin, end = (
        whole(said.get(name) if part is None else part) for name, part in (("starts", starts), ("ends", ends))
    )
    along = said.get("axes", list(range(len(begin)))) if axes is None else axes
    by = [1] * len(begin) if steps is None else whole(steps)
    for first, last, axis, step in zip(begin, end, whole(along), by, strict=True):
        size = x.shape[axis]
        places = range(size)[slice(first, None if step < 0 and last < -size else last, step)]
        if step > 0:
            x = x.narrow(axis, places.start, max(0, places.stop - places.start)) if places else x.narrow(axis, 0, 0)
            x = x[(slice(None),) * (axis % x.ndim) + (slice(None, None, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=x.device))
    return x


def _squeeze(said: Said, x: Tensor, axes: Tensor | None = None) -> Tensor:
    given = said.get("axes") if axes is None else axes
    places = [place for place, size in enumerate(x.shape) if size == 1] if given is None else whole(given)
    return x.squeeze(tuple(place % x.ndim for place in places)) if places else x


def _unsqueeze(said: Said, x: Tensor, axes: Tensor | None = None) -> Tensor:
    given = whole(said.get("axes") if axes is None else axes)
    for place in sorted(place % (x.ndim + len(given)) for place in given):
        x = x.unsqueeze(place)
    return x


def _gather(said: Said, x: Tensor, index: Tensor) -> Tensor:
    axis = said.get("axis", 0) % x.ndim
    places = beside(torch.where(index < 0, index + x.shape[axis], index), x)
    found = x.index_select(axis, places.reshape(-1).long())
    return found.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def _shape(said: Said, x: Tensor) -> Tensor:
    sizes = list(x.shape)[said.get("start", 0) : said.get("end", None)]
    return torch.tensor(sizes, dtype=torch.int64, device="cpu")


def _expand(_: Said, x: Tensor, shape: Tensor) -> Tensor:
    wide: Any = torch.broadcast_shapes(x.shape, tuple(bounded(whole(shape))))  # type: ignore[no-untyped-call]
    return x.expand(wide)


def _tile(_: Said, x: Tensor, repeats: Tensor) -> Tensor:
    times = whole(repeats)
    bounded([size * time for size, time in zip(x.shape, times, strict=True)])
    return x.repeat(times)


def _constant(said: Said) -> Tensor:
    for name, value in said.attributes.items():
        if isinstance(value, Tensor):
            return value
        if name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64, device="cpu")
        if name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=torch.float32, device="cpu")
    raise Unconverted("Constant of another kind")


def _constant_of_shape(said: Said, shape: Tensor) -> Tensor:
    value = said.get("value")
    filled = torch.zeros(1, dtype=torch.float32, device="cpu") if value is None else value
    return filled.reshape(-1)[:1].expand(math.prod(bounded(whole(shape)))).reshape(whole(shape)).clone()


def bounded(shape: list[int]) -> list[int]:
    """A shape that a graph asks for.

    Raises:
        Unconverted: it is too large to be meant.
    """
    if math.prod(max(1, size) for size in shape) > _MOST:
        raise Unconverted(f"a tensor of shape {tuple(shape)}")
    return shape


# Reductions.


def _reduced(function: Callable[[Tensor, list[int], bool], Tensor]) -> Function:
    def apply(said: Said, x: Tensor, axes: Tensor | None = None) -> Tensor:
        given = said.get("axes") if axes is None else axes
        places = [] if given is None else whole(given)
        if not places and said.get("noop_with_empty_axes", 0):
            return x
        return function(x, places or list(range(x.ndim)), bool(said.get("keepdims", 1)))

    return apply


def _arg_max(said: Said, x: Tensor) -> Tensor:
    said.unless(not said.get("select_last_index", 0), "select_last_index")
    return x.argmax(said.get("axis", 0), bool(said.get("keepdims", 1)))


_OTHERS: dict[str, Function] = {
    "Add": _plain(torch.add),
    "Sub": _plain(torch.sub),
    "Mul": _plain(torch.mul),
    "Div": _plain(_divided),
    "Pow": _plain(lambda x, y: torch.pow(x, y.to(x.dtype) if x.is_floating_point() else y)),
    "Max": _folded(torch.maximum),
    "Min": _folded(torch.minimum),
    "Sum": _folded(torch.add),
    "Equal": _plain(torch.eq),
    "Greater": _plain(torch.gt),
    "Less": _plain(torch.lt),
    "Not": _unary(torch.logical_not),
    "And": _plain(torch.logical_and),
    "Neg": _unary(torch.neg),
    "Abs": _unary(torch.abs),
    "Sqrt": _unary(torch.sqrt),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Erf": _unary(torch.erf),
    "Reciprocal": _unary(torch.reciprocal),
    "Floor": _unary(torch.floor),
    "Relu": _unary(F.relu),
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Elu": _elu,
    "Selu": _selu,
    "Sigmoid": _unary(torch.sigmoid),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(F.hardswish),
    "Tanh": _unary(torch.tanh),
    "Softplus": _unary(F.softplus),
    "Softsign": _unary(F.softsign),
    "Mish": _unary(F.mish),
    "Gelu": _gelu,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Clip": _clip,
    "Identity": _unary(lambda x: x),
    "Dropout": _dropout,
    "Cast": _cast,
    "Where": _where,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Gather": _gather,
    "Shape": _shape,
    "Expand": _expand,
    "Tile": _tile,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceL2": _reduced(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)),
    "ArgMax": _arg_max,
}

OPERATORS: Mapping[str, Function] = MappingProxyType({**LAYERS, **_OTHERS})


def run(said: Said, inputs: list[Tensor | None]) -> tuple[Tensor, ...]:
    """The outputs of a node.

    Raises:
        Unconverted: there is no function for it, or it says what that does not do.
    """
    function: Any = OPERATORS.get(said.kind)
    if function is None:
        raise Unconverted(said.kind)
    try:
        found = function(said, *inputs)
    except Exception as error:
        error.add_note(f"in the ONNX operator {said.kind}")
        raise
    return found if isinstance(found, tuple) else (found,)
