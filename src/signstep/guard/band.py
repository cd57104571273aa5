"""What a calibration promises: a rate of false flags, and the band in which the true one lies.

A conformal p-value of n rows, p = (1 + #{rows at least as odd}) / (n + 1), is at most a with probability k / (n + 1)
over calibrations, k = floor(a (n + 1)); given the calibration, the true rate is drawn from Beta(k, n + 1 - k) (Vovk
2012; Bates et al. 2023, section 2). Of no row there is no rate: a below 1 / (n + 1) can flag nothing.
"""

from dataclasses import dataclass
from functools import lru_cache

from signstep.detectors.calibration import allowed, beta_quantile, rows_needed
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
    flagged = allowed(nominal, rows)
    if flagged < 1:
        raise InputError(
            Arg("rate", nominal),
            f"is finer than {rows} rows of calibration can tell, which flag nothing at it",
            remedy=f"calibrate on at least {rows_needed(nominal)} rows, or ask for {1 / (rows + 1):.2g} or more",
        )
    tail = (1 - confidence) / 2
    low, high = (beta_quantile(share, flagged, rows + 1 - flagged) for share in (tail, 1 - tail))
    return Band(nominal, rows, low, high, confidence)


def share_band(counted: int, rows: int, confidence: float = 0.9) -> Band:
    """The band of a share of which so many of so many rows were counted (Clopper and Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = 0.0 if counted == 0 else beta_quantile(tail, counted, rows - counted + 1)
    high = 1.0 if counted == rows else beta_quantile(1 - tail, counted + 1, rows - counted)
    return Band(counted / rows, rows, low, high, confidence)
