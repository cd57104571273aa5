"""How often an endpoint may be asked, how fast, and what that comes to: budget, rate, waits, price."""

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from signstep.errors import InputError
from signstep.messages import Arg


class Clock(Protocol):
    """What tells time and waits; tests have one of their own."""

    def now(self) -> float:
        """Seconds, from some beginning."""

    def wall(self) -> datetime:
        """The date, with its zone."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's own."""

    def now(self) -> float:
        """Seconds, from some beginning."""
        return time.monotonic()

    def wall(self) -> datetime:
        """The date, with its zone."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


@dataclass(frozen=True)
class Limits:
    """What an endpoint may cost.

    Attributes:
        timeout: seconds that a request may take.
        retries: how often a request is repeated that came to nothing and may come to something later.
        backoff: seconds before the first repetition; each further one waits twice as long, and between half and all of
            that, by its number.
        longest_wait: seconds of a wait at most; a server that asks for more is not asked again.
        requests_per_second: at most; None for no bound.
        max_requests: in all, repetitions included; None for no bound.
        price: of a request; None where it is not known.
        currency: of the price, in words.
    """

    timeout: float = 10.0
    retries: int = 3
    backoff: float = 0.5
    longest_wait: float = 60.0
    requests_per_second: float | None = None
    max_requests: int | None = None
    price: float | None = None
    currency: str = ""

    def __post_init__(self) -> None:
        fine = 0 < self.timeout <= 3600 and 0 <= self.retries <= 100
        if not (fine and 0 <= self.backoff <= 3600 and 0 <= self.longest_wait <= 86400):
            raise InputError(
                Arg("timeout", self.timeout),
                Arg("retries", self.retries),
                Arg("backoff", self.backoff),
                remedy="pass timeout > 0, retries >= 0 and backoff >= 0, seconds of an hour at most",
            )
        if self.requests_per_second is not None and not 1e-4 <= self.requests_per_second <= 1e6:
            raise InputError(
                Arg("requests_per_second", self.requests_per_second), remedy="pass a number above 0, or leave it out"
            )
        if self.max_requests is not None and self.max_requests < 1:
            raise InputError(
                Arg("max_requests", self.max_requests), remedy="pass at least 1, or leave it out for no bound"
            )
        if self.price is not None and not 0 <= self.price < 1e9:
            raise InputError(Arg("price", self.price), remedy="pass what a request costs, at least 0")


@dataclass(frozen=True)
class Spent:
    """What was asked of an endpoint.

    Attributes:
        requests: sent, repetitions included.
        retries: of these, repetitions.
        waited: seconds between requests, for the rate and before repetitions.
        most: that may be sent in all, or None.
        cost: of the requests, or None where no price is known.
        currency: of the cost.
        contradictions: answers that differ from an earlier one to the same question.
    """

    requests: int = 0
    retries: int = 0
    waited: float = 0.0
    most: int | None = None
    cost: float | None = None
    currency: str = ""
    contradictions: int = 0

    def since(self, before: "Spent") -> "Spent":
        """What was asked after ``before``."""
        cost = None if self.cost is None else round(self.cost - (before.cost or 0.0), 9)
        return Spent(
            self.requests - before.requests,
            self.retries - before.retries,
            round(self.waited - before.waited, 3),
            self.most,
            cost,
            self.currency,
            self.contradictions - before.contradictions,
        )

    def plain(self) -> dict[str, Any]:
        """For records."""
        return {
            "sent": self.requests,
            "retries": self.retries,
            "waited": round(self.waited, 3),
            "most": self.most,
            "cost": self.cost,
            "currency": self.currency,
            "contradictions": self.contradictions,
        }


class Pace:
    """Counts requests, and waits where the limits want it."""

    def __init__(self, limits: Limits, clock: Clock | None = None) -> None:
        self.limits, self.clock = limits, clock or SystemClock()
        self.requests = self.retries = 0
        self.waited = 0.0
        self._last: float | None = None

    @property
    def left(self) -> int | None:
        """Requests that may still be sent; None for any number."""
        most = self.limits.max_requests
        return None if most is None else max(0, most - self.requests)

    def take(self, *, again: bool) -> None:
        """Wait for the rate, and count a request, before it is sent: an interruption on the way leaves it counted."""
        assert self.left != 0
        rate = self.limits.requests_per_second
        if rate is not None and self._last is not None:
            self.wait(max(0.0, self._last + 1 / rate - self.clock.now()))
        self._last = self.clock.now()
        self.requests += 1
        self.retries += again

    def wait(self, seconds: float) -> None:
        """Wait, and count it."""
        if seconds > 0:
            self.waited += seconds
            self.clock.sleep(seconds)

    def before_repetition(self, number: int, asked: str | None) -> float | None:
        """Seconds to wait before the repetition of that number, from 1; None where the server asks for too many.

        What the server asks for (``Retry-After``: seconds, or a date) is kept; else the wait doubles each time. Where
        in the upper half of it, the number of requests so far says: the same on every run, and not in step with others.
        """
        wanted = self._asked_for(asked)
        if wanted is not None:
            return wanted if wanted <= self.limits.longest_wait else None
        whole = min(self.limits.longest_wait, self.limits.backoff * 2.0 ** min(number - 1, 60))
        digest = hashlib.sha256(f"{self.requests}:{number}".encode()).digest()
        return whole * (0.5 + 0.5 * int.from_bytes(digest[:4], "big") / 2**32)

    def _asked_for(self, asked: str | None) -> float | None:
        text = (asked or "").strip()
        if not text:
            return None
        if text.isascii() and text.isdecimal():
            return float(text[:12]) if len(text) < 12 else float("inf")
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0.0, (date - self.clock.wall()).total_seconds())
