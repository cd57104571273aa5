"""A number that is read from a device while the device goes on working."""

from collections.abc import Callable

import torch
from torch import Tensor


def arriving(number: Tensor) -> Callable[[], float]:
    """Send for a scalar (); the answer waits for it alone, not for what is asked of the device in between.

    Reading it at once would leave a GPU without work until the next of it is asked for.

    >>> arriving(torch.tensor(0.5))()
    0.5
    """
    number = number.detach()
    if number.device.type != "cuda":
        value = float(number)
        return lambda: value
    kept = torch.empty((), dtype=number.dtype, pin_memory=True)
    kept.copy_(number, non_blocking=True)
    there = torch.cuda.Event()  # type: ignore[no-untyped-call]
    there.record()

    def read() -> float:
        there.synchronize()
        return float(kept)

    return read
