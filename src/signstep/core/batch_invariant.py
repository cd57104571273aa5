"""Functions whose value at an element does not hang on where in a tensor the element stands.

torch computes some pointwise functions by one formula in the body of a vector and by another in its tail (or where a
single element is all there is): under AVX2 and AVX-512 ``softplus``, ``sigmoid``, ``pow``, ``logaddexp`` and others
differ in the last place with the number of elements. A row would then get another loss in another batch. The forms here
are made of operations that torch rounds alike everywhere: sums, products, quotients, ``exp``, ``log``, ``log1p``.
`VARIES` names what is not, and a test holds the library to it.
"""

import torch
from torch import Tensor

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
