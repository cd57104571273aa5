"""Run lengths of the guard's chart by simulation of 10^8 requests a rate, beside the exact ones of its Markov chain.

Streams of requests, each flagged with a given probability, run side by side; every alarm begins its chart again. The
estimate is requests to alarms once the charts have forgotten how they began; its standard error is that over streams,
which are independent. The same flags, request by request, go through `Chart.after` and through the Page-Hinkley test of
river (the referee), where that is installed: alarms have to come at the same requests. river's test differs in one
point, which is stated and undone: it takes off the mean that it has seen so far, by which a client who has long been
flagged often becomes usual; ours takes off a constant. With a mean of 0, delta 1 and no forgetting its statistic,
the sum above its least value so far, is our score.
"""

import argparse
import importlib
from typing import Any

import numpy as np

from harness import machine, table
from signstep.guard.charts import UP, Chart, run_length

_WARM = 2000  # requests of each stream that are not counted
_TESTED = 1_000_000  # requests that go through both charts one by one


def simulated(rate: float, height: int, requests: int, streams: int, seed: int) -> tuple[float, float, int]:
    """Requests to an alarm, the standard error, and how many alarms there were."""
    rng = np.random.default_rng(seed)
    score = np.zeros(streams, np.int16)
    alarms = np.zeros(streams, np.int64)
    steps = -(-requests // streams)
    threshold = np.uint32(min(round(rate * 2**32), 2**32 - 1))
    for step in range(-_WARM, steps):
        flagged = rng.integers(0, 2**32, streams, dtype=np.uint32) < threshold
        score += np.where(flagged, np.int16(UP), np.int16(-1))
        np.maximum(score, 0, out=score)
        over = score >= height
        score[over] = 0
        if step >= 0:
            alarms += over
    total = int(alarms.sum())
    if not total:
        return float("inf"), float("nan"), 0
    length = steps * streams / total
    return length, length * float(alarms.std(ddof=1)) / float(alarms.mean()) / streams**0.5, total


class _Zero:
    """A mean that is 0 whatever it sees."""

    n = 1

    def update(self, _: float) -> None:
        """See a number."""

    @staticmethod
    def get() -> float:
        """The mean."""
        return 0.0


def refereed(rate: float, height: int, requests: int, seed: int) -> str:
    """Whether river's chart and ours give their alarms at the same requests."""
    try:
        drift: Any = importlib.import_module("river.drift")
    except ImportError:
        return "not installed"
    # An input of 11 or 0, less delta, is a step of 10 or -1. The sum starts from 0 as ours does, and not from its first
    # value; at least height, in whole numbers, is above height less a half.
    theirs = drift.PageHinkley(min_instances=0, delta=1, threshold=height - 0.5, alpha=1, mode="up")
    ours, score = Chart(rate, height, 0.0), 0
    found: tuple[list[int], list[int]] = [], []

    def begin() -> None:
        theirs._reset()
        theirs._x_mean, theirs._min_increase = _Zero(), 0.0

    begin()
    for place, flagged in enumerate(np.random.default_rng(seed).random(requests) < rate):
        score, alarm = ours.after(score, bool(flagged))
        if alarm:
            found[0].append(place)
        theirs.update(float(UP + 1) if flagged else 0.0)
        if theirs.drift_detected:
            found[1].append(place)
            begin()
    same = "the same" if found[0] == found[1] else "OTHERS"
    return f"{len(found[0])} and {len(found[1])}, {same}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=float, default=1e8, help="a rate and height")
    parser.add_argument("--referee", type=float, default=_TESTED, help="requests through river's chart too")
    parser.add_argument("--streams", type=int, default=10_000, help="that run side by side")
    parser.add_argument("--seed", type=int, default=0, help="of the flags")
    given = parser.parse_args()
    print(machine(), flush=True)
    rows = []
    for height in (35, 41):
        for rate in (0.01, 0.0157, 0.05, 0.3):
            exact = run_length(rate, height)
            length, error, alarms = simulated(rate, height, int(given.requests), given.streams, given.seed)
            off = (length - exact) / error
            said = refereed(rate, height, int(given.referee), given.seed)
            rows.append([f"{height}", f"{rate:.2%}", f"{exact:.6g}", f"{length:.6g}", f"{error:.3g}",
                         f"{off:+.1f}", str(alarms), said])  # fmt: skip
            print(*rows[-1], flush=True)
    header = ["height", "flagged", "by the chain", "simulated", "s.e.", "off by s.e.", "alarms", "river and ours"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
