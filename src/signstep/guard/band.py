"""What a calibration promises: a rate of false flags, and the band in which the true one lies.

A conformal p-value of n rows, p = (1 + #{rows at least as odd}) / (n + 1), is at most a with probability k / (n + 1)
over calibrations, k = floor(a (n + 1)); given the calibration, the true rate is drawn from Beta(k, n + 1 - k) (Vovk
2012; Bates et al. 2023, section 2). Of no row there is no rate: a below 1 / (n + 1) can flag nothing.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from signstep.errors import InputError
from signstep.messages import Arg


@dataclass(frozen=True)
class Band:
    """Of one rate.

    Attributes:
        nominal: the rate that was asked for.
        rows: of the calibration.
        low: the true rate is below this with probability (1 - confidence) / 2.
        high: above this likewise.
        confidence: of the two together.
    """

    nominal: float
    rows: int
    low: float
    high: float
    confidence: float = 0.9

    def __str__(self) -> str:
        return (
            f"{self.nominal:.2%} of clean inputs are flagged; from {self.rows} rows that is {self.low:.2%} to "
            f"{self.high:.2%} ({self.confidence:.0%})"
        )


@lru_cache(maxsize=256)
def band(nominal: float, rows: int, confidence: float = 0.9) -> Band:
    """The band of a rate.

    Raises:
        InputError: the rows cannot carry the rate: fewer than 1 / rate - 1 of them.
    """
    if not 0 < nominal < 1:
        raise InputError(Arg("rate", nominal), remedy="pass a rate between 0 and 1")
    flagged = math.floor(nominal * (rows + 1) + 1e-9)
    if flagged < 1:
        raise InputError(
            Arg("rate", nominal),
            f"is finer than {rows} rows of calibration can tell, which flag nothing at it",
            remedy=f"calibrate on at least {math.ceil(1 / nominal) - 1} rows, or ask for {1 / (rows + 1):.2g} or more",
        )
    tail = (1 - confidence) / 2
    return Band(nominal, rows, _quantile(tail, flagged, rows), _quantile(1 - tail, flagged, rows), confidence)


def share_band(counted: int, rows: int, confidence: float = 0.9) -> Band:
    """The band of a share of which so many of so many rows were counted (Clopper and Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = 0.0 if counted == 0 else _quantile(tail, counted, rows)
    high = 1.0 if counted == rows else _quantile(1 - tail, counted + 1, rows)
    return Band(counted / rows, rows, low, high, confidence)


def _quantile(share: float, flagged: int, rows: int) -> float:
    """Of Beta(k, n + 1 - k), by bisection over its identity with the binomial: P(B <= x) = P(Bin(n, x) >= k)."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_least(flagged, rows, middle) < share else (low, middle)
    return (low + high) / 2


def _at_least(flagged: int, rows: int, rate: float) -> float:
    """P(Bin(rows, rate) >= flagged)."""
    if rate <= 0:
        return 0.0
    if rate >= 1:
        return 1.0
    below, term = 0.0, rows * math.log1p(-rate)
    for count in range(flagged):
        below += math.exp(term)
        term += math.log((rows - count) / (count + 1)) + math.log(rate) - math.log1p(-rate)
    return 1 - min(below, 1.0)
