"""What is known of a guard from its store and its calibration: what reports and pages say, gathered once."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from signstep.errors import LoadError
from signstep.guard.challenge import Challenged, last
from signstep.guard.service import Service
from signstep.guard.store import Store
from signstep.io.documents import json_value

NOTE = "service"
"""Under which name the store keeps how the service was started."""


@dataclass(frozen=True)
class Settings:
    """How a service was started; the store keeps it, so that reports need nobody's word for it.

    Attributes:
        at: seconds since 1970.
        digest: of the weights.
        model: what the model is called.
        detectors: names and options.
        promise: the band of false alarms, in words.
        rows: of the calibration.
        made: of the calibration, seconds since 1970.
        reject: the rate.
        review: the rate.
        low_confidence: below which answers go to a person.
        shadow: whether nothing is withheld.
        rate: inputs a second of one client; 0 for no bound.
        keys_only: whether a key is asked for.
        tell: whether clients see reasons.
        scores: whether clients see all scores.
        webhook: whether alarms go to an address.
        height: of the chart of flags.
        length: inputs from one false alarm of it to the next.
    """

    at: float = 0.0
    digest: str = ""
    model: str = ""
    detectors: tuple[str, ...] = ()
    promise: str = ""
    rows: int = 0
    made: float = 0.0
    reject: float = 0.0
    review: float = 0.0
    low_confidence: float = 0.0
    shadow: bool = False
    rate: float = 0.0
    keys_only: bool = False
    tell: bool = False
    scores: bool = False
    webhook: bool = False
    height: int = 0
    length: float = 0.0

    def keep(self, store: Store) -> None:
        """Write them into the store."""
        notes = store.tables.notes
        store.change(notes.delete().where(notes.c.name == NOTE))
        store.change(notes.insert().values(name=NOTE, value=json.dumps(asdict(self))))

    @classmethod
    def kept(cls, store: Store) -> "Settings":
        """Those of the last start; the usual ones where there was none.

        Raises:
            LoadError: the store holds something else there.
        """
        notes = store.tables.notes
        rows = store.read(notes.select().where(notes.c.name == NOTE))
        try:
            plain = json_value(rows[0]["value"], "what is said of the service") if rows else {}
            return cls(**{**plain, "detectors": tuple(plain.get("detectors", ()))})
        except (TypeError, ValueError) as error:
            raise LoadError("the store does not say how the service was started", remedy="start it again") from error


@dataclass(frozen=True)
class Facts(Settings):
    """And what came of it.

    Attributes:
        decisions: in the store.
        actions: by what the rules decided.
        flagged: of them.
        alarms: by kind.
        queue: decisions that wait for a person.
        reviewed: decisions that a person has seen.
        keys: that count.
        first: time of the first decision; 0 without one.
        challenge: the last one.
    """

    decisions: int = 0
    actions: Mapping[str, int] = field(default_factory=dict)
    flagged: int = 0
    alarms: Mapping[str, int] = field(default_factory=dict)
    queue: int = 0
    reviewed: int = 0
    keys: int = 0
    first: float = 0.0
    challenge: Challenged | None = None

    def decided(self, action: str) -> int:
        """Decisions of this kind."""
        return self.actions.get(action, 0)

    def alarms_of(self, *kinds: str) -> int:
        """Alarms of these kinds."""
        return sum(self.alarms.get(kind, 0) for kind in kinds)

    def age(self, now: float | None = None) -> float:
        """Days since the calibration was made."""
        return ((time.time() if now is None else now) - self.made) / 86_400


def settings_of(service: Service, *, webhook: bool = False) -> Settings:
    """How a service is started."""
    guard, offered = service.guard, service.offered
    known, chart = guard.calibration, guard.watch.watching.flags
    return Settings(
        time.time(),
        guard.digest,
        guard.model.title,
        tuple(getattr(one, "title", name) for one, name in zip(guard.policy.detectors, guard.names, strict=True)),
        "" if guard.band is None else str(guard.band),
        0 if known is None else known.rows,
        0.0 if known is None else known.made,
        guard.policy.reject,
        guard.policy.review,
        guard.rules.low_confidence,
        guard.rules.shadow or "new-model" in guard.held,
        service.limits.rate,
        offered.keys_only,
        offered.tell,
        offered.scores,
        webhook,
        chart.height,
        chart.length,
    )


def gathered(store: Store) -> Facts:
    """The facts of a store.

    Raises:
        LoadError: it cannot be read.
    """
    tables = store.tables
    counts: dict[str, int] = {}
    for row in store.read(tables.counts()):
        counts[row["decided"]] = counts.get(row["decided"], 0) + row["inputs"]
    (sums,) = store.read(tables.sums())
    alarms = {row["kind"]: row["count"] for row in store.read(tables.alarm_counts())}
    (keys,) = store.read(tables.key_count())
    return Facts(
        **vars(Settings.kept(store)),
        decisions=sums["decisions"],
        actions=counts,
        flagged=sums["flagged"] or 0,
        alarms=alarms,
        queue=sums["queue"] or 0,
        reviewed=sums["reviewed"] or 0,
        keys=keys["count"],
        first=sums["first"] or 0.0,
        challenge=last(store),
    )
