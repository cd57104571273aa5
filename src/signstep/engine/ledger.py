"""The best point of each row so far, and what was spent on it: the accounts of every attack."""

import torch
from torch import Tensor

from signstep.engine.outcome import Found, Health
from signstep.engine.problem import Verdict
from signstep.engine.region import Region
from signstep.engine.tree import Tree, leaves, put, take, tree_map


def _counter(flat: Tensor) -> torch.dtype:
    """A type that sums the ones of a row exactly."""
    return flat.dtype if flat.shape[1] < 2**24 else torch.int64


class Ledger:
    """The best point of each row so far, and what was spent on it."""

    def __init__(self, ids: Tensor) -> None:
        self.point: Tree | None = None
        self.verdict: Verdict | None = None
        self.forwards, self.backwards = torch.zeros_like(ids), torch.zeros_like(ids)
        self.health = Health(*(torch.zeros_like(ids) for _ in Health._fields))

    def standing(self) -> Tensor:
        """Positions of the rows that no restart has fooled."""
        if self.verdict is None:
            return torch.arange(len(self.forwards), device=self.forwards.device, dtype=torch.int64)
        return (~self.verdict.fooled).nonzero().squeeze(1)

    def spend(self, owners: Tensor | None, forwards: int | Tensor, backwards: int | Tensor = 0) -> None:
        """Book passes on rows, as many on each or a number (R,) for each."""
        if owners is not None:
            for total, passes in ((self.forwards, forwards), (self.backwards, backwards)):
                total.index_add_(0, owners, torch.zeros_like(owners) + passes)

    def count(self, owners: Tensor, region: Region, gradient: Tree, live: Tensor | None = None) -> Tree:
        """Take stock of a gradient of the rows ``owners``; returns it with unusable coordinates set to zero.

        Of rows that are not ``live`` (R,) bool nothing is counted. An accelerator is not asked whether there is
        anything to count, which would wait for it: it counts.
        """
        frozen = region.frozen()
        size = sum(part[0].numel() for part in leaves(gradient)) - frozen
        zero, underflow, nonfinite = -frozen.expand(len(owners)), torch.zeros_like(owners), torch.zeros_like(owners)
        usable = torch.zeros_like(owners, dtype=torch.bool)
        cleaned, free = gradient, owners.device.type == "cpu"
        for part in leaves(gradient):
            flat = part.flatten(1)
            magnitude, tiny = flat.abs(), torch.finfo(flat.dtype).tiny
            largest = magnitude.amax(1)
            if not free or not bool((magnitude.amin(1) >= tiny).all()):
                # Compared in place: 0.0 and 1.0, whose sum is several times faster than that of a mask of bools.
                zero_here = magnitude.clone().eq_(0).sum(1, dtype=_counter(flat)).long()
                zero = zero + zero_here
                underflow = underflow + magnitude.clone().lt_(tiny).sum(1, dtype=_counter(flat)).long() - zero_here
            if not free or not bool(torch.isfinite(largest).all()):
                bad = ~torch.isfinite(flat)
                nonfinite = nonfinite + bad.sum(1)
                largest = torch.where(bad, 0.0, magnitude).amax(1)
                cleaned = tree_map(lambda leaf: torch.where(torch.isfinite(leaf), leaf, 0.0), cleaned)
            usable |= largest > 0
        seen = Health(zero, nonfinite, underflow, size.expand(len(owners)), (~usable).long(), torch.ones_like(owners))
        for total, here in zip(self.health, seen, strict=True):
            total.index_add_(0, owners, here if live is None else here * live)
        return cleaned

    def record(self, index: Tensor, point: Tree, verdict: Verdict) -> None:
        """Keep the restart's point where it fools the model or has the larger loss."""
        if self.verdict is None or self.point is None:
            # Copied, since later restarts write into it and a model may return its own input.
            self.point, self.verdict = point, verdict._replace(answer=verdict.answer.clone())
            return
        old = self.verdict
        # A NaN loss never replaces a number: comparisons with NaN are false.
        better = verdict.fooled | (verdict.loss > old.loss[index]) | (verdict.valid & ~old.valid[index])
        chosen = better.nonzero().squeeze(1)
        rows_ = index[chosen]
        put(self.point, rows_, take(point, chosen))
        for name in ("fooled", "loss", "valid", "rate", "answer", "near"):
            getattr(old, name).index_copy_(0, rows_, getattr(verdict, name)[chosen])

    def found(self, region: Region) -> Found:
        """Everything, as one record."""
        assert self.point is not None
        assert self.verdict is not None
        vanished = (self.health.gradients > 0) & (self.health.dead == self.health.gradients) & (region.radius > 0)
        vanished &= self.health.coordinates > 0  # a mask that freezes everything leaves nothing undetermined
        return Found(self.point, self.verdict, vanished, self.health, self.forwards, self.backwards)
