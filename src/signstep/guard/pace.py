"""Admission: whether a request is begun, by how long it would wait; who would wait too long is told so at once.

The wait is expected from the requests inside and the time from one that ends to the next. A burst may wait for long: it
ends. Where more is asked than can be done, what waits is a standing queue, which answers nobody sooner and everybody
later (Nichols and Jacobson, "Controlling Queue Delay", 2012): then no more are inside than keep model and store busy,
the pass in work and the next.
"""

import math
from collections.abc import Callable

_LEAST = 4  # requests: one is read, one is in the model, one is stored, one waits; with fewer the model would idle
_KEPT = 0.98  # of what was measured, at each end: some fifty ends are remembered
_SHORT = 0.05  # seconds that anybody may wait: to refuse for less makes clients ask again, which costs more
_LONGEST_GAP = 1.0  # seconds from one end to the next that are believed; the process may have been stopped


class Pace:
    """How long a request would wait.

    Args:
        longest: seconds that a request of a burst may be expected to wait.
        clock: of seconds.
        steady: tells the seconds that a request may be expected to wait where more is asked than can be done.

    Attributes:
        inside: requests that have begun and not ended.
        seconds: from one end to the next while others are inside, a mean of the last.
    """

    def __init__(self, longest: float, clock: Callable[[], float], steady: Callable[[], float] = lambda: 0.0) -> None:
        self.longest, self._clock, self._steady = longest, clock, steady
        self.inside, self.seconds = 0, 0.0
        self._busy, self._ends, self._last = 0.0, 0.0, clock()
        self._asked, self._asked_at = 0.0, clock()

    @property
    def expected(self) -> float:
        """Seconds that the next one would wait."""
        return self.inside * self.seconds

    @property
    def load(self) -> float:
        """What is asked, refused or not, over what can be done; over the last `longest` seconds or so."""
        return self._asked * math.exp((self._asked_at - self._clock()) / self.longest) * self.seconds / self.longest

    def arrived(self) -> int:
        """Count a request that arrived; 0 where it may come in, else the seconds after which to try again."""
        now = self._clock()
        self._asked = 1 + self._asked * math.exp((self._asked_at - now) / self.longest)
        self._asked_at = now
        return self._full()

    def begin(self) -> int:
        """Begin one that has arrived; 0 where it may, else the seconds after which to try again."""
        wait = self._full()
        if not wait:
            if not self.inside:
                self._last = self._clock()
            self.inside += 1
        return wait

    def end(self) -> None:
        """End one that began."""
        now = self._clock()
        gap = min(now - self._last, _LONGEST_GAP)
        # One alone says how long it took, and not how fast many are done: that is at most as long.
        if self.inside > 1 or gap < self.seconds or not self._ends:
            self._busy, self._ends = _KEPT * self._busy + gap, _KEPT * self._ends + 1
            self.seconds = self._busy / self._ends
        self.inside, self._last = self.inside - 1, now

    def _full(self) -> int:
        if self.inside < _LEAST:
            return 0
        steady, expected = max(self._steady(), _SHORT), self.expected
        if expected <= (steady if self.load > 1 else max(self.longest, steady)):
            return 0
        return max(1, math.ceil(expected))
