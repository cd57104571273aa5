"""Layers of ONNX graphs as functions of torch: convolutions, pools, normalisations, matrices, padding."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from signstep.model.opening.onnx_said import Function, Said, one, whole

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MEANS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_LARGEST = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _conv(said: Said, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    places = x.ndim - 2
    said.unless(places in _CONVOLUTIONS, f"{places} places")
    strides, dilations = _strides(said, places), whole(said.get("dilations", [1] * places))
    x, padding = _padded(said, x, list(weight.shape[2:]), strides, dilations, 0.0)
    made: Tensor = _CONVOLUTIONS[places](x, weight, bias, strides, padding, dilations, said.get("group", 1))
    return made


def _conv_transpose(said: Said, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    places = x.ndim - 2
    said.unless(places in _TRANSPOSED, f"{places} places")
    before, after = _pads(said, places)
    said.unless(before == after and "output_shape" not in said.attributes, "pads that differ")
    said.unless(said.get("auto_pad", "NOTSET") == "NOTSET", "auto_pad")
    more = whole(said.get("output_padding", [0] * places))
    dilations = whole(said.get("dilations", [1] * places))
    made: Tensor = _TRANSPOSED[places](
        x, weight, bias, _strides(said, places), before, more, said.get("group", 1), dilations
    )
    return made


def _max_pool(said: Said, x: Tensor) -> Tensor:
    places = x.ndim - 2
    said.unless(said.outputs == 1 and places in _LARGEST and not said.get("storage_order", 0), "indices")
    kernel, strides = whole(said.get("kernel_shape")), _strides(said, places)
    dilations = whole(said.get("dilations", [1] * places))
    x, padding = _padded(said, x, kernel, strides, dilations, float("-inf"), halves=kernel)
    made: Tensor = _LARGEST[places](x, kernel, strides, padding, dilations, bool(said.get("ceil_mode", 0)))
    return made


def _average_pool(said: Said, x: Tensor) -> Tensor:
    places = x.ndim - 2
    kernel, strides = whole(said.get("kernel_shape")), _strides(said, places)
    said.unless(places in _MEANS and set(whole(said.get("dilations", [1]))) == {1}, "dilations")
    said.unless(not said.get("ceil_mode", 0), "ceil_mode")
    pool = _MEANS[places]
    wide, padding = _padded(said, x, kernel, strides, [1] * places, 0.0, always=True)
    means: Tensor = pool(wide, kernel, strides, padding)
    if wide is x or said.get("count_include_pad", 0):
        return means
    ones, _ = _padded(said, torch.ones_like(x[:1, :1]), kernel, strides, [1] * places, 0.0, always=True)
    return means / pool(ones, kernel, strides)


def _global_average_pool(_: Said, x: Tensor) -> Tensor:
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


def _global_max_pool(_: Said, x: Tensor) -> Tensor:
    return x.amax(dim=tuple(range(2, x.ndim)), keepdim=True)


def _batch_normalisation(said: Said, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    said.unless(not said.get("training_mode", 0) and said.outputs == 1, "training_mode")
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=said.get("epsilon", 1e-5))


def _instance_normalisation(said: Said, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=said.get("epsilon", 1e-5))


def _layer_normalisation(said: Said, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    said.unless(said.outputs == 1, "its mean")
    axis = said.get("axis", -1) % x.ndim
    said.unless(scale.shape == x.shape[axis:], "a scale of another shape")
    return F.layer_norm(x, list(x.shape[axis:]), scale, bias, said.get("epsilon", 1e-5))


def _group_normalisation(said: Said, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    said.unless(said.opset >= 21, "a scale for each group")
    return F.group_norm(x, said.get("num_groups"), scale, bias, said.get("epsilon", 1e-5))


def _local_response(said: Said, x: Tensor) -> Tensor:
    size = said.get("size")
    said.unless(size % 2 == 1, "an even size")
    return F.local_response_norm(x, size, said.get("alpha", 1e-4), said.get("beta", 0.75), said.get("bias", 1.0))


def _gemm(said: Said, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if said.get("transA", 0) else a
    b = b.T if said.get("transB", 0) else b
    alpha, beta = said.get("alpha", 1.0), said.get("beta", 1.0)
    made = a @ b if alpha == 1 else alpha * (a @ b)
    return made if c is None else made + (c if beta == 1 else beta * c)


def _mat_mul(_: Said, a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


def _pad(
    said: Said, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    sizes = whole(said.get("pads") if pads is None else pads)
    filled = one(value, said.get("value", 0.0))
    places = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in whole(axes)]
    said.unless(len(sizes) == 2 * len(places), "pads for other axes")
    ends = {axis: (sizes[place], sizes[place + len(places)]) for place, axis in enumerate(places)}
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(said.get("mode", "constant"))
    said.unless(mode is not None, f"mode {said.get('mode')}")
    last = x.ndim - 2 if mode != "constant" else x.ndim
    said.unless(all(ends.get(axis, (0, 0)) == (0, 0) for axis in range(x.ndim - last)), "pads of rows or channels")
    flat = [end for axis in reversed(range(x.ndim - last, x.ndim)) for end in ends.get(axis, (0, 0))]
    return F.pad(x, flat, mode or "constant", filled if mode == "constant" else None)


def _strides(said: Said, places: int) -> list[int]:
    return whole(said.get("strides", [1] * places))


def _pads(said: Said, places: int) -> tuple[list[int], list[int]]:
    pads = whole(said.get("pads", [0] * (2 * places)))
    return pads[:places], pads[places:]


def _padded(
    said: Said,
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    value: float,
    *,
    halves: Sequence[int] | None = None,
    always: bool = False,
) -> tuple[Tensor, list[int]]:
    """The input, filled up where torch's own padding cannot do it, and what is left to that.

    Args:
        said: the node.
        x: (R, C, ...).
        kernel: sizes.
        strides: of the kernel.
        dilations: of the kernel.
        value: to fill with.
        halves: sizes whose half torch's padding must not exceed.
        always: fill up in any case.
    """
    places = len(kernel)
    before, after = _pads(said, places)
    auto = said.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        spans = [dilation * (size - 1) + 1 for size, dilation in zip(kernel, dilations, strict=True)]
        sizes = zip(x.shape[2:], strides, spans, strict=True)
        needed = [max(0, (-(-size // stride) - 1) * stride + span - size) for size, stride, span in sizes]
        less, more = [part // 2 for part in needed], [part - part // 2 for part in needed]
        before, after = (less, more) if auto == "SAME_UPPER" else (more, less)
    elif auto == "VALID":
        before, after = [0] * places, [0] * places
    inside = halves is None or all(pad <= size // 2 for pad, size in zip(before, halves, strict=True))
    if before == after and inside and not always:
        return x, before
    flat = [end for pair in zip(reversed(before), reversed(after), strict=True) for end in pair]
    return (F.pad(x, flat, value=value) if any(flat) else x), [0] * places


LAYERS: Mapping[str, Function] = MappingProxyType(
    {
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "MaxPool": _max_pool,
        "AveragePool": _average_pool,
        "GlobalAveragePool": _global_average_pool,
        "GlobalMaxPool": _global_max_pool,
        "BatchNormalization": _batch_normalisation,
        "InstanceNormalization": _instance_normalisation,
        "LayerNormalization": _layer_normalisation,
        "GroupNormalization": _group_normalisation,
        "LRN": _local_response,
        "Gemm": _gemm,
        "MatMul": _mat_mul,
        "Pad": _pad,
    }
)
