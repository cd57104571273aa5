"""A rate for each client: a bucket of tokens that fills by itself (AISVS 11.2.2)."""

import math
from collections import OrderedDict
from collections.abc import Callable

_KEPT = 100_000


class Rates:
    """Buckets.

    Args:
        rate: tokens a second; 0 for no bound.
        burst: tokens that a bucket holds.
        clock: of seconds.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self.rate, self.burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, count: int) -> int:
        """Take tokens; 0 where there were enough, else the seconds after which there may be."""
        if self.rate <= 0:
            return 0
        now = self._clock()
        tokens, then = self._buckets.pop(client, (float(self.burst), now))
        tokens = min(self.burst, tokens + (now - then) * self.rate)
        enough = tokens >= min(count, self.burst)
        self._buckets[client] = (tokens - count if enough else tokens, now)
        if len(self._buckets) > _KEPT:  # a client that comes back after so many others finds a full bucket
            self._buckets.popitem(last=False)
        return 0 if enough else max(1, math.ceil((min(count, self.burst) - tokens) / self.rate))
