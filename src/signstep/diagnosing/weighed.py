"""Scores whose gradients are weighed otherwise, for attacks that climb another loss than those that have names."""

from typing import Any

import torch
from torch import Tensor, nn


class Tempered(nn.Module):
    """A network whose scores are divided by a temperature: low ones leave the margin, high ones weigh all classes."""

    def __init__(self, network: Any, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, x: Tensor) -> Tensor:
        """Scores (R, K) over the temperature, in units of their own spread in the row."""
        scores: Tensor = self.network(x)
        spread = scores.detach().std(1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
        return scores / (spread * self.temperature)


class Term(nn.Module):
    """A network of whose scores one alone has a gradient: one of the two terms of the margin.

    Source: margin decomposition, Ma et al. 2020 (arXiv:2006.13726), section 4, with one term all the way.

    Attributes:
        rank: 0 for the score of the answer, 1 for that of the runner-up.
    """

    def __init__(self, network: Any, rank: int) -> None:
        super().__init__()
        self.network, self.rank = network, rank

    def forward(self, x: Tensor) -> Tensor:
        """The same scores (R, K)."""
        scores: Tensor = self.network(x)
        kept = torch.zeros_like(scores, dtype=torch.bool)
        kept.scatter_(1, scores.detach().topk(self.rank + 1, 1).indices[:, self.rank :], True)
        return torch.where(kept, scores, scores.detach())
