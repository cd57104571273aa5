"""What counts of votes prove: the bound on a share, the radius it stands for, and when a vote abstains.

Source: Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918), theorem 1 and section 3.2.
"""

import math
from functools import lru_cache
from statistics import NormalDist

import torch


@lru_cache(maxsize=4096)
def share_bound(votes: int, of: int, alpha: float) -> float:
    """The lower end of the one-sided Clopper-Pearson interval: below the true share with a chance of 1 - alpha."""
    if votes == 0:
        return 0.0
    if votes == of:  # all of them: alpha ** (1 / n), exactly
        return math.pow(alpha, 1 / of)
    # The share of other votes under which so few of them still have a chance of alpha; their logarithms of ways once.
    others = torch.arange(of - votes + 1, dtype=torch.float64, device="cpu")
    top = torch.tensor(of + 1.0, dtype=torch.float64, device="cpu").lgamma()
    ways = top - (others + 1).lgamma() - (of - others + 1).lgamma()
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        tail = (ways + others * math.log(share) + (of - others) * math.log1p(-share)).exp().sum()
        low, high = (share, high) if float(tail) > alpha else (low, share)
    return 1.0 - high


def radius_of(votes: int, of: int, *, sigma: float, alpha: float) -> float | None:
    """sigma * Phi^-1(lower bound of the share) in L2; None where the bound is no majority: the vote abstains.

    >>> round(radius_of(100, 100, sigma=0.5, alpha=0.001), 4), radius_of(55, 100, sigma=0.5, alpha=0.001)
    (0.7502, None)
    """
    bound = share_bound(votes, of, alpha)
    return sigma * NormalDist().inv_cdf(bound) if 0.5 < bound < 1 else None


def chance(first: int, second: int) -> float:
    """The exact two-sided binomial test that the two leading classes are equally likely.

    >>> round(chance(10, 2), 4), chance(5, 5)
    (0.0386, 1.0)
    """
    of, fewer = first + second, min(first, second)
    if of == 0:
        return 1.0
    log = of * math.log(2)
    tail = math.fsum(
        math.exp(math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) - log) for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)
