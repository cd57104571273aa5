"""Several processes that train one model: Lightning Fabric's, or this one alone.

Every process holds the same weights and takes its part of each batch; gradients and BatchNorm's running statistics are
averaged over processes before the update, so that the weights stay the same everywhere. Starting processes, choosing
devices and the collectives themselves are Fabric's.
"""

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

Thing = TypeVar("Thing")


class Fabric(Protocol):
    """What is used of ``lightning_fabric.Fabric``."""

    @property
    def device(self) -> torch.device:
        """Of this process."""

    @property
    def world_size(self) -> int:
        """How many processes there are."""

    @property
    def global_rank(self) -> int:
        """The number of this one."""

    def all_reduce(self, data: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Combine tensors of all processes."""

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """An object of one process for all."""


@dataclass(frozen=True)
class Team:
    """This process among the others.

    Attributes:
        fabric: where there are others; None alone.
    """

    fabric: Fabric | None = None

    @property
    def size(self) -> int:
        """How many processes there are."""
        return 1 if self.fabric is None else self.fabric.world_size

    @property
    def rank(self) -> int:
        """The number of this one."""
        return 0 if self.fabric is None else self.fabric.global_rank

    @property
    def part(self) -> slice:
        """The rows of a batch that are this process's."""
        return slice(self.rank, None, self.size)

    def agreed(self, thing: Thing) -> Thing:
        """What the first process has."""
        if self.fabric is None or self.size == 1:
            return thing
        found: Thing = self.fabric.broadcast(thing)
        return found

    def average(self, model: nn.Module) -> None:
        """The mean of gradients and floating point buffers over processes, in one message, in place."""
        if self.fabric is None or self.size == 1:
            return
        parts: list[Tensor] = [part.grad for part in model.parameters() if part.grad is not None]
        parts += [part for part in model.buffers() if part.is_floating_point()]
        if not parts:
            return
        flat = torch.cat([part.detach().flatten().float() for part in parts])
        mean = self.fabric.all_reduce(flat, reduce_op="mean")
        for part, own in zip(parts, mean.split([part.numel() for part in parts]), strict=True):
            part.detach().copy_(own.reshape(part.shape))

    def mean(self, value: float, device: torch.device) -> float:
        """Of a number that each process has."""
        if self.fabric is None or self.size == 1:
            return value
        return float(self.fabric.all_reduce(torch.tensor(value, device=device, dtype=torch.float64), reduce_op="mean"))
