"""A part of a stream of batches: so many examples, every n-th of them, or a run of them."""

from collections.abc import Iterator

from torch import Tensor

from signstep.auditing.parts import Part
from signstep.data.forms import ROWS, Batches, Data
from signstep.engine.tree import Tree, rows, tree_map

__all__ = ["ROWS", "Batches", "Data", "batches"]


def batches(
    data: Data | Batches, limit: int | None, shard: Part | None = None, size: int = ROWS
) -> Iterator[tuple[Tree, Tensor | None]]:
    """Batches (x, y), at most ``limit`` examples of the data; with ``shard`` (i, n), every n-th of them from the i-th.

    With a range, those of them that lie in it.

    ``size`` is that of a batch where the data does not come in batches.

    Raises:
        InputError: the data does not give batches of two.
    """
    read = data if isinstance(data, Batches) else Batches(data, size)
    seen = read.first_row
    for x, y in read:
        count = rows(x) if limit is None else min(rows(x), limit - seen)
        if isinstance(shard, range):
            kept = slice(max(0, shard.start - seen), min(count, shard.stop - seen))
        else:
            kept = slice(0, count) if shard is None else slice((shard[0] - seen) % shard[1], count, shard[1])
        if kept.start < kept.stop:
            yield tree_map(lambda part, kept=kept: part[kept], x), None if y is None else y[kept]
        seen += count
        if (limit is not None and seen >= limit) or (isinstance(shard, range) and seen >= shard.stop):
            return
