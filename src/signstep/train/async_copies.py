"""Numbers on their way to and from a card, which goes on working meanwhile."""

from collections.abc import Callable

import torch
from torch import Tensor


def item_later(number: Tensor) -> Callable[[], float]:
    """Send for a scalar (); the answer waits for it alone, not for what is asked of the card in between.

    Reading it at once would leave the card without work until the next of it is asked for.

    >>> item_later(torch.tensor(0.5))()
    0.5
    """
    number = number.detach()
    if number.device.type != "cuda":
        value = float(number)
        return lambda: value
    kept = torch.empty((), dtype=number.dtype, pin_memory=True, device="cpu")
    kept.copy_(number, non_blocking=True)
    there = torch.cuda.Event()  # type: ignore[no-untyped-call]
    there.record(torch.cuda.current_stream(number.device))  # which need not be the current card

    def read() -> float:
        there.synchronize()
        return float(kept)

    return read


def sent(part: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; on its way from the CPU to a card nobody waits for what the card does before.

    >>> sent(torch.arange(3), torch.device("cpu")).tolist()
    [0, 1, 2]
    """
    if device.type != "cuda" or part.device.type != "cpu":
        return part.to(device)
    return part.pin_memory().to(device, non_blocking=True)
