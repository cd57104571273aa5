"""A rate for each client: a bucket of tokens that fills by itself (AISVS 11.2.2); and one for all: what can be done."""

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


class Pace:
    """How long a request would wait: those inside, times the seconds from one that ends to the next.

    Args:
        longest: seconds from which on there is no use in beginning another.
        clock: of seconds.

    Attributes:
        inside: requests that have begun and not ended.
        seconds: from one end to the next while others are inside, a moving mean.
    """

    def __init__(self, longest: float, clock: Callable[[], float]) -> None:
        self.longest, self._clock = longest, clock
        self.inside, self.seconds, self._last = 0, 0.0, clock()

    @property
    def expected(self) -> float:
        """Seconds that the next one would wait."""
        return self.inside * self.seconds

    def begin(self) -> int:
        """Begin one; 0 where it may, else the seconds after which it may be tried again."""
        if self.expected > self.longest:
            return max(1, math.ceil(self.expected))
        self.inside += 1
        return 0

    def end(self) -> None:
        """End one that began."""
        now = self._clock()
        if self.inside > 1:  # what one alone takes says nothing of how fast many are done
            self.seconds += 0.1 * (min(now - self._last, 1.0) - self.seconds)
        self.inside, self._last = self.inside - 1, now
