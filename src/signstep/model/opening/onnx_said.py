"""What a node of an ONNX graph says, and how its inputs are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

Function: TypeAlias = Callable[..., Tensor | tuple[Tensor, ...]]


class Unconverted(Exception):  # noqa: N818
    """A graph that has no counterpart in torch here; the text names the operator."""


@dataclass(frozen=True)
class Said:
    """A node.

    Attributes:
        kind: the name of the operator.
        attributes: by name, as plain values; tensors as tensors.
        opset: the version of the standard.
        outputs: how many are asked for.
    """

    kind: str
    attributes: Mapping[str, Any]
    opset: int
    outputs: int = 1

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or what holds where it is not there."""
        return self.attributes.get(name, default)

    def number(self, name: str, default: float) -> float:
        """An attribute that is a number."""
        return float(self.attributes.get(name, default))

    def unless(self, fits: bool, what: str) -> None:
        """See that the node says nothing that its function does not do.

        Raises:
            Unconverted: it does.
        """
        if not fits:
            raise Unconverted(f"{self.kind} with {what}")


def whole(values: Tensor | list[int] | tuple[int, ...]) -> list[int]:
    """Whole numbers that a graph computes: sizes, axes, pads."""
    if not isinstance(values, Tensor):
        return [int(value) for value in values]
    if values.is_floating_point() or values.requires_grad:
        raise Unconverted("sizes that follow from the input's values")
    return [int(value) for value in values.reshape(-1).tolist()]


def one(value: Tensor | float | None, default: float) -> float:
    """A number that a graph holds."""
    if value is None:
        return default
    return float(value.detach().reshape(-1)[0]) if isinstance(value, Tensor) else float(value)


def beside(values: Tensor, other: Tensor) -> Tensor:
    """Values on the device of others: small constants are kept on the processor."""
    return values if values.device == other.device else values.to(other.device)


def number_type(code: int) -> torch.dtype:
    """The type that ONNX numbers so.

    Raises:
        Unconverted: torch has none.
    """
    if code not in _TYPES:
        raise Unconverted(f"Cast to the type {code}")
    return _TYPES[code]


_TYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
