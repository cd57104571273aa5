"""Attacking one's own guard: a client of the running service for each attacker, and the store to see what each set off.

What is reported is what an operator needs: how often an attacker had a wrong answer before the first alarm about it, at
how many queries, what each layer refused, and beside it what the same service does to clean traffic.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from signstep.engine.threat import ThreatModel
from signstep.engine.tree import Tree
from signstep.engine.untouched import untouched
from signstep.errors import InputError, LoadError
from signstep.guard.asking import Client
from signstep.guard.attackers import KEYS_OF_MANY, NAMES, Means, Target, Try, around, tried
from signstep.guard.identity import new_key, revoke
from signstep.guard.rows import Decided
from signstep.guard.store import Store
from signstep.guard.tables import MOST
from signstep.io.documents import json_value
from signstep.messages import Arg
from signstep.model.declaration import Model

NOTE = "challenge"
"""Under which name the store keeps the last one."""


@dataclass(frozen=True)
class Attacked:
    """What came of one attacker.

    Attributes:
        name: of the attacker; "clean" for clean traffic.
        targets: inputs that it started from.
        successes: of them that it got a wrong answer for.
        before_alarm: of these, those before the first alarm about it.
        queries: it spent in all.
        queries_each: the median over its successes; None without one.
        first_alarm: the query at which the first alarm about it came; None without one.
        alarms: by kind.
        actions: by what the rules decided.
        reasons: decisions by the code of each reason: what each layer caught.
    """

    name: str
    targets: int
    successes: int
    before_alarm: int
    queries: int
    queries_each: float | None
    first_alarm: int | None
    alarms: dict[str, int]
    actions: dict[str, int]
    reasons: dict[str, int]


@dataclass(frozen=True)
class Challenged:
    """A challenge.

    Attributes:
        at: seconds since 1970.
        threat: what attackers could change.
        queries: for each target, at most.
        digest: of the weights that answered.
        clean: what became of clean traffic.
        attacked: by attacker.
        notes: what the reader must know.
    """

    at: float
    threat: str
    queries: int
    digest: str
    clean: Attacked
    attacked: tuple[Attacked, ...]
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Challenged":
        """From JSON.

        Raises:
            LoadError: it is none.
        """
        try:
            plain = json_value(text, "the challenge")
            clean, attacked = Attacked(**plain.pop("clean")), tuple(Attacked(**one) for one in plain.pop("attacked"))
            return cls(**{**plain, "notes": tuple(plain["notes"])}, clean=clean, attacked=attacked)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise LoadError(f"this is no challenge ({error})", remedy="run signstep guard challenge again") from error

    def __str__(self) -> str:
        rows = [("attacker", "success", "before alarm", "queries", "first alarm at", "refused", "alarms")]
        for one in (self.clean, *self.attacked):
            refused = sum(count for action, count in one.actions.items() if action != "accept")
            won = "-" if one.name == "clean" else f"{one.successes}/{one.targets}"
            rows.append(
                (
                    one.name,
                    won,
                    "-" if one.name == "clean" else str(one.before_alarm),
                    str(one.queries),
                    "-" if one.first_alarm is None else str(one.first_alarm),
                    f"{refused / max(one.queries, 1):.1%}",
                    ", ".join(f"{kind} {count}" for kind, count in sorted(one.alarms.items())) or "-",
                )
            )
        wide = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        table = "\n".join(
            "  ".join(cell.ljust(size) for cell, size in zip(row, wide, strict=True)).rstrip() for row in rows
        )
        return "\n".join([table, *self.notes])


@dataclass(frozen=True)
class Battle:
    """What a challenge is made of.

    Attributes:
        url: of the running service.
        store: of that service.
        surrogate: the attackers' own model.
        x: clean inputs (R, ...): targets first, then what attackers hide among and clean traffic is made of.
        y: their labels.
        threat: what may change.
        attackers: by name.
        examples: targets of each attacker.
        queries: for each target, at most.
        clean: inputs of clean traffic.
        seed: of the searches.
    """

    url: str
    store: Store
    surrogate: Model
    x: Tensor
    y: Tensor
    threat: ThreatModel
    attackers: Sequence[str] = NAMES
    examples: int = 5
    queries: int = 200
    clean: int = 100
    seed: int = 0


def challenge(battle: Battle) -> Challenged:
    """Attack a running guard, each attacker with keys of its own, which are revoked afterwards.

    Raises:
        InputError: an attacker that there is not, or too few inputs.
        VictimError: the service does not answer.
    """
    unknown = [name for name in battle.attackers if name not in NAMES]
    if unknown:
        raise InputError(Arg("attacker", unknown[0]), remedy=f"pass one of {', '.join(NAMES)}")
    if len(battle.x) < battle.examples + 20:
        raise InputError(
            Arg("examples", battle.examples), f"and {len(battle.x)} inputs leave too few clean ones", remedy="pass more"
        )
    if battle.examples < 1 or battle.queries < 1:
        name = "examples" if battle.examples < 1 else "queries"
        raise InputError(Arg(name, getattr(battle, name)), remedy="pass at least 1")
    spare, answered = battle.x[battle.examples :], ""
    parts: list[Attacked] = []
    for place, name in enumerate(("clean", *battle.attackers)):
        keys = [new_key(battle.store, f"{NOTE} {name}") for _ in range(KEYS_OF_MANY if name == "many" else 1)]
        client = Client(battle.url, keys)
        try:
            if name == "clean":
                tries = _clean(client, spare[: battle.clean])
            else:
                going = around(spare.roll(place * 7, 0))()
                means = Means(client, battle.surrogate, battle.threat, battle.queries, going, battle.seed + place)
                tries = [tried(name, target, means) for target in _targets(battle)]
            rows = _decisions(battle.store, keys)
            answered = rows[-1].digest if rows else answered
            parts.append(_summed(name, tries, len(client.asked), rows, _alarms(battle.store, rows)))
        finally:
            client.close()
            for key in keys:
                revoke(battle.store, key.split("_")[1])
    found = Challenged(time.time(), str(battle.threat), battle.queries, answered, parts[0], tuple(parts[1:]))
    _keep(battle.store, found)
    return found


def rows_of(batches: Iterable[tuple[Tree, Tensor | None]], model: Model, most: int) -> tuple[Tensor, Tensor]:
    """The first clean inputs that the model is right about, and their labels.

    Raises:
        InputError: there are several inputs to the model, or none that it is right about.
    """
    parts: list[Tensor] = []
    labels: list[Tensor] = []
    for x, y in batches:
        if not isinstance(x, Tensor):
            raise InputError(
                Arg("data"), "has several inputs, and a guard looks at one tensor", remedy="pass such data"
            )
        with torch.no_grad(), untouched(model.network, mode=model.mode):
            said = model(x).argmax(-1).cpu()
        right = torch.ones(len(x), dtype=torch.bool, device="cpu") if y is None else said == y.cpu()
        parts.append(x[right])
        labels.append(said[right])
        if sum(map(len, parts)) >= most:
            break
    if not sum(map(len, parts)):
        raise InputError(Arg("data"), "has no input that the model is right about", remedy="pass clean inputs")
    return torch.cat(parts)[:most], torch.cat(labels)[:most]


def _targets(battle: Battle) -> list[Target]:
    return [Target(battle.x[n : n + 1], battle.y[n : n + 1]) for n in range(battle.examples)]


def _clean(client: Client, rows: Tensor) -> list[Try]:
    for row in rows:
        client(row[None])
    return []


def _decisions(store: Store, keys: Sequence[str]) -> list[Decided]:
    """The decisions about these keys, in order."""
    found: list[dict[str, Any]] = []
    for key in keys:
        found += store.read(store.tables.log(client=f"key {key.split('_')[1]}", limit=MOST))
    return [Decided.of(row) for row in sorted(found, key=lambda row: row["seq"])]


def _alarms(store: Store, rows: Sequence[Decided]) -> list[tuple[int, str]]:
    """The alarms that these decisions set off, by the place of the decision."""
    places = {row.id: place for place, row in enumerate(rows)}
    start = min((row.at for row in rows), default=time.time()) - 1
    said = store.read(store.tables.alarm_log(since=start, limit=MOST))
    return sorted((places[row["decision"]], row["kind"]) for row in said if row["decision"] in places)


def _summed(
    name: str, tries: Sequence[Try], asked: int, rows: Sequence[Decided], alarms: Sequence[tuple[int, str]]
) -> Attacked:
    places = {row.id: place for place, row in enumerate(rows)}
    first = alarms[0][0] if alarms else None
    won = [one for one in tries if one.success]
    before = [one for one in won if first is None or places.get(one.decision, len(rows)) < first]
    return Attacked(
        name,
        len(tries),
        len(won),
        len(before),
        asked,
        median(one.queries for one in won) if won else None,
        None if first is None else first + 1,
        dict(Counter(kind for _, kind in alarms)),
        dict(Counter(row.decided for row in rows)),
        dict(Counter(reason.code for row in rows for reason in row.reasons)),
    )


def _keep(store: Store, found: Challenged) -> None:
    notes = store.tables.notes
    store.change(notes.delete().where(notes.c.name == NOTE))
    store.change(notes.insert().values(name=NOTE, value=found.to_json()))


def last(store: Store) -> Challenged | None:
    """The last challenge that the store knows of."""
    rows = store.read(store.tables.notes.select().where(store.tables.notes.c.name == NOTE))
    return Challenged.from_json(rows[0]["value"]) if rows else None
