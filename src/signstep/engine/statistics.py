"""The few statistics that results state."""

import math


def wilson(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The Wilson score interval of a proportion, 95 % by default (Wilson 1927).

    >>> tuple(round(end, 3) for end in wilson(8, 10))
    (0.49, 0.943)
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def quantile(values: list[float], share: float) -> float | None:
    """The smallest value that at least ``share`` of all values do not exceed; None if there are none.

    Unlike interpolating quantiles this is defined when some values are infinite (never fooled).

    >>> quantile([0.1, 0.2, math.inf], 0.5)
    0.2
    """
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def exact_upper(successes: int, trials: int, level: float = 0.95) -> float:
    """The exact one-sided upper bound of a proportion (Clopper & Pearson 1934).

    The largest share under which so few successes still have a chance of 1 - level.

    >>> round(exact_upper(0, 60), 4), round(exact_upper(3, 60), 4)
    (0.0487, 0.1242)
    """
    if successes >= trials:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(successes, trials, middle) > 1 - level else (low, middle)
    return high


def exact_lower(successes: int, trials: int, level: float = 0.95) -> float:
    """The exact one-sided lower bound of a proportion.

    >>> round(exact_lower(3, 60), 4), exact_lower(0, 60)
    (0.0138, 0.0)
    """
    return 1.0 - exact_upper(trials - successes, trials, level) if successes else 0.0


def _at_most(successes: int, trials: int, share: float) -> float:
    """The chance of at most so many successes."""
    if not 0 < share < 1:
        return 1.0 if share <= 0 else 0.0
    ways = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(share)
        + (trials - k) * math.log1p(-share)
        for k in range(successes + 1)
    )
    return math.fsum(map(math.exp, ways))


def mcnemar(lost: int, won: int) -> float:
    """The exact two-sided McNemar test (McNemar 1947): a fair coin thrown for every example that changed side.

    >>> mcnemar(0, 0), round(mcnemar(10, 2), 4)
    (1.0, 0.0386)
    """
    changed = lost + won
    if changed == 0:
        return 1.0
    # In logarithms: 2**-changed underflows from 1,075 changes on.
    fewer = min(lost, won)
    tail = math.fsum(math.exp(_log_choose(changed, k) - changed * math.log(2)) for k in range(fewer + 1))
    return min(1.0, 2 * tail)


def _log_choose(of: int, some: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(some + 1) - math.lgamma(of - some + 1)
