"""The examples that a diagnosis looks at: a few of a stream, chosen by their content and the seed alone."""

from typing import NamedTuple

import torch
from torch import Tensor

from signstep.auditing.stream import Batches, Data, batches
from signstep.engine.arrays import Home
from signstep.engine.keys import Key, content_ids
from signstep.engine.threat import Threat, ThreatModel, span_of
from signstep.engine.tree import Tree, rows, take, tree_map
from signstep.errors import InputError
from signstep.messages import Arg

MOST = 128


class Chosen(NamedTuple):
    """So many examples out of ``seen``, and what is to be said of the data."""

    x: Tree
    y: Tensor | None
    seen: int
    said: tuple[str, ...]


def chosen(
    data: Data, count: int, key: Key, threat: Threat, home: Home, *, limit: int | None, ignore: int | None
) -> Chosen:
    """The ``count`` examples whose draw is smallest: the same whatever the order and the batches of the stream.

    Raises:
        InputError: no examples, or labels for some batches only.
    """
    if not 1 <= count <= MOST:
        raise InputError(Arg("examples", count), remedy=f"pass a number from 1 to {MOST}")
    stream = Batches(data, home=home, ignore=ignore)
    threats = {"": threat} if isinstance(threat, ThreatModel) else threat
    kept: tuple[Tree, Tensor | None, Tensor] | None = None
    seen = 0
    for x, y in batches(stream, limit):
        # In float64, so that ties are copies of one example.
        ids = content_ids(x, span_of(threats) if isinstance(x, Tensor) else None)
        drawn = key.fold("diagnosed").draws(ids, torch.device("cpu")).uniform("order", (2,)).double()
        rank = drawn[:, 0] + drawn[:, 1] * 2**-24
        seen += rows(x)
        kept = _merged(kept, (x, None if y is None else y.cpu(), rank), count)
    if kept is None:
        raise InputError(Arg("data"), "gave no batches", remedy="pass a list of batches, a DataLoader or (x, y)")
    return Chosen(kept[0], kept[1], seen, stream.said)


def _merged(
    old: tuple[Tree, Tensor | None, Tensor] | None, new: tuple[Tree, Tensor | None, Tensor], count: int
) -> tuple[Tree, Tensor | None, Tensor]:
    x, y, rank = new
    if old is not None:
        if (old[1] is None) != (y is None):
            raise InputError("some batches of data have labels and others None", remedy="pass labels for all or none")
        x = tree_map(lambda one, other: torch.cat([one, other]), old[0], x)
        y = None if y is None or old[1] is None else torch.cat([old[1], y])
        rank = torch.cat([old[2], rank])
    index = rank.argsort(stable=True)[:count]
    return take(x, index), None if y is None else y[index], rank[index]
