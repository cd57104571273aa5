"""Spearman's rank correlation, with its chance."""

from collections.abc import Sequence

import torch
from torch import Tensor

DRAWS = 999


def ranks(values: Tensor) -> Tensor:
    """The rank of each of the values (N,), from 0; those that are equal share their mean rank."""
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    found: Tensor = (last - (count.double() + 1) / 2)[place]
    return found


def spearman(one: Sequence[float] | Tensor, other: Sequence[float] | Tensor) -> float | None:
    """The correlation of two lists of numbers by their ranks; None where one of them has no order.

    Source: Spearman 1904, The proof and measurement of association between two things.

    >>> spearman([1, 2, 3, 4], [10, 20, 40, 30])
    0.8
    """
    a, b = (ranks(torch.as_tensor(part, dtype=torch.float64, device="cpu")) for part in (one, other))
    a, b = a - a.mean(), b - b.mean()
    length = float(a.square().sum().sqrt() * b.square().sum().sqrt())
    return None if length == 0 else round(float((a * b).sum()) / length, 12)


def chance(one: Sequence[float] | Tensor, other: Sequence[float] | Tensor) -> float:
    """How often shuffled lists are correlated as much, two-sided, of 999 shuffles and the lists themselves."""
    found = spearman(one, other)
    if found is None:
        return 1.0
    a, b = (ranks(torch.as_tensor(part, dtype=torch.float64, device="cpu")) for part in (one, other))
    a, b = a - a.mean(), b - b.mean()
    generator = torch.Generator().manual_seed(0)
    order = torch.stack(
        [torch.randperm(len(a), generator=generator, dtype=torch.int64, device="cpu") for _ in range(DRAWS)]
    )
    drawn = (a[order] * b).sum(1) / (a.square().sum().sqrt() * b.square().sum().sqrt())
    return (1 + int((drawn.abs() >= abs(found) - 1e-9).sum())) / (1 + DRAWS)
