"""Functions whose value at an element does not hang on where in a tensor the element stands.

torch computes some pointwise functions by one formula in the body of a vector and by another in its tail (or where a
single element is all there is): under AVX2 and AVX-512 ``softplus``, ``sigmoid``, ``pow``, ``logaddexp`` and others
differ in the last place with the number of elements. A row would then get another loss in another batch. The forms here
are made of operations that torch rounds alike everywhere: sums, products, quotients, ``exp``, ``log``, ``log1p``. Sums
over a row come in one order, whatever the number of rows and threads. `VARIES` names what is not, and a test holds the
library to it.
"""

import functools
import math

import torch
from torch import Tensor

_SHORT = 16  # rows below this length are laid out as columns

VARIES = frozenset(
    {"sigmoid", "sigmoid_", "expit", "logsigmoid", "softplus", "logaddexp", "logaddexp2", "pow", "exp2", "hypot"}
    | {"sinh", "cosh", "atan2", "elu", "celu", "selu", "gelu", "silu", "mish", "binary_cross_entropy_with_logits"}
)
"""Functions of torch whose last place was seen to depend on where in a tensor the element stands."""


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), of any shape, as max(x, 0) + log1p(exp(-|x|)); its derivative is the sigmoid, 1/2 at 0."""
    # maximum and not clamp: at a tie its derivative is 1/2, as that of the function is.
    return torch.maximum(x, torch.zeros((), dtype=x.dtype, device=x.device)) + torch.log1p(torch.exp(-x.abs()))


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), of any shape, without overflow."""
    small = torch.exp(-x.abs())
    return torch.where(x >= 0, torch.ones((), dtype=x.dtype, device=x.device), small) / (1 + small)


def power(x: Tensor, exponent: float) -> Tensor:
    """x to the ``exponent``, of any shape, for x >= 0 and an exponent above 0."""
    return torch.exp(torch.log(x) * exponent)


def row_sum(values: Tensor) -> Tensor:
    """The sum of each row of values (R, ...), shape (R,), the same whatever other rows there are."""
    return line_sum(lines(values))[:, 0]


def lines(values: Tensor) -> Tensor:
    """One line per row, (R, D), always with the same strides, which decide the order in which torch sums.

    Short rows (a pixel, an atom) are stored as columns: torch then works on many of them at once, three times faster.
    """
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    return flat.T.contiguous().T if flat.shape[1] < _SHORT else flat.contiguous()


def line_sum(flat: Tensor) -> Tensor:
    """The sum of each of `lines`, (R, 1), in an order that does not depend on R."""
    if flat.shape[1] < _SHORT:
        return functools.reduce(torch.add, (flat[:, i : i + 1] for i in range(flat.shape[1])))
    # Torch splits a long row over its threads if it is the only one: so it never is.
    return flat.sum(1, keepdim=True) if len(flat) != 1 else flat.expand(2, -1).sum(1, keepdim=True)[:1]
