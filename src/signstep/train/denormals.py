"""Moments of an optimiser that have faded below the smallest normal number."""

import torch
from torch import Tensor

# Steps between two looks: a moment that gets no gradient fades by a tenth in each step of Adam.
EVERY = 100


def flush_denormals(optimiser: torch.optim.Optimizer) -> None:
    """Set what is below the smallest normal number to 0, on a CPU, in place.

    Weights of units that have died get no gradient, and their first moment fades until rounding keeps it at the last
    denormal numbers for good. No update can be seen from there, but processors are many times slower at them.
    """
    for state in optimiser.state.values():
        for part in state.values():
            if isinstance(part, Tensor) and part.device.type == "cpu" and part.is_floating_point():
                part.masked_fill_(part.abs() < torch.finfo(part.dtype).tiny, 0.0)
