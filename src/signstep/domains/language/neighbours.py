"""Which tokens lie next to each other in an embedding."""

from typing import NamedTuple

import torch
from torch import Tensor


class Neighbours(NamedTuple):
    """For each token asked about (N, K): the nearest others, the nearest first, -1 for none; and their cosines."""

    tokens: Tensor
    cosines: Tensor


def nearest(weight: Tensor, of: Tensor, among: Tensor, count: int) -> Neighbours:
    """The nearest others by the cosine of their embeddings.

    Args:
        weight: the embedding table (V, D).
        of: tokens (N,) int64.
        among: tokens (M,) int64 that may be neighbours.
        count: K; fewer where there are fewer.
    """
    unit = torch.nn.functional.normalize(weight.detach().float().cpu(), dim=1)
    most = min(count, len(among))
    tokens = torch.full((len(of), count), -1, dtype=torch.int64, device="cpu")
    cosines = torch.full((len(of), count), -torch.inf, dtype=torch.float32, device="cpu")
    for place in torch.split(torch.arange(len(of), dtype=torch.int64, device="cpu"), 256):
        part = of[place]
        alike = unit[part] @ unit[among].T
        alike[part.unsqueeze(1) == among] = -torch.inf
        best = alike.topk(most, dim=1)
        tokens[place, :most] = torch.where(torch.isinf(best.values), -1, among[best.indices])
        cosines[place, :most] = best.values
    return Neighbours(tokens, cosines)
