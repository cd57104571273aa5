"""A CUSUM of flags for each client, and how long it takes to an alarm: exactly, by a Markov chain.

    S <- max(0, S + up) at a flag, max(0, S - 1) else; alarm at S >= height, S begins again at 0

(Page 1954; the run length by the chain of Brook and Evans 1972.) The steps are those of the likelihood ratio of 30 % to
1 % flags, 3.40 up and 0.35 down, made whole numbers: 10 to 1. Whole numbers make the chain exact.

The height is chosen for a rate of false flags that the calibration does not exclude, not for the one it aims at: from
1,000 rows a detector set to 1 % has, with 90 % confidence, up to 1.57 %, and a chart designed for 1 % would promise
several times what it holds.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from signstep.errors import InputError
from signstep.messages import Arg

UP = 10
_TALLEST = 1000


@lru_cache(maxsize=4096)
def run_length(rate: float, height: int, up: int = UP) -> float:
    """Expected inputs to an alarm from S = 0 where each is flagged with that probability, independently.

    >>> [f"{run_length(p, 35):.2g}" for p in (0.01, 0.0157, 0.05, 0.3)]
    ['1.3e+06', '1.8e+05', '1.2e+03', '16']
    """
    stay = np.zeros((height, height))
    for state in range(height):
        stay[state, max(state - 1, 0)] += 1 - rate
        if state + up < height:
            stay[state, state + up] += rate
    return float(np.linalg.solve(np.eye(height) - stay, np.ones(height))[0])


@dataclass(frozen=True)
class Chart:
    """A designed chart.

    Attributes:
        rate: of false flags that it is designed for.
        height: of the alarm.
        length: inputs from one false alarm to the next at that rate, at least.
    """

    rate: float
    height: int
    length: float

    def after(self, score: int, flagged: bool) -> tuple[int, bool]:
        """The score after an input, and whether it is an alarm."""
        score = max(0, score + (UP if flagged else -1))
        return (0, True) if score >= self.height else (score, False)

    def table(self) -> list[tuple[float, float]]:
        """Rates of flags and the inputs to an alarm."""
        return [(rate, run_length(rate, self.height)) for rate in (0.01, self.rate, 0.05, 0.1, 0.3, 0.5, 1.0)]


@lru_cache(maxsize=256)
def designed(rate: float, length: float = 1e6) -> Chart:
    """The lowest chart that, at this rate of false flags, gives a false alarm in so many inputs or fewer often.

    Raises:
        InputError: no chart does, or a number makes no sense.
    """
    if not 0 < rate < 1:
        raise InputError(Arg("rate", rate), remedy="pass a rate between 0 and 1")
    if rate * UP >= 1 - rate:
        raise InputError(
            f"clean inputs may be flagged at a rate of up to {rate:.3g}, so often that every client's score grows",
            remedy="calibrate on more rows, or for a lower rate",
        )
    low, high = UP - 1, UP
    while run_length(rate, high) < length and high < _TALLEST:
        low, high = high, min(2 * high, _TALLEST)
    while high - low > 1:  # the run length grows with the height
        middle = (low + high) // 2
        low, high = (middle, high) if run_length(rate, middle) < length else (low, middle)
    if run_length(rate, high) >= length:
        return Chart(rate, high, run_length(rate, high))
    raise InputError(
        Arg("rate", rate),
        f"has no chart that lets {length:.3g} inputs pass between false alarms",
        remedy="calibrate on more rows, or for a lower rate",
    )
