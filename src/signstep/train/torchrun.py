"""The processes that ``torchrun`` began, as `signstep.train.team` wants them: torch's collectives, and no Lightning."""

import os
from typing import Any

import torch
from torch import Tensor, distributed

from signstep.errors import InputError, LoadError
from signstep.messages import Arg

_SAID = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Torchrun:
    """What ``ss.fit(fabric=...)`` takes, in a script that ``torchrun`` starts once for each process.

    Over gloo on CPUs and nccl on cards; a process takes the card of its place on its machine. What one process tells
    the others in words travels pickled: all of them are one person's.

    Args:
        device: "cpu", "cuda", or None for cards where there are any.

    Raises:
        InputError: the device is none of these.
        LoadError: the script was not started by torchrun, or the others cannot be reached.

    Example:
        >>> from signstep.train import Torchrun
        >>> with Torchrun("cpu") as processes:  # doctest: +SKIP
        ...     ss.fit(model, x, y, threat=ss.linf(0.1), fabric=processes)
    """

    def __init__(self, device: str | None = None) -> None:
        if device not in (None, "cpu", "cuda"):
            raise InputError(Arg("device", device), remedy="pass 'cpu' or 'cuda'")
        missing = [name for name in _SAID if name not in os.environ]
        if missing:
            raise LoadError(
                f"torchrun did not start this process: {missing[0]} is not set",
                remedy="start the script by torchrun, with a number of processes",
            )
        cards = torch.cuda.is_available() if device is None else device == "cuda"
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cards else torch.device("cpu")
        self._began = not distributed.is_initialized()
        if self._began:
            try:
                distributed.init_process_group("nccl" if cards else "gloo")
            except (RuntimeError, ValueError) as error:  # of torch, with what its store or its sockets said
                raise LoadError(
                    f"the processes cannot reach each other ({str(error).strip().splitlines()[0][:200]})",
                    remedy="see that MASTER_ADDR and MASTER_PORT are those of the first one",
                ) from error

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return distributed.get_world_size()

    @property
    def global_rank(self) -> int:
        """The number of this one."""
        return distributed.get_rank()

    def all_reduce(self, data: Tensor, group: Any = None, reduce_op: str = "mean") -> Tensor:
        """The mean, or the sum, over processes.

        Raises:
            InputError: it is another operation.
        """
        if reduce_op not in ("mean", "sum"):
            raise InputError(Arg("reduce_op", reduce_op), remedy="pass 'mean' or 'sum'")
        found = data.clone()
        distributed.all_reduce(found, group=group)  # gloo has no mean of its own
        return found / self.world_size if reduce_op == "mean" else found

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """What one process has."""
        box = [obj]
        distributed.broadcast_object_list(box, src=src, device=self.device)
        return box[0]

    def close(self) -> None:
        """Part; whoever joined the processes before stays."""
        if self._began and distributed.is_initialized():
            distributed.destroy_process_group()

    def __enter__(self) -> "Torchrun":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
