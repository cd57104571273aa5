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
