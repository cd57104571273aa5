"""Numbers for Prometheus. Clients are never labels: their number is unbounded, and they are nobody's business there."""

from typing import TYPE_CHECKING, Any

from signstep.errors import MissingExtraError
from signstep.guard.decide import CODES, WORDS
from signstep.guard.guard import Guard
from signstep.guard.rows import Decided
from signstep.guard.watch import KINDS, Alarm

if TYPE_CHECKING:
    pass

LABELS: dict[str, tuple[str, ...]] = {
    "signstep_guard_decisions": ("action", "decided"),
    "signstep_guard_reasons": ("code",),
    "signstep_guard_alarms": ("kind",),
    "signstep_guard_http": ("status",),
}
"""The labels of every number that has some; each has few values, all of them ours."""


class Metrics:
    """The numbers of a guard.

    Raises:
        MissingExtraError: the extra guard is not installed.
    """

    def __init__(self, guard: Guard) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError as error:
            raise MissingExtraError("prometheus_client", "guard") from error
        self.registry: CollectorRegistry = CollectorRegistry()
        texts = {
            "signstep_guard_decisions": "Decisions, by what clients met and what the rules said",
            "signstep_guard_reasons": "Reasons of decisions",
            "signstep_guard_alarms": "Alarms, by kind",
            "signstep_guard_http": "Answers, by status",
        }
        made = {name: Counter(name, said, LABELS[name], registry=self.registry) for name, said in texts.items()}
        self._decisions, self._reasons, self._alarms, self._http = made.values()
        for action in WORDS:
            self._decisions.labels(action, action)
        for code in CODES:
            self._reasons.labels(code)
        for kind in KINDS:
            self._alarms.labels(kind)
        self.seconds = Histogram(
            "signstep_guard_seconds",
            "Seconds from a request to its answer",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
            registry=self.registry,
        )
        gauges: dict[str, tuple[str, Any]] = {
            "signstep_guard_store_failing": ("1 while decisions are not stored", lambda: _failing(guard)),
            "signstep_guard_store_lost": ("Decisions that were not stored", lambda: _lost(guard)),
            "signstep_guard_breaker_open": ("1 while refusing is stopped", lambda: float(guard.breaker.open)),
            "signstep_guard_held": (
                "1 while nothing is withheld",
                lambda: float(guard.rules.shadow or bool(guard.held)),
            ),
            "signstep_guard_clients": ("Clients whose state is held", lambda: float(len(guard.watch))),
            "signstep_guard_drift_log10": ("Log of the capital against exchangeability", lambda: _drift(guard)),
        }
        for name, (said, read) in gauges.items():
            Gauge(name, said, registry=self.registry).set_function(read)
        guard.heard.decisions.append(self.decided)
        guard.heard.alarms.append(self.alarmed)

    def decided(self, one: Decided) -> None:
        """Count a decision."""
        self._decisions.labels(one.action, one.decided).inc()
        for reason in one.reasons:
            self._reasons.labels(reason.code).inc()

    def alarmed(self, one: Alarm) -> None:
        """Count an alarm."""
        self._alarms.labels(one.kind).inc()

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self._http.labels(str(status)).inc()
        self.seconds.observe(seconds)

    def text(self) -> bytes:
        """The numbers as Prometheus reads them."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


def _failing(guard: Guard) -> float:
    return float(guard.store is not None and guard.store.failing is not None)


def _lost(guard: Guard) -> float:
    return 0.0 if guard.store is None else float(guard.store.lost)


def _drift(guard: Guard) -> float:
    return 0.0 if guard.watch.drift is None else guard.watch.drift.log10
