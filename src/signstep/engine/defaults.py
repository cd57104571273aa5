"""Values that users give (numbers, lists, NumPy arrays, tensors) as tensors, whatever torch's defaults are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def plain_tensor(value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of the values: a tensor stays where it is, everything else comes to the CPU.

    Without ``dtype`` a tensor and an array keep theirs; Python's floats become float32, its integers int64.
    ``torch.set_default_dtype`` and ``torch.set_default_device`` change nothing.

    Raises:
        TypeError, ValueError, RuntimeError: as `torch.as_tensor`, of what cannot be made a tensor.
    """
    if isinstance(value, Tensor):
        return value if dtype is None else value.to(dtype)
    if dtype is None and not hasattr(value, "__array__"):
        kind = torch.as_tensor(value, device="cpu")  # any dtype: asked for its kind alone
        if kind.is_floating_point():
            dtype = torch.float32
    return torch.as_tensor(value, dtype=dtype, device="cpu")


@contextmanager
def plain_torch() -> Iterator[None]:
    """torch's own defaults, float32 on the CPU: where the library makes and trains networks of its own.

    Never around code of the user's, which may count on the defaults that it has set.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(before)
