"""The promise: conformal p-values, the band around a rate, the rows that a rate needs, and whether it still holds.

With n calibration scores that are exchangeable with the score s of a clean input, p = (1 + #{cal >= s}) / (n + 1) is at
most a with a chance of at most a (Vovk, Gammerman & Shafer 2005; Bates et al. 2023, arXiv:2104.08279). The share of
clean inputs with p <= a, given the calibration rows, is Beta(k, n + 1 - k) over their draw, k = floor(a (n + 1)).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.errors import InputError
from signstep.messages import Arg

# Of a rate times rows: what rounding may take from a whole number.
_ROUNDING = 1e-9


def p_values(calibration: Tensor, scores: Tensor) -> Tensor:
    """Conformal p-values (R,) float64 of scores (R,), against sorted calibration scores (n,).

    A score that is no number is as suspicious as can be.
    """
    scores = torch.nan_to_num(scores.double(), nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    below = torch.searchsorted(calibration.contiguous(), scores.contiguous())
    n = len(calibration)
    return (1 + n - below).double() / (n + 1)


def allowed(rate: float, rows: int) -> int:
    """k = floor(rate (n + 1)): p-values of at most ``rate`` are those among the k smallest there can be."""
    return math.floor(rate * (rows + 1) + _ROUNDING)


def rows_needed(rate: float) -> int:
    """The fewest calibration rows that can carry a rate: with n of them no p-value is below 1 / (n + 1).

    >>> rows_needed(0.01), rows_needed(0.05)
    (99, 19)
    """
    return max(1, math.ceil(1 / rate - 1 - _ROUNDING))


def check_rate(rate: float, name: str) -> float:
    """A rate strictly between 0 and 1.

    Raises:
        InputError: it is none.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1:
        raise InputError(Arg(name, rate), remedy="pass a share above 0 and below 1, such as 0.01")
    return float(rate)


def need_rows(rate: float, rows: int, what: str) -> None:
    """See that so many rows carry a rate.

    Raises:
        InputError: they do not; the message says how many would.
    """
    if allowed(rate, rows) < 1:
        raise InputError(
            f"a rate of {rate:g} cannot be promised by {what} with {rows} calibration rows",
            remedy=f"calibrate on at least {rows_needed(rate)} clean rows, or ask for {1 / (rows + 1):.3g} or more",
        )


def threshold(calibration: Tensor, rate: float) -> float:
    """The score above which a p-value is at most ``rate``: the k-th largest calibration score."""
    k = allowed(rate, len(calibration))
    return math.inf if k < 1 else float(calibration[len(calibration) - k])


def band(rate: float, rows: int, level: float = 0.9) -> tuple[float, float]:
    """The central band of the true share of clean inputs that are flagged, over draws of the calibration rows.

    Beta(k, n + 1 - k) for scores without ties; with ties the share is smaller.

    >>> tuple(round(100 * end, 2) for end in band(0.01, 1000))
    (0.54, 1.57)
    """
    check_rate(rate, "rate")
    check_rate(level, "level")
    need_rows(rate, rows, "a detector")
    k = allowed(rate, rows)
    return beta_quantile((1 - level) / 2, k, rows + 1 - k), beta_quantile((1 + level) / 2, k, rows + 1 - k)


def beta_quantile(share: float, a: int, b: int) -> float:
    """The quantile of Beta(a, b) for whole a and b, by bisection on the binomial tail that is its distribution."""
    return _bisected(lambda p: _binomial_upper(a, a + b - 1, p) >= share)


def _bisected(reached: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _binomial_upper(least: int, trials: int, p: float) -> float:
    """The chance of at least so many of ``trials`` successes; the shorter of the two tails is summed."""
    if not 0 < p < 1:
        return float(p >= 1 or least <= 0)

    def total(counts: range) -> float:
        return math.fsum(
            math.exp(_log_choose(trials, k) + k * math.log(p) + (trials - k) * math.log1p(-p)) for k in counts
        )

    if least <= trials // 2:
        return max(0.0, 1.0 - total(range(least)))
    return min(1.0, total(range(least, trials + 1)))


@dataclass(frozen=True)
class Kept:
    """Whether a promise holds on new clean rows.

    Attributes:
        asked: the rate.
        flagged: of the new rows.
        rows: new rows.
        chance: of so many or more being flagged if the promise holds: beta-binomial, since the calibration rows were
            drawn too.
        level: below which chance the promise counts as broken.
    """

    asked: float
    flagged: int
    rows: int
    chance: float
    level: float

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it at this level; that is no proof that it holds."""
        return self.chance >= self.level

    @property
    def measured(self) -> float:
        """The share of the new rows that is flagged."""
        return self.flagged / self.rows


def kept(rate: float, calibration_rows: int, flagged: int, rows: int, level: float = 0.01) -> Kept:
    """A one-sided beta-binomial test of a promised rate on new clean rows.

    Given k = floor(rate (n + 1)) the number flagged among m new rows is beta-binomial(m, k, n + 1 - k), and
    stochastically smaller with ties.

    Raises:
        InputError: there are no new rows.
    """
    if rows < 1:
        raise InputError(Arg("clean"), "has no rows", remedy="pass clean rows that the detector has not seen")
    k = allowed(rate, calibration_rows)
    return Kept(rate, flagged, rows, beta_binomial_upper(flagged, rows, k, calibration_rows + 1 - k), level)


def beta_binomial_upper(least: int, trials: int, a: int, b: int) -> float:
    """The chance of at least so many successes of a beta-binomial count."""

    def term(k: int) -> float:
        return math.exp(_log_choose(trials, k) + _log_beta(k + a, trials - k + b) - _log_beta(a, b))

    if least <= trials // 2:
        return max(0.0, 1.0 - math.fsum(map(term, range(least))))
    return min(1.0, math.fsum(map(term, range(least, trials + 1))))


def two_samples(first: Tensor, second: Tensor) -> float:
    """The chance of so different clean scores (Kolmogorov-Smirnov, two-sided, asymptotic): small means they differ.

    A contaminated calibration cannot be seen in its own p-values, which are uniform by construction; its raw scores
    can be compared with those of a second clean set.
    """
    first, second = first.double().sort().values, second.double().sort().values
    both = torch.cat([first, second])
    share = [torch.searchsorted(one, both, right=True).double() / len(one) for one in (first, second)]
    distance = float((share[0] - share[1]).abs().max())
    effective = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    scaled = (effective + 0.12 + 0.11 / effective) * distance  # Stephens 1970
    if scaled < 0.3:
        return 1.0
    return min(1.0, max(0.0, 2 * math.fsum((-1) ** (j - 1) * math.exp(-2 * (j * scaled) ** 2) for j in range(1, 101))))


def _log_choose(of: int, some: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(some + 1) - math.lgamma(of - some + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
