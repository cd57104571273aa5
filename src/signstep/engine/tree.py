"""A handful of functions over a tensor or a dict of tensors, so that one loop serves models with several inputs.

A *tree* is a tensor or a dict from input name to tensor. Every leaf has the same number of rows (its first dimension).
A dict may hold, beside its leaves, what is no tensor (None, a number, text): it is the same for every row, and goes
through all of these functions as it is.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from signstep.engine.batch_invariant import row_sum

Tree: TypeAlias = Tensor | dict[str, Tensor]


def leaves(tree: Tree) -> list[Tensor]:
    """The tensors of a tree, in the order of its names."""
    return [part for part in tree.values() if isinstance(part, Tensor)] if isinstance(tree, dict) else [tree]


def rows(tree: Tree) -> int:
    """The number of rows R that every leaf shares."""
    return leaves(tree)[0].shape[0]


def tree_map(function: Callable[..., Tensor], tree: Tree, *others: Tree) -> Tree:
    """Apply ``function`` leaf by leaf; all trees must have the same names."""
    return function(tree, *others) if isinstance(tree, Tensor) else named_map(function, tree, *others)


def named_map(function: Callable[..., Tensor], tree: dict[str, Tensor], *others: Tree) -> dict[str, Tensor]:
    """`tree_map` of a dict."""
    return {
        name: function(leaf, *(_named(other, name) for other in others)) if isinstance(leaf, Tensor) else leaf
        for name, leaf in tree.items()
    }


def take(tree: Tree, index: Tensor) -> Tree:
    """The rows of ``tree`` at ``index`` (int64); repeats are allowed."""
    return tree_map(lambda leaf: leaf.index_select(0, index), tree)


def put(tree: Tree, index: Tensor, values: Tree) -> None:
    """Write the rows of ``values`` into ``tree`` at ``index``, in place."""
    tree_map(lambda leaf, value: leaf.index_copy_(0, index, value), tree, values)


def per_row(vector: Tensor, like: Tensor) -> Tensor:
    """View ``vector`` (R,) so that it broadcasts over ``like`` (R, ...)."""
    return vector.reshape(-1, *([1] * (like.ndim - 1)))


def unit_l1(gradient: Tree) -> Tree:
    """Each row divided by its L1 length, without underflow; a zero gradient stays zero."""
    parts = leaves(gradient)
    largest = torch.stack([part.abs().flatten(1).amax(1) for part in parts]).amax(0)
    largest = torch.where(largest > 0, largest, 1.0)
    scaled = tree_map(lambda part: part / per_row(largest, part), gradient)
    total = torch.stack([row_sum(part.abs()) for part in leaves(scaled)]).sum(0)
    total = torch.where(total > 0, total, 1.0)
    return tree_map(lambda part: part / per_row(total, part), scaled)


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float64, on the CPU where the device has no float64 (Apple's MPS)."""
    return tensor.cpu().double() if tensor.device.type == "mps" else tensor.double()


def search_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision a search runs in: at least float32, since eps*sign(g) vanishes in half precision."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _named(tree: Tree, name: str) -> Tensor:
    if not isinstance(tree, Mapping):
        raise TypeError(f"expected a dict with {name!r}, got a tensor")
    return tree[name]
