"""An ONNX graph as a torch module that runs its nodes one after the other, with gradients."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from signstep.model.opening.onnx_operators import OPERATORS, run
from signstep.model.opening.onnx_said import Said, Unconverted

_DOMAINS = ("", "ai.onnx")
_NO_LETTER = re.compile(r"\W")  # no name of an attribute has one


@dataclass(frozen=True)
class Step:
    """A node, with the names of what goes in and comes out; what is not needed any more is dropped after it."""

    said: Said
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dropped: tuple[str, ...] = ()


class OnnxNetwork(nn.Module):
    """The nodes that one output needs; floating point initialisers are its weights.

    Args:
        steps: in the order of the graph.
        constants: initialisers by name.
        given: the name of the input.
        output: the name of the output.
    """

    def __init__(self, steps: Sequence[Step], constants: Mapping[str, Tensor], given: str, output: str) -> None:
        super().__init__()
        self._steps, self._given, self._output = tuple(steps), given, output
        self._weights: dict[str, str] = {}
        self._whole: dict[str, Tensor] = {}
        statistics = {name for step in steps if step.said.kind == "BatchNormalization" for name in step.inputs[3:]}
        for name, value in constants.items():
            if not value.is_floating_point():
                self._whole[name] = value  # sizes and places, read on the processor
                continue
            plain = f"{_NO_LETTER.sub('_', name)}_{len(self._weights)}"
            self._weights[name] = plain
            if name in statistics:
                self.register_buffer(plain, value)
            else:
                self.register_parameter(plain, nn.Parameter(value))
        types = [value.dtype for value in constants.values() if value.is_floating_point()]
        self._type = types[0] if types else torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """From inputs (R, ...) to the output."""
        known: dict[str, Tensor] = dict(self._whole)
        known |= {name: getattr(self, plain) for name, plain in self._weights.items()}
        known[self._given] = x.to(self._type)
        for step in self._steps:
            found = run(step.said, [known[name] if name else None for name in step.inputs])
            known.update(zip(step.outputs, found, strict=False))
            for name in step.dropped:
                del known[name]
        return known[self._output]


def converted(model: Any, given: str, output: str) -> OnnxNetwork:
    """The network of an ``onnx.ModelProto``, whose tensors are all inside.

    Raises:
        Unconverted: an operator has no function here.
    """
    from onnx import numpy_helper

    opset = max((part.version for part in model.opset_import if part.domain in _DOMAINS), default=1)
    if model.functions:
        raise Unconverted(f"the function {model.functions[0].name}")
    constants = {part.name: _tensor(numpy_helper.to_array(part)) for part in model.graph.initializer}
    steps = list(_needed(list(_steps(model.graph, opset)), output))
    unknown = [step.said.kind for step in steps if step.said.kind not in OPERATORS]
    if unknown:
        raise Unconverted(unknown[0])
    steps = list(_folded(steps, constants))
    used = {name for step in steps for name in step.inputs} | {output}
    kept = {name: value for name, value in constants.items() if name in used}
    return OnnxNetwork(list(_dropping(steps, kept, given, output)), kept, given, output)


def _steps(graph: Any, opset: int) -> Iterator[Step]:
    from onnx import helper, numpy_helper

    for node in graph.node:
        if node.domain not in _DOMAINS:
            raise Unconverted(f"{node.domain}.{node.op_type}")
        attributes = {}
        for part in node.attribute:
            value = helper.get_attribute_value(part)
            if part.type == part.GRAPH:
                raise Unconverted(f"{node.op_type} with a graph inside")
            if part.type == part.TENSOR:
                value = _tensor(numpy_helper.to_array(value))
            attributes[part.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        while_there = list(node.output)
        while while_there and not while_there[-1]:
            while_there.pop()
        yield Step(Said(node.op_type, attributes, opset, len(while_there)), tuple(node.input), tuple(while_there))


def _needed(steps: list[Step], output: str) -> list[Step]:
    """The steps that the output follows from."""
    wanted, kept = {output}, []
    for step in reversed(steps):
        if wanted & set(step.outputs):
            kept.append(step)
            wanted |= {name for name in step.inputs if name}
    return kept[::-1]


def _folded(steps: list[Step], constants: dict[str, Tensor]) -> Iterator[Step]:
    """The steps that hang on the input; what the others give becomes a constant."""
    for step in steps:
        if not all(name in constants or not name for name in step.inputs):
            yield step
            continue
        found = run(step.said, [constants[name] if name else None for name in step.inputs])
        constants.update(zip(step.outputs, found, strict=False))


def _dropping(steps: list[Step], constants: Mapping[str, Tensor], given: str, output: str) -> list[Step]:
    """The same with what is not needed after each step, so that a pass without gradients holds little."""
    last: dict[str, int] = {}
    for place, step in enumerate(steps):
        last |= dict.fromkeys((*step.inputs, *step.outputs), place)
    made = {name for step in steps for name in step.outputs} | {given}
    made -= {output, *constants}
    return [
        Step(step.said, step.inputs, step.outputs, tuple(name for name in made if last.get(name) == place))
        for place, step in enumerate(steps)
    ]


def _tensor(array: Any) -> Tensor:
    """A tensor of its own."""
    try:
        return torch.from_numpy(array.copy())
    except TypeError as error:
        raise Unconverted(f"a tensor of {array.dtype}") from error
