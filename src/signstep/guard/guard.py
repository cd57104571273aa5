"""The guard around a model: it asks the policy, decides, remembers, raises alarms, and answers."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from signstep.detectors.digests import model_digest
from signstep.engine.untouched import untouched
from signstep.errors import InputError, SignstepError
from signstep.guard.band import Band
from signstep.guard.breaker import Breaker
from signstep.guard.calibration import Calibration
from signstep.guard.charts import designed
from signstep.guard.decide import Action, Reason, Rules, Seen, Verdict, Word, decide
from signstep.guard.drift import Drift
from signstep.guard.fingerprints import Fingerprints
from signstep.guard.policies import Policy, policy_band
from signstep.guard.rows import LONGEST, Alarmed, Decided, packed
from signstep.guard.store import Keep, Store, begun
from signstep.guard.watch import Alarm, Input, Watch, Watching
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.version import weights_version

LOG = logging.getLogger("signstep.guard")
_LOW = 0.5  # confidence below which an answer counts as low, where no rule says another
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Answer:
    """What a client gets, and what its operator may know.

    Attributes:
        action: "accept", "review" or "reject": what is to be done.
        label: the model's answer; None where it is withheld.
        name: of that class.
        p_value: of the policy; small for odd inputs. None where there is none.
        reasons: why it was not simply accepted.
        id: that leads to the log, the queue and the alarms.
        decided: what the rules said, also where nothing is withheld (shadow mode).
        confidence: of the answer; None where it is withheld.
        scores: of the model; None where they are withheld.
        stored: whether the decision is in the store.
    """

    action: Word
    label: int | None
    name: str
    p_value: float | None
    reasons: tuple[Reason, ...]
    id: str
    decided: Word
    confidence: float | None = None
    scores: tuple[float, ...] | None = None
    stored: bool = False


@dataclass(frozen=True)
class Judged:
    """An answer that may leave once its decision is stored.

    Attributes:
        answer: to leave.
        stored: done after the commit.
    """

    answer: Answer
    stored: "Future[bool]"


@dataclass
class Heard:
    """Who is told: each is called with what it is named after, and must not block.

    Attributes:
        decisions: with each decision.
        alarms: with each alarm.
        troubles: with a sentence, where the guard itself is in trouble.
    """

    decisions: list[Callable[[Decided], None]] = field(default_factory=list)
    alarms: list[Callable[[Alarm], None]] = field(default_factory=list)
    troubles: list[Callable[[str], None]] = field(default_factory=list)


class Guard:
    """A model that refuses, asks a person, notices who is probing it, and says so.

    Args:
        model: a `signstep.Model`, or any network.
        policy: with detectors that are calibrated.
        store: address of the memory, ``sqlite:///guard.db`` or ``postgresql://...``; None keeps no decision.
        rules: what is done; None for the usual.
        calibration: what is known of clean inputs (`signstep.guard.calibration`); None where nothing is: then there are
            no checks of ends, no charts of steps, and the rate of false flags is taken to be twice the nominal one.
        keep: how much is kept.
        watching: how clients are watched; None designs it from the calibration.

    Raises:
        InputError: something that makes no sense.
        LoadError: the store cannot be opened.

    Example:
        guard = ss.Guard(model, policy, store="sqlite:///guard.db")
        a = guard(x, client="key-17")
        a.action, a.label, a.p_value, a.reasons, a.id
    """

    def __init__(
        self,
        model: Any,
        policy: Policy,
        *,
        store: str | Path | None = None,
        rules: Rules | None = None,
        calibration: Calibration | None = None,
        keep: Keep | None = None,
        watching: Watching | None = None,
    ) -> None:
        if not callable(getattr(policy, "decide", None)):
            raise InputError(Arg("policy", policy), "decides nothing", remedy="pass a signstep.Policy")
        self.model, self.policy, self.calibration = Model.of(model), policy, calibration
        self.rules, self.heard = rules or Rules(), Heard()
        self.names = [str(getattr(one, "name", type(one).__name__)) for one in policy.detectors]
        self.band = policy_band(policy, calibration)
        self.watch = self._watch(watching or watching_for(self.policy, self.band, self.calibration))
        self.breaker = Breaker(self.rules.breaker_share, self.rules.breaker_clients)
        self._lock = threading.Lock()
        self._version: object = None
        self._digest = ""
        self.keep = keep or Keep()
        self.store = None if store is None else Store(str(store), self.keep, said=self._trouble)

    @property
    def digest(self) -> str:
        """SHA-256 of the layers and weights as they are now."""
        network = self.model.network
        version = weights_version(network.modules()) if isinstance(network, nn.Module) else ()
        if version != self._version:
            self._digest, self._version = model_digest(self.model), version
        return self._digest

    @property
    def held(self) -> tuple[str, ...]:
        """Codes of what keeps the guard from withholding now."""
        return self._held(self.digest)

    def _held(self, digest: str) -> tuple[str, ...]:
        codes = ["breaker"] if self.breaker.open else []
        known = "" if self.calibration is None else self.calibration.digest
        if known and digest != known:
            codes.append("new-model")
        return tuple(codes)

    def __call__(self, x: Tensor | Array, client: str = "local") -> Answer:
        """Judge one input: (1, ...), or (...) of the shape that the guard was calibrated for.

        The answer comes after its decision is stored; where the store fails, ``stored`` is False.

        Raises:
            InputError: x is no single input.
        """
        made = torch.as_tensor(x)  # any dtype, any device: those of what was passed
        shape = self.shape
        if shape is not None and tuple(made.shape) == shape:
            made = made[None]
        if made.ndim < 2 or len(made) != 1:
            raise InputError(
                Arg("x", tuple(made.shape), of="shape"), "is no single input", remedy="call many() for several"
            )
        return self.many(made, [client])[0]

    def many(self, x: Tensor | Array, clients: Sequence[str]) -> list[Answer]:
        """Judge inputs (R, ...), the client of each beside it."""
        judged = self.judge(torch.as_tensor(x), clients)  # any dtype, any device: those of what was passed
        return [_with(one.answer, stored=one.stored.result()) for one in judged]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of one input; None where that is not known."""
        if self.calibration is not None:
            return self.calibration.shape
        known = self.model.shape
        if known is None or any(size is None for size in known):
            return None
        return tuple(int(size) for size in known if size is not None)

    def judge(self, x: Tensor, clients: Sequence[str]) -> list[Judged]:
        """Judge inputs and do not wait for the store: no answer may leave before its future is done.

        Raises:
            InputError: the inputs do not have the shape that the guard was calibrated for, or a client each.
        """
        if len(x) != len(clients):
            raise InputError(
                Arg("clients", len(clients), of="length"), f"and x {len(x)} rows", remedy="pass one for each"
            )
        if self.shape is not None and tuple(x.shape[1:]) != self.shape:
            raise InputError(
                Arg("x", tuple(x.shape[1:]), of="shape"),
                f"without its rows, not {self.shape}",
                remedy="pass such inputs",
            )
        x = x.detach().float()
        faults = [self._faults(row) for row in x]
        # A row that no model can take is judged as zeros: the passes are the same whatever is sent.
        clean = torch.stack([row if not fault else torch.zeros_like(row) for row, fault in zip(x, faults, strict=True)])
        asked = self._asked(clean)
        digest = self.digest
        rows = x.cpu().numpy()
        with self._lock:
            return [
                self._one(rows[place], client[:LONGEST], asked[place], faults[place], digest)
                for place, client in enumerate(clients)
            ]

    def close(self) -> None:
        """Store what waits, and leave the store."""
        if self.store is not None:
            self.store.close()

    def __enter__(self) -> "Guard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _faults(self, row: Tensor) -> tuple[str, ...]:
        if not bool(torch.isfinite(row).all()):
            return ("it has numbers that are not finite",)
        box = None if self.calibration is None else self.calibration.box
        if box is not None:
            low, high, slack = float(row.min()), float(row.max()), 1e-6 * (box[1] - box[0])
            if low < box[0] - slack or high > box[1] + slack:
                return (f"its numbers go from {low:.4g} to {high:.4g}, outside of {box[0]:.4g} to {box[1]:.4g}",)
        return ()

    def _asked(self, x: Tensor) -> list["_Row"]:
        """What policy and model say of each row; where one row stops them all, row by row."""
        try:
            with torch.no_grad():
                said = self.policy.decide(x)
            answers = self._answered(x) if said.answers is None else said.answers
            numbers = [np.asarray(part.cpu() if isinstance(part, Tensor) else part) for part in
                       (said.action, said.p_value, said.by, answers)]  # fmt: skip
            if any(len(part) != len(x) for part in numbers):
                raise InputError("the policy answered fewer rows than it was asked", remedy="see its code")
            return [self._row(*row) for row in zip(*numbers, strict=True)]
        except Exception as error:  # of the user's model: it must not end the service
            if len(x) > 1:
                return [self._asked(row[None])[0] for row in x]
            text = str(error) if isinstance(error, SignstepError) else type(error).__name__
            self._trouble(f"an input could not be judged: {text}")
            return [_Row(Action.ACCEPT, None, "", self._answer_alone(x), text)]

    def _answer_alone(self, x: Tensor) -> Array | None:
        if self.rules.fail == "closed":
            return None
        try:
            return self._answered(x)[0].float().cpu().numpy()
        except Exception:
            return None

    def _answered(self, x: Tensor) -> Tensor:
        """Scores (R, K) of the model by itself, where no detector asked it."""
        with torch.no_grad(), untouched(self.model.network, mode=self.model.mode):
            scores = self.model(x).float()
        return scores[:, None] if scores.ndim == 1 else scores

    def _row(self, action: Any, p_value: Any, by: Any, scores: Array) -> "_Row":
        name = self.names[int(by)] if 0 <= int(by) < len(self.names) else ""
        return _Row(Action(int(action)), float(p_value), name, scores, None)

    def _one(self, x: Array, client: str, row: "_Row", faults: tuple[str, ...], digest: str) -> Judged:
        label, confidence = (None, None) if row.scores is None or faults else best(row.scores, self.model.outputs)
        seen = Seen(
            row.action if not faults else Action.ACCEPT,
            None if faults else row.p_value,
            row.detector,
            confidence,
            faults,
            self.watch.alarm_of(client),
            row.error,
        )
        verdict = decide(seen, self.rules, held=self._held(digest))
        if label is None and verdict.action == "accept":  # fail-open, and the model itself fails
            verdict = Verdict("reject", "reject", verdict.reasons, verdict.flagged)
        low = confidence is not None and confidence < (self.rules.low_confidence or _LOW)
        ident, now = secrets.token_hex(8), time.time()
        told = Input(x, client, verdict.flagged, low, label, None if faults else row.p_value, ident)
        alarms = self.watch.saw(told)
        if self.breaker.saw(client, verdict.flagged):
            flagged, all_ = self.breaker.flagged
            word = "stopped" if self.breaker.open else "goes on"
            alarms.append(
                Alarm("breaker", "", f"{flagged} of {all_} clients were flagged last: refusing {word}", ident)
            )
        decided = self._decided(told, verdict, seen, now, digest)
        for alarm in alarms:
            LOG.warning("alarm %s %s %s", alarm.kind, alarm.client, alarm.text)
            for hear in self.heard.alarms:
                hear(alarm)
        for listen in self.heard.decisions:
            listen(decided)
        shown = verdict.action == "accept" or (verdict.action == "review" and self.rules.review == "mark")
        shown = shown and label is not None
        answer = Answer(
            verdict.action,
            label if shown else None,
            decided.name if shown else "",
            seen.p_value,
            verdict.reasons,
            ident,
            verdict.decided,
            confidence if shown else None,
            tuple(float(score) for score in row.scores) if shown and row.scores is not None else None,
        )
        return Judged(answer, self._stored(decided, alarms, now))

    def _decided(self, told: Input, verdict: Verdict, seen: Seen, now: float, digest: str) -> Decided:
        kept = self.keep.inputs == "all" or (self.keep.inputs == "flagged" and verdict.decided != "accept")
        names, label = self.model.classes, told.label
        return Decided(
            told.decision,
            now,
            told.client,
            verdict.action,
            verdict.decided,
            label=label,
            name=names[label] if label is not None and label < len(names) else "" if label is None else str(label),
            confidence=seen.confidence,
            p_value=seen.p_value,
            detector=seen.detector,
            reasons=verdict.reasons,
            flagged=verdict.flagged,
            low=told.unsure,
            digest=digest,
            input=packed(told.x) if kept and self.store is not None else None,
            fingerprint=self.watch.prints.digest(told.x).hex(),
            queue="open" if verdict.decided == "review" else "",
        )

    def _stored(self, decided: Decided, alarms: Sequence[Alarm], now: float) -> "Future[bool]":
        if self.store is not None:
            rows = [Alarmed(now, one.kind, one.client, one.text, one.decision) for one in alarms]
            return self.store.append(decided, rows)
        done = begun()
        done.set_result(False)
        return done

    def _trouble(self, text: str) -> None:
        LOG.error(text)
        for hear in self.heard.troubles:
            hear(text)

    def _watch(self, watching: Watching) -> Watch:
        known = self.calibration
        ends = (0.0, 1.0) if known is None else known.ends
        similar = 0.5 if known is None else known.similar
        prints = Fingerprints(secrets.randbits(60), ends, share=similar)
        return Watch(watching, prints, None if known is None else known.walks, Drift(secrets.randbits(60)))


@dataclass(frozen=True)
class _Row:
    action: Action
    p_value: float | None
    detector: str
    scores: Array | None
    error: str | None


def watching_for(policy: Policy, band: Band | None, known: Calibration | None) -> Watching:
    """Charts for the upper end of the band of each rate.

    Raises:
        InputError: a rate is too high for a chart.
    """
    rate = 2 * (policy.reject + policy.review) if band is None else band.high
    unsure = None if known is None else known.unsure
    steps = None if known is None or known.walks is None else known.steps
    return Watching(
        designed(max(rate, 1e-4)),
        unsure=None if unsure is None else designed(_chartable(unsure)),
        steps=None if steps is None else designed(_chartable(steps)),
    )


def _chartable(rate: Band) -> float:
    return max(rate.high, 1e-4)


def _with(answer: Answer, *, stored: bool) -> Answer:
    return Answer(**{**vars(answer), "stored": stored})


def best(scores: Array, outputs: str) -> tuple[int, float]:
    """The answer of a row of scores (K,), and its probability; of one score, whether it is above 0, or 1/2."""
    wide = np.asarray(scores, dtype=np.float64).reshape(-1)
    probable = outputs == "probabilities" or (
        outputs == "auto" and bool(((wide >= 0) & (wide <= 1)).all()) and (len(wide) == 1 or abs(wide.sum() - 1) < 1e-3)
    )
    if len(wide) == 1:
        one = float(wide[0]) if probable else float(1 / (1 + np.exp(-np.clip(wide[0], -500, 500))))
        return int(one > 0.5), max(one, 1 - one)
    label = int(wide.argmax())
    if not probable:
        wide = np.exp(wide - wide.max())
    return label, float(wide[label] / wide.sum())
