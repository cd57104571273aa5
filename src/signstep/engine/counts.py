"""A count with its denominator and its interval."""

from dataclasses import dataclass

from signstep.engine.statistics import wilson


@dataclass(frozen=True)
class Count:
    """So many of so many.

    >>> print(Count(31, 120))
    31 of 120 (25.8 %, 95 % interval 18.8 % to 34.3 %)
    """

    hits: int
    of: int

    @property
    def share(self) -> float | None:
        """Hits per trial; None without trials."""
        return self.hits / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the share."""
        return wilson(self.hits, self.of)

    def __add__(self, other: "Count") -> "Count":
        return Count(self.hits + other.hits, self.of + other.of)

    def __str__(self) -> str:
        if self.share is None:
            return "0 of 0"
        share, low, high = (f"{100 * part:.1f} %" for part in (self.share, *self.interval))
        return f"{self.hits} of {self.of} ({share}, 95 % interval {low} to {high})"
