"""From what people call data to batches."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from signstep.core.given import plain_torch
from signstep.core.tree import Tree, rows, tree_map
from signstep.errors import InputError

Data: TypeAlias = Iterable[tuple[Tree, Tensor | None]] | tuple[Tensor, Tensor | None] | Dataset[Any]

ROWS = 256  # of a batch when the data does not come in batches


def batches(
    data: Data, limit: int | None, shard: tuple[int, int] | None = None, size: int = ROWS
) -> Iterator[tuple[Tree, Tensor | None]]:
    """Batches (x, y), at most ``limit`` examples of the data; with ``shard`` (i, n), every n-th of them from the i-th.

    ``size`` is that of a batch where the data does not come in batches but as two tensors or as a Dataset.

    Raises:
        InputError: the data does not give batches of two.
    """
    seen = 0
    for number, batch in enumerate(_as_batches(data, size)):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            kind = type(batch).__name__ + (f" of length {len(batch)}" if isinstance(batch, (tuple, list)) else "")
            raise InputError(f"data gave a {kind} as batch {number}; each batch must be a pair (x, y), y may be None")
        x, y = batch
        if not isinstance(x, (Tensor, dict)):
            raise InputError(
                f"batch {number} has inputs of type {type(x).__name__}; pass tensors, or a dict of tensors"
            )
        count = rows(x) if limit is None else min(rows(x), limit - seen)
        first, step = (0, 1) if shard is None else ((shard[0] - seen) % shard[1], shard[1])
        kept = slice(first, count, step)
        if first < count:
            yield tree_map(lambda part, kept=kept: part[kept], x), None if y is None else y[kept]
        seen += count
        if limit is not None and seen >= limit:
            return


class _Loaded:
    """torch's loader, which starts by drawing a number and cannot under every default device of the user's."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        with plain_torch():
            return iter(self._loader)


@plain_torch()
def _collated(examples: list[Any]) -> Any:
    return default_collate(examples)


def _as_batches(data: Data, size: int) -> Iterable[Any]:
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor):
        x, y = data
        if y is not None and len(y) != len(x):
            raise InputError(f"data has {len(x)} inputs and {len(y)} labels; pass one label for each input")
        starts = range(0, len(x), size)
        return ((x[start : start + size], None if y is None else y[start : start + size]) for start in starts)
    if isinstance(data, Dataset):
        return _Loaded(DataLoader(data, batch_size=size, collate_fn=_collated))
    if isinstance(data, Tensor):
        raise InputError("data is one tensor; pass (x, y), with y=None to take the model's own predictions for labels")
    return data
