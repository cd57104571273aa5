"""A policy in an audit: what its detectors say of each batch, and the attacker who knows of them, batch by batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from signstep.auditing.detection import NOT_ASKED, Detection, Judge
from signstep.detectors.policy import Policy
from signstep.detectors.pursuing import Way, pursue
from signstep.detectors.seen import Reader, Seen
from signstep.engine.keys import Key
from signstep.engine.outcome import Outcome
from signstep.engine.tree import per_row
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.search import Search
from signstep.model.subject import Question


@dataclass(eq=False)
class _Columns:
    """Letters and p-values of the examples so far."""

    clean: list[list[float]]
    attacked: list[dict[str, list[float | None]]]
    evaded: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    ways: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, detectors: int) -> "_Columns":
        """None yet."""
        return cls([[] for _ in range(detectors)], [{} for _ in range(detectors)])

    def extend(self, more: "_Columns") -> None:
        """Those of a further batch."""
        for mine, others in zip(self.clean, more.clean, strict=True):
            mine.extend(others)
        for known, there in zip(self.attacked, more.attacked, strict=True):
            for name, column in there.items():
                known.setdefault(name, []).extend(column)
        self.evaded += more.evaded
        self.denied += more.denied
        for name, count in more.ways.items():
            self.ways[name] = self.ways.get(name, 0) + count
        self.notes += [note for note in more.notes if note not in self.notes]


class Watch:
    """The policy of an audit, if it has one."""

    def __init__(
        self, policy: Policy | None, model: Model, search: Search, names: Sequence[str], ways: Sequence[Way] | None
    ) -> None:
        """See `Watch`.

        Args:
            policy: None for none.
            model: that is audited.
            search: of the audit.
            names: of its attacks.
            ways: of the attacker who knows; None for all.

        Raises:
            InputError: the detectors belong to another model, or the audit is one that they have no place in.
        """
        if policy is not None and not isinstance(policy, Policy):
            raise InputError(Arg("policy", policy), remedy="pass an ss.Policy")
        self._policy, self._names, self._ways = policy, names, ways
        self._columns = _Columns.empty(0 if policy is None else len(policy.detectors))
        self._next: _Columns | None = None
        if policy is None:
            return
        policy.refuse_other(model)
        for name, plain in (("target", None), ("budget", "raw")):
            if getattr(search, name) != plain:
                raise InputError(
                    Arg(name, getattr(search, name)), "has no meaning beside a policy", remedy="leave one of them out"
                )
        self._reader = Reader.of(model)

    def look(self, question: Question, ran: Mapping[str, tuple[Outcome, Tensor | None]], key: Key) -> None:
        """Ask the detectors about a batch and its attacked points, and attack both; it counts once it is added."""
        policy, x = self._policy, question.x
        if policy is None:
            return
        if not isinstance(x, Tensor):
            raise InputError("detectors look at one tensor, and several inputs are attacked", remedy="attack one")
        found = _Columns.empty(len(policy.detectors))
        wrong = question.clean.fooled if question.wrong is None else question.wrong
        flagged = self._clean(policy, x, found)
        begin = x
        for name in self._names:
            if name not in ran:
                for column in found.attacked:
                    column[name] = [None] * len(x)
                continue
            outcome = ran[name][0]
            assert isinstance(outcome.x, Tensor)
            hit = outcome.fooled & ~wrong
            unseen = self._attacked(policy, name, outcome.x, hit, found)
            # The best that plain attacks know: a point that evades before one that fools.
            begin = torch.where(per_row(unseen | (hit & (begin == x).flatten(1).all(1)), x), outcome.x, begin)
        known = pursue(question, policy, key, begin=begin, standing=~wrong, ways=self._ways)
        evaded = known.fooled & ~wrong
        found.evaded.append(_letters(evaded, wrong))
        for way, hit in zip(known.by, evaded.tolist(), strict=True):
            if hit:
                found.ways[way] = found.ways.get(way, 0) + 1
        settled = wrong | flagged
        denial = pursue(question, policy, key, deny=True, standing=~settled)
        found.denied.append(_letters(denial.fooled & ~settled, settled))
        found.notes += [*known.notes, *denial.notes]
        self._next = found

    def add(self) -> None:
        """The batch counts."""
        if self._next is not None:
            self._columns.extend(self._next)
        self._next = None

    def notes(self) -> tuple[str, ...]:
        """What the reader must know."""
        return tuple(self._columns.notes)

    def record(self) -> Detection | None:
        """The fields of the record; None without a policy."""
        policy, columns = self._policy, self._columns
        if policy is None:
            return None
        titles = [one.title for one in policy.detectors]
        judges = tuple(
            Judge(
                one.title if titles.index(one.title) == who else f"{one.title} #{titles[: who + 1].count(one.title)}",
                len(one.calibration),
                one.passes,
                one.classes is not None,
                one.recipes,
                dict(one.digests),
                tuple(columns.clean[who]),
                {name: tuple(columns.attacked[who].get(name, ())) for name in self._names},
            )
            for who, one in enumerate(policy.detectors)
        )
        return Detection(
            policy.rule,
            policy.reject,
            policy.review,
            judges,
            "".join(columns.evaded),
            "".join(columns.denied),
            dict(sorted(columns.ways.items())),
        )

    @torch.no_grad()
    def _clean(self, policy: Policy, x: Tensor, found: _Columns) -> Tensor:
        decided = policy.decide_seen(Seen(self._reader, x))
        for who in range(len(policy.detectors)):
            found.clean[who] = decided.p_values[:, who].tolist()
        return decided.flagged.to(x.device)

    @torch.no_grad()
    def _attacked(self, policy: Policy, name: str, point: Tensor, hit: Tensor, found: _Columns) -> Tensor:
        """Book p-values of the rows (R,) that were fooled; which of them nobody flags."""
        index = hit.nonzero().squeeze(1)
        columns: list[list[float | None]] = [[None] * len(point) for _ in policy.detectors]
        unseen = torch.zeros_like(hit)
        if len(index):
            decided = policy.decide_seen(Seen(self._reader, point[index]))
            for who, column in enumerate(columns):
                for row, p in zip(index.tolist(), decided.p_values[:, who].tolist(), strict=True):
                    column[row] = p
            unseen[index] = ~decided.flagged.to(hit.device)
        for who, column in enumerate(columns):
            found.attacked[who][name] = column
        return unseen


def _letters(hit: Tensor, aside: Tensor) -> str:
    rows = zip(hit.tolist(), aside.tolist(), strict=True)
    return "".join(NOT_ASKED if out else "f" if reached else "h" for reached, out in rows)
