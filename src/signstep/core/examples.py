"""Examples of a data set in batches of a fixed size, however its loader cuts them; and a part of them set aside."""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn

from signstep.core.keys import Key, content_ids
from signstep.errors import InputError

Data: TypeAlias = Iterable[tuple[Tensor, Tensor | None]] | tuple[Tensor, Tensor | None]


class Pool:
    """Examples that can be read again and again, in batches of ``rows``.

    A learned change depends on which examples a step has seen together; it must not depend on how the loader cut them.

    Args:
        data: batches (x, y) that can be read more than once, or two tensors.
        rows: of a batch; the last may be smaller.
        keep: which examples belong to the pool, from a batch (x, y) to bool (R,).
        device: where batches are moved.
    """

    def __init__(self, data: Data, rows: int, device: torch.device, keep: "Keep | None" = None) -> None:
        if rows < 1:
            raise InputError(f"rows={rows}: pass the number of examples of a step, at least 1")
        if isinstance(data, Iterator):
            raise InputError(
                "data is a generator, which can be read once; pass a DataLoader, a list of batches, or (x, y)"
            )
        self._data, self._rows, self._keep, self._device = data, rows, keep, device

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
        if isinstance(self._data, tuple) and len(self._data) == 2 and isinstance(self._data[0], Tensor):
            source: Iterable[tuple[Tensor, Tensor | None]] = [(self._data[0], self._data[1])]
        else:
            source = self._data
        for batch in source:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not isinstance(batch[0], Tensor):
                raise InputError(
                    f"data yields {type(batch).__name__}; pass batches (x, y) of tensors, or (x, y) itself"
                )
            x, y = batch
            if self._keep is None:
                yield x, y
                continue
            index = self._keep(x, y).nonzero().squeeze(1)
            if len(index):
                yield x[index], None if y is None else y[index]

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
    holdout: "float | Data",
    *,
    rows: int,
    device: torch.device,
    key: Key,
    without: int | None,
    span: tuple[float, float] | None,
) -> tuple[Pool, Pool | None]:
    """The examples to learn from and those to judge by.

    Args:
        data: the examples.
        holdout: the share of ``data`` to set aside, 0 for none; or other data.
        rows: of a batch.
        device: of the model.
        key: of the split.
        without: a label to leave out.
        span: (low, high) of the inputs.

    Raises:
        InputError: a share outside 0 to 1.
    """
    if isinstance(holdout, (int, float)):
        if not 0 <= holdout < 1:
            raise InputError(f"holdout={holdout}: pass the share of examples to set aside, at least 0 and below 1")
        share = float(holdout)
        apart = Keep(key, share, aside=True, without=without, span=span)
        other = Pool(data, rows, device, apart) if share > 0 else None
    else:
        share = 0.0
        other = Pool(holdout, rows, device, Keep(key, 0.0, aside=True, without=without, span=span))
    return Pool(data, rows, device, Keep(key, share, aside=False, without=without, span=span)), other


def device_of(model: object) -> torch.device:
    """Where the model's weights are; the CPU for functions."""
    if isinstance(model, nn.Module):
        for part in (*model.parameters(), *model.buffers()):
            return part.device
    return torch.device("cpu")


def _joined(kept: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    ys = [y for _, y in kept if y is not None]
    if ys and len(ys) != len(kept):
        raise InputError("some batches of data have labels and others None; pass labels for all or for none")
    return torch.cat([x for x, _ in kept]), torch.cat(ys) if ys else None
