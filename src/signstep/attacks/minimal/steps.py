"""What the papers share: unit directions and annealed sizes."""

import math

import torch
from torch import Tensor

from signstep.engine.norms import L2
from signstep.engine.tree import per_row


def direction(v: Tensor) -> Tensor:
    """v / |v|_2, row by row (R, ...); zero where v is."""
    length = L2().length(v).clamp_min(torch.finfo(v.dtype).tiny)
    return v / per_row(length, v)


def annealed(first: float, last: float, step: int, steps: int) -> float:
    """From ``first`` to ``last`` along half a cosine (Loshchilov & Hutter 2017, equation 5 without restarts)."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2
