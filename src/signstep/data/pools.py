"""Examples of a data set in batches of a fixed size, however its loader cuts them; and a part of them set aside."""

from collections.abc import Iterator

import torch
from torch import Tensor

from signstep.data.forms import Batches, Data, is_once
from signstep.engine.arrays import Home
from signstep.engine.keys import Key, content_ids
from signstep.errors import InputError
from signstep.messages import Arg

__all__ = ["Data", "Keep", "Pool", "pools"]


class Pool:
    """Examples that can be read again and again, in batches of ``rows``.

    A learned change depends on which examples a step has seen together; it must not depend on how the loader cut them.

    Args:
        data: batches (x, y) that can be read more than once, or two tensors; any form of `data.forms`.
        rows: of a batch; the last may be smaller.
        home: where batches are moved, and the precision of arrays that are no tensors.
        keep: which examples belong to the pool, from a batch (x, y) to bool (R,).
        ignore: the label of examples that belong to no pool.

    Attributes:
        batches: what is read, with its notes and counts.
    """

    def __init__(
        self, data: Data, rows: int, home: Home, keep: "Keep | None" = None, *, ignore: int | None = None
    ) -> None:
        if rows < 1:
            raise InputError(Arg("rows", rows), remedy="pass the number of examples of a step, at least 1")
        if is_once(data):
            raise InputError(
                Arg("data"),
                "is a generator, which can be read once",
                remedy="pass a DataLoader, a list of batches, or (x, y)",
            )
        self.batches = Batches(data, home=Home(device=torch.device("cpu"), dtype=home.dtype), ignore=ignore)
        self._rows, self._keep, self._device = rows, keep, home.device

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        kept: list[tuple[Tensor, Tensor | None]] = []
        waiting = 0
        for x, y in self._parts():
            kept.append((x, y))
            waiting += len(x)
            while waiting >= self._rows:
                x_all, y_all = _joined(kept)
                yield self._moved(x_all[: self._rows], None if y_all is None else y_all[: self._rows])
                kept = [(x_all[self._rows :], None if y_all is None else y_all[self._rows :])]
                waiting -= self._rows
        if waiting:
            yield self._moved(*_joined(kept))

    def _parts(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for x, y in self.batches:
            if not isinstance(x, Tensor):
                raise InputError(
                    Arg("data"), f"has a dict of the inputs {list(x)}", remedy="pass examples with one input tensor"
                )
            if self._keep is None:
                yield x, y
                continue
            index = self._keep(x, y).nonzero().squeeze(1).to(x.device)
            if len(index):
                yield x[index], None if y is None else y[index.to(y.device)]

    def _moved(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return x.to(self._device), None if y is None else y.to(self._device)


class Keep:
    """Which examples of a batch belong to one side of a split; each example is drawn by its content and the key.

    Args:
        key: of the split.
        share: that is set aside.
        aside: True for those set aside, False for the others.
        without: a label that is left out on both sides: the class that examples are led to.
        span: (low, high) of the inputs.
    """

    def __init__(
        self, key: Key, share: float, *, aside: bool, without: int | None, span: tuple[float, float] | None
    ) -> None:
        self._key, self._share, self._aside, self._without, self._span = key, share, aside, without, span

    def __call__(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Bool (R,)."""
        kept = torch.ones(len(x), dtype=torch.bool, device="cpu")
        if self._share > 0:
            ids = content_ids(x, self._span)
            drawn = self._key.draws(ids, torch.device("cpu")).uniform("aside", (1,)).squeeze(1) < self._share
            kept = drawn if self._aside else ~drawn
        if self._without is not None and y is not None:
            kept = kept & (y.cpu() != self._without)
        return kept


def pools(
    data: Data,
    holdout: float | Data,
    *,
    rows: int,
    home: Home,
    key: Key,
    without: int | None,
    span: tuple[float, float] | None,
    ignore: int | None = None,
) -> tuple[Pool, Pool | None]:
    """The examples to learn from and those to judge by.

    Args:
        data: the examples.
        holdout: the share of ``data`` to set aside, 0 for none; or other data.
        rows: of a batch.
        home: of the model.
        key: of the split.
        without: a label to leave out.
        span: (low, high) of the inputs.
        ignore: another one.

    Raises:
        InputError: a share outside 0 to 1.
    """
    if isinstance(holdout, (int, float)):
        if not 0 <= holdout < 1:
            raise InputError(
                Arg("holdout", holdout), remedy="pass the share of examples to set aside, at least 0 and below 1"
            )
        share = float(holdout)
        apart = Keep(key, share, aside=True, without=without, span=span)
        other = Pool(data, rows, home, apart, ignore=ignore) if share > 0 else None
    else:
        share = 0.0
        other = Pool(holdout, rows, home, Keep(key, 0.0, aside=True, without=without, span=span), ignore=ignore)
    kept = Keep(key, share, aside=False, without=without, span=span)
    return Pool(data, rows, home, kept, ignore=ignore), other


def _joined(kept: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    ys = [y for _, y in kept if y is not None]
    if ys and len(ys) != len(kept):
        raise InputError("some batches of data have labels and others None", remedy="pass labels for all or for none")
    return torch.cat([x for x, _ in kept]), torch.cat(ys) if ys else None
