"""A function on NumPy arrays as a model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from signstep.errors import InputError, ModelError
from signstep.messages import Arg

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ArrayVictim:
    """Calls ``function`` on arrays (R, ...) in pieces of at most ``batch`` rows; what it returns has R rows.

    Attributes:
        function: from an array of inputs to an array of scores (R, classes), or of integer labels (R,).
        batch: rows of a call at most, or None for all at once.
        dtype: of the arrays that the function is given, or None for that of the tensor.
    """

    gradients: ClassVar[bool] = False
    function: Callable[[Array], Any]
    batch: int | None = None
    dtype: str | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Scores or labels of a batch, on its device; no gradient passes.

        Raises:
            ModelError: the function returned something else than one row for each input.
        """
        inputs = x.detach().cpu()
        array: Array = (inputs.float() if inputs.dtype == torch.bfloat16 else inputs).numpy()
        if self.dtype is not None:
            array = array.astype(self.dtype)
        size = self.batch or max(1, len(array))
        parts = [self._ask(array[start : start + size]) for start in range(0, len(array), size)]
        return torch.from_numpy(np.concatenate(parts)).to(x.device)

    def _ask(self, part: Array) -> Array:
        answer = np.asarray(self.function(np.ascontiguousarray(part)))
        if answer.shape[:1] != (len(part),) or answer.dtype.kind not in "fiub":
            raise ModelError(
                f"the function returned an array of shape {answer.shape} and type {answer.dtype} for "
                f"{len(part)} inputs",
                remedy="return scores (inputs, classes) or whole-number labels (inputs,)",
            )
        # Unsigned and boolean labels have no counterpart that torch indexes with.
        return answer if answer.dtype.kind == "f" else answer.astype(np.int64)


def from_numpy(function: Callable[[Array], Any], *, batch: int | None = None, dtype: str | None = None) -> ArrayVictim:
    """A model from any function on NumPy arrays.

    Args:
        function: from inputs (R, ...) to scores (R, classes) or integer labels (R,).
        batch: rows of a call at most, or None for all at once.
        dtype: such as "float64", if the function needs another type than the inputs have.

    Raises:
        InputError: ``function`` cannot be called, or batch is below 1.

    Example:
        >>> import numpy as np, torch
        >>> victim = from_numpy(lambda x: x @ np.eye(3), dtype="float64")
        >>> victim(torch.eye(3)).argmax(1)
        tensor([0, 1, 2])
    """
    if not callable(function):
        raise InputError(
            Arg("function"), f"is a {type(function).__name__}", remedy="pass a function from arrays to arrays"
        )
    checked_batch(batch)
    return ArrayVictim(function, batch, dtype)


def checked_batch(batch: int | None) -> None:
    """See that a number of rows is one.

    Raises:
        InputError: it is not.
    """
    if batch is not None and batch < 1:
        raise InputError(Arg("batch", batch), remedy="pass the number of rows of a call, at least 1, or None")
