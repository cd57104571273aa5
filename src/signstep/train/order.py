"""Which rows a step sees: a function of seed, epoch and place, so that a run can begin anywhere."""

import torch
from torch import Tensor

from signstep.core.keys import Key


def split(rows: int, share: float, key: Key) -> tuple[Tensor, Tensor]:
    """Row numbers to train on and row numbers to hold out, each in rising order; both by key, never by place."""
    shuffled = torch.randperm(rows, generator=_generator(key.fold("split")))
    held = 0 if share == 0 else max(1, round(share * rows))
    return shuffled[held:].sort().values, shuffled[:held].sort().values


class Order:
    """The batches of each epoch, of nearly equal size.

    Args:
        rows: how many there are.
        batch: of one step, at most.
        key: randomness.
    """

    def __init__(self, rows: int, batch: int, key: Key) -> None:
        self._rows, self._key = rows, key
        self.batches = -(-rows // batch)
        self._epoch = -1
        self._parts: tuple[Tensor, ...] = ()

    def __call__(self, visit: int) -> Tensor:
        """The rows (R,) int64 of the visit number ``visit``, counted from the first batch of the first epoch."""
        epoch, place = divmod(visit, self.batches)
        if epoch != self._epoch:
            shuffled = torch.randperm(self._rows, generator=_generator(self._key.fold("epoch", epoch)))
            self._epoch, self._parts = epoch, shuffled.tensor_split(self.batches)
        return self._parts[place]


def _generator(key: Key) -> torch.Generator:
    return torch.Generator().manual_seed(key.integer())
