"""MobileNetV2 for photographs, built from a file of weights and a list of operations; nothing is unpickled.

Source: Sandler et al. (2018), "MobileNetV2: Inverted Residuals and Linear Bottlenecks". The files are those of
``../shared/models``: ``NAME.npz`` holds ``KEY.weight`` and ``KEY.bias`` with BatchNorm folded in, and ``NAME_ops.json``
says what is done with them, in the vocabulary of TensorFlow Lite.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from signstep.errors import LoadError
from signstep.io.documents import read_json
from signstep.io.files import expanded

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_PLAIN = ("ADD", "AVERAGE_POOL_2D", "RESHAPE", "SOFTMAX")
_ACTS = ("none", "relu6")
_REMEDY = "pass the folder that holds both files of the model, such as --model-arg folder=../shared/models"


def mobilenet_v2(folder: str | Path, name: str = "mobilenet_v2_1.0_224") -> nn.Module:
    """The network behind ``folder/name.npz`` and ``folder/name_ops.json``, in evaluation mode.

    It takes RGB in [0, 1], (B, 3, 224, 224), brings it to [-1, 1] itself and returns logits; the softmax that ends the
    list of operations is left out. Of its 1001 classes number 0 is "background", so ImageNet's class k is k + 1.

    Raises:
        LoadError: If a file is missing or damaged, or the two do not fit.

    Example:
        ``signstep audit --model signstep.networks.mobilenet:mobilenet_v2 --model-arg folder=../shared/models ...``
    """
    where = expanded(folder)
    arrays, ops = where / f"{name}.npz", where / f"{name}_ops.json"
    for path in (arrays, ops):
        if not path.is_file():
            raise LoadError(f"the file {path} does not exist", remedy=_REMEDY)
    start, steps = _steps(ops)
    return _Network(start, steps, _convolutions(arrays, steps)).eval()


@dataclass(frozen=True)
class _Step:
    """One operation: values are known by number; a convolution has weights under its key."""

    op: str
    inputs: tuple[int, ...]
    out: int
    key: str = ""
    stride: int = 1
    act: str = "none"


class _SameConv(nn.Module):
    """A convolution with TensorFlow's SAME padding, of which the odd row and column go below and to the right."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, groups: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.stride, self.groups = stride, groups

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = self._padding(x.shape[2], self.weight.shape[2])
        left, right = self._padding(x.shape[3], self.weight.shape[3])
        if (top, left) == (bottom, right):
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)

    def _padding(self, size: int, kernel: int) -> tuple[int, int]:
        whole = max(0, (-(-size // self.stride) - 1) * self.stride + kernel - size)
        return whole // 2, whole - whole // 2


class _Network(nn.Module):
    """Runs the steps in their order and lets go of each value after its last use."""

    def __init__(self, start: int, steps: tuple[_Step, ...], convolutions: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for key, convolution in convolutions.items():
            self.add_module(key, convolution)
        self._start, self._steps = start, steps
        last = {number: place for place, step in enumerate(steps) for number in step.inputs}
        self._done = [[number for number, end in last.items() if end == place] for place in range(len(steps))]

    def forward(self, x: Tensor) -> Tensor:
        out = x * 2 - 1
        values = {self._start: out}
        for step, done in zip(self._steps, self._done, strict=True):
            out = self._run(step, [values[number] for number in step.inputs])
            for number in done:
                del values[number]
            values[step.out] = out
        return out

    def _run(self, step: _Step, given: list[Tensor]) -> Tensor:
        first = given[0]
        match step.op:
            case "ADD":
                first = first + given[1]
            case "AVERAGE_POOL_2D":
                first = first.mean((2, 3), keepdim=True)
            case "RESHAPE":
                first = first.flatten(1)
            case _:
                first = self.get_submodule(step.key)(first)
        return F.relu6(first) if step.act == "relu6" else first


def _steps(path: Path) -> tuple[int, tuple[_Step, ...]]:
    """The number of the input, and the operations up to a final softmax."""
    try:
        content: dict[str, Any] = read_json(path, "the list of operations")
        start, steps = int(content["input"]), tuple(_step(entry) for entry in content["ops"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadError(
            f"{path} is no list of operations ({type(error).__name__}: {error})", remedy="download it again"
        ) from error
    known = {start}
    for place, step in enumerate(steps):
        if not known.issuperset(step.inputs):
            raise LoadError(
                f"{path}: operation {place} takes a value that none before it gives", remedy="download the file again"
            )
        known.add(step.out)
    if steps and steps[-1].op == "SOFTMAX":
        steps = steps[:-1]
    if not steps or any(step.op == "SOFTMAX" for step in steps):
        raise LoadError(f"{path}: a softmax must come last, behind other operations", remedy="pass another file")
    return start, steps


def _step(entry: Mapping[str, Any]) -> _Step:
    op, inputs = entry["op"], tuple(int(number) for number in entry["inputs"])
    if op not in (*_CONVOLUTIONS, *_PLAIN):
        raise ValueError(f"the operation {op!r} is not known here")
    if len(inputs) != (2 if op == "ADD" else 1):
        raise ValueError(f"{op} with {len(inputs)} inputs")
    act, stride = entry.get("act", "none"), int(entry.get("stride", 1))
    if act not in _ACTS or entry.get("pad", "SAME") != "SAME" or stride < 1:
        raise ValueError(f"{op} with act {act!r}, pad {entry.get('pad')!r}, stride {stride}")
    return _Step(op, inputs, int(entry["out"]), str(entry["key"]) if op in _CONVOLUTIONS else "", stride, act)


def _convolutions(path: Path, steps: tuple[_Step, ...]) -> dict[str, nn.Module]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise LoadError(f"{path} cannot be read as a NumPy archive ({error})", remedy="download it again") from error
    return {step.key: _layer(path, step, arrays) for step in steps if step.key}


def _layer(path: Path, step: _Step, arrays: Mapping[str, Tensor]) -> nn.Module:
    names = f"{step.key}.weight", f"{step.key}.bias"
    for name in names:
        if name not in arrays:
            raise LoadError(
                f"{path} has no {name}, which the list of operations asks for", remedy="pass two files that belong"
            )
        if not arrays[name].is_floating_point() or not torch.isfinite(arrays[name]).all():
            raise LoadError(f"{path}: {name} holds something else than finite floats", remedy="download the file again")
    weight, bias = (arrays[name].float() for name in names)
    depthwise = step.op == "DEPTHWISE_CONV_2D"
    if weight.ndim != 4 or bias.shape != weight.shape[:1] or (depthwise and weight.shape[1] != 1):
        raise LoadError(
            f"{path}: {names[0]} {tuple(weight.shape)} and {names[1]} {tuple(bias.shape)} do not make a {step.op}",
            remedy="pass two files that belong",
        )
    return _SameConv(weight, bias, step.stride, len(weight) if depthwise else 1)
