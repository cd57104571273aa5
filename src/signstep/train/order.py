"""Which rows a step sees: a function of seed, epoch and place, so that a run can begin anywhere."""

from collections.abc import Mapping

import torch
from torch import Tensor

from signstep.engine.keys import Key

# The chance of the easiest row to be seen in a pass: what has become hard again is found out.
_LEAST = 0.1


def split(rows: int, share: float, key: Key) -> tuple[Tensor, Tensor]:
    """Row numbers to train on and row numbers to hold out, each in rising order; both by key, never by place."""
    shuffled = torch.randperm(rows, generator=_generator(key.fold("split")), dtype=torch.int64, device="cpu")
    held = 0 if share == 0 else max(1, round(share * rows))
    return shuffled[held:].sort().values, shuffled[:held].sort().values


class Order:
    """The batches of each epoch, of nearly equal size.

    With ``focus`` an epoch has as many steps, but makes several passes that leave easy rows out: each takes a row with
    the chance r^focus, r its rank from 0 for the least to 1 for the largest of the losses that rows had when they were
    last seen before the epoch (Jiang et al. 2019, "Accelerating Deep Learning by Focusing on the Biggest Losers",
    section 3; there the losses are computed anew, here choosing costs no pass). No chance is below a tenth, and a row
    that was not seen yet is taken, so that the first epoch is one of all rows.

    Args:
        rows: how many there are.
        batch: of one step, at most.
        key: randomness.
        focus: the power; 0 for every row once in each epoch.
    """

    def __init__(self, rows: int, batch: int, key: Key, focus: float = 0.0) -> None:
        self._rows, self._key, self.focus = rows, key, focus
        self.batches = -(-rows // batch)
        self._epoch = -1
        self._parts: tuple[Tensor, ...] = ()
        self._losses = torch.full((rows if focus else 0,), torch.inf, dtype=torch.float32, device="cpu")
        # An epoch is drawn by the losses at its beginning, which a run that goes on in its middle needs again.
        self._drawn, self._before = -1, self._losses

    def __call__(self, visit: int) -> Tensor:
        """The rows (R,) int64 of the visit number ``visit``, counted from the first batch of the first epoch."""
        epoch, place = divmod(visit, self.batches)
        if epoch != self._epoch:
            generator = _generator(self._key.fold("epoch", epoch))
            self._epoch, self._parts = epoch, self._focused(epoch, generator) if self.focus else self._all(generator)
        return self._parts[place]

    def note(self, rows: Tensor, losses: Tensor) -> None:
        """Remember how hard rows (R,) were, (R,)."""
        self._losses[rows] = losses.detach().to(self._losses)

    def state(self) -> dict[str, Tensor]:
        """What ``focus`` remembers; empty without it."""
        if not self.focus:
            return {}
        return {
            "losses": self._losses.clone(),
            "before": self._before.clone(),
            "drawn": torch.tensor(self._drawn, dtype=torch.int64, device="cpu"),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """What `state` gave."""
        if self.focus:
            self._losses, self._before = state["losses"].clone(), state["before"].clone()
            self._drawn, self._epoch = int(state["drawn"]), -1

    def _all(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return torch.randperm(self._rows, generator=generator, dtype=torch.int64, device="cpu").tensor_split(
            self.batches
        )

    def _focused(self, epoch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        if self._drawn != epoch:
            self._drawn, self._before = epoch, self._losses.clone()
        if not self._before.isfinite().any():
            return self._all(generator)
        chance = self._chances(generator)
        size = -(-self._rows // self.batches)
        parts: list[Tensor] = []
        while len(parts) < self.batches:
            rows = torch.randperm(self._rows, generator=generator, dtype=torch.int64, device="cpu")
            draw = torch.rand(self._rows, generator=generator, dtype=torch.float32, device="cpu")
            taken = rows[draw < chance[rows]]
            if len(taken) < size:  # one batch by the same chances (Efraimidis & Spirakis 2006)
                taken = rows[draw.pow(1 / chance[rows]).topk(size).indices]
            whole = len(taken) // size  # batches of one pass, so that no row is twice in one
            parts += taken[: whole * size].tensor_split(whole)
        return tuple(parts[: self.batches])

    def _chances(self, generator: torch.Generator) -> Tensor:
        """That a pass takes a row, (rows,)."""
        # Of rows with the same loss, such as 0, none should come first for its place.
        mixed = torch.randperm(self._rows, generator=generator, dtype=torch.int64, device="cpu")
        rank = torch.empty(self._rows, dtype=torch.float32, device="cpu")
        rank[mixed[self._before[mixed].argsort(stable=True)]] = torch.linspace(
            0, 1, self._rows, dtype=torch.float32, device="cpu"
        )
        return torch.where(self._before.isfinite(), rank.pow(self.focus).clamp(min=_LEAST), 1.0)


def _generator(key: Key) -> torch.Generator:
    return torch.Generator().manual_seed(key.integer())
