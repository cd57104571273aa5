"""Where runs of the closed loop begin: uniform, keyed, the same for every machine."""

import torch
from torch import Tensor

from signstep.domains.control.plants import Plant
from signstep.engine.keys import Key


def starts(plant: Plant, count: int, *, seed: int = 0) -> Tensor:
    """``count`` starts (R, N), uniform within the plant's spread; the k-th is the same for any count."""
    draws = (
        Key(seed)
        .fold("starts", plant.name)
        .draws(torch.arange(count, dtype=torch.int64, device="cpu"), torch.device("cpu"))
    )
    return (2 * draws.uniform("start", (len(plant.spread),)) - 1) * torch.tensor(
        plant.spread, dtype=torch.float32, device="cpu"
    )
