"""A part of a stream of batches: so many examples, or every n-th of them."""

from collections.abc import Iterator

from torch import Tensor

from signstep.data.forms import ROWS, Batches, Data
from signstep.engine.tree import Tree, rows, tree_map

__all__ = ["ROWS", "Batches", "Data", "batches"]


def batches(
    data: Data | Batches, limit: int | None, shard: tuple[int, int] | None = None, size: int = ROWS
) -> Iterator[tuple[Tree, Tensor | None]]:
    """Batches (x, y), at most ``limit`` examples of the data; with ``shard`` (i, n), every n-th of them from the i-th.

    ``size`` is that of a batch where the data does not come in batches.

    Raises:
        InputError: the data does not give batches of two.
    """
    seen = 0
    for x, y in data if isinstance(data, Batches) else Batches(data, size):
        count = rows(x) if limit is None else min(rows(x), limit - seen)
        first, step = (0, 1) if shard is None else ((shard[0] - seen) % shard[1], shard[1])
        kept = slice(first, count, step)
        if first < count:
            yield tree_map(lambda part, kept=kept: part[kept], x), None if y is None else y[kept]
        seen += count
        if limit is not None and seen >= limit:
            return
