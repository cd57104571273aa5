"""How many may wait while more is asked than can be done, where passes of the model are shared: simulated."""

import heapq
from typing import Any

import numpy as np
import pytest

from signstep.guard.pace import Pace
from signstep.guard.passes import Passes

ROWS = 32


class Sharing:
    """Passes of at most `ROWS` that take `alone` and `each` for a row, one after the other; beside them, commits.

    What the passes take is measured with noise.
    """

    def __init__(self, alone: float, each: float, commit: float) -> None:
        self.alone, self.each, self.commit, self.now, self.storing = alone, each, commit, 0.0, 0.0
        self.passes, self.noise = Passes(ROWS), np.random.default_rng(1)
        self.pace = Pace(0.25, lambda: self.now, lambda: 2 * (self.passes.seconds + self.storing))
        self.waits: list[float] = []
        self._queue: list[float] = []
        self._judged: list[tuple[float, float]] = []
        self._ends: list[tuple[float, int, list[Any]]] = []
        self._busy = [False, False]

    def ask(self, when: float) -> None:
        while self._ends and self._ends[0][0] <= when:
            self.now, kind, group = heapq.heappop(self._ends)
            self._busy[kind] = False
            if kind == 0:
                took = self.alone + self.each * len(group)
                self.passes.saw(len(group), took * self.noise.lognormal(0, 0.3))
                self._judged += [(came, self.now) for came in group]
            else:
                for came, judged in group:
                    self.storing += 0.1 * (self.now - judged - self.storing)
                    self.waits.append(self.now - came)
                    self.pace.end()
            self._begin()
        self.now = when
        if not self.pace.arrived() and not self.pace.begin():
            self._queue.append(when)
            self._begin()

    def _begin(self) -> None:
        if self._queue and not self._busy[0]:
            group, self._queue = self._queue[:ROWS], self._queue[ROWS:]
            self._ended(0, self.alone + self.each * len(group), group)
        if self._judged and not self._busy[1]:
            stored, self._judged = self._judged, []
            self._ended(1, self.commit, stored)

    def _ended(self, kind: int, takes: float, group: list[Any]) -> None:
        self._busy[kind] = True
        heapq.heappush(self._ends, (self.now + takes, kind, group))

    def at(self, rate: float, seconds: float) -> list[float]:
        """What those let in waited, of requests that come at this rate by chance, in the last half of the time."""
        draws, due, until, half = np.random.default_rng(0), self.now, self.now + seconds, self.now + seconds / 2
        while due < until:
            if due < half:
                self.waits.clear()
            self.ask(due)
            due += draws.exponential(1 / rate)
        return list(self.waits)


@pytest.mark.parametrize(
    ("alone", "each", "commit"),
    [(0.001, 0.005, 0.005), (0.005, 0.005, 0.005), (0.0005, 0.01, 0.002), (0.05, 0.0005, 0.005), (0.02, 0.02, 0.05)],
)
@pytest.mark.parametrize("load", [1.5, 3.0])
def test_under_too_much_load_passes_are_as_large_as_they_gain_by_and_no_larger(
    alone: float, each: float, commit: float, load: float
) -> None:
    """Bounded by passes as they are, each queue made a larger pass, which allowed for a longer queue: to 32 rows."""
    sharing = Sharing(alone, each, commit)
    sharing.at(0.3 / (alone + each), 20 * (alone + each) + 1)
    most = ROWS / (alone + each * ROWS)
    seconds = 200 * (alone + each) + 4
    waits = sharing.at(load * most, seconds)
    assert len(waits) > 0.7 * most * seconds / 2
    best = min(4 * alone + each, alone + each * ROWS)
    assert np.quantile(waits, 0.99) < max(3 * best + 2.5 * commit, 0.05) + 4 * (alone + each)


def test_what_a_pass_takes_for_itself_and_for_a_row_is_told_from_passes_that_differ() -> None:
    draws, passes = np.random.default_rng(2), Passes(ROWS)
    for alone, each, expected in ((0.01, 0.01, 0.05), (0.0, 0.01, 0.01), (0.02, 0.0001, 0.021), (0.02, 0.0, 0.02)):
        passes = Passes(ROWS)
        assert passes.seconds == 0.0
        for rows in draws.integers(1, 20, 400):
            passes.saw(int(rows), alone + each * int(rows))
        assert passes.seconds == pytest.approx(expected, rel=0.15)
    same = Passes(ROWS)
    for _ in range(100):
        same.saw(8, 0.08)  # nothing is known of what a pass takes for itself: no larger ones for a guess
    assert same.seconds == pytest.approx(0.01)
    same.saw(8, 1000.0)  # the process was stopped: that is no pass
    assert same.seconds == pytest.approx(0.01, rel=0.05)
