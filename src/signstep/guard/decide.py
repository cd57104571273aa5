"""What is done with an input, from what is known about it. Pure: no clock, no file, no model.

The order in which reasons are looked at is the order in which they are listed; the gravest of them decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from signstep.errors import InputError
from signstep.messages import Arg

Word = Literal["accept", "review", "reject"]
WORDS: tuple[Word, ...] = ("accept", "review", "reject")


class Action(IntEnum):
    """As a policy numbers them."""

    ACCEPT = 0
    REVIEW = 1
    REJECT = 2

    @property
    def word(self) -> Word:
        """As it is said and stored."""
        return WORDS[self]


@dataclass(frozen=True)
class Reason:
    """Why something was not simply accepted.

    Attributes:
        code: for counting; one of `CODES`.
        text: for a person.
    """

    code: str
    text: str


CODES: dict[str, str] = {
    "detector": "a detector gave a small p-value",
    "low-confidence": "the model was not sure of its answer",
    "input": "the input is none that the model was made for",
    "client": "the client is under an alarm",
    "error": "the guard could not judge the input",
    "shadow": "shadow mode withholds nothing",
    "breaker": "most clients were flagged, which no attacker explains: refusing was stopped",
    "new-model": "the weights are not those that the guard was calibrated for",
}
"""Every reason that a decision can have."""


@dataclass(frozen=True)
class Rules:
    """What the operator chose.

    Attributes:
        shadow: decide and log, and withhold nothing.
        fail: what becomes of an input that cannot be judged: "closed" refuses it, "open" answers it.
        review: what the client gets of an input that a person is to see: "withhold" nothing, or "mark" the answer.
        low_confidence: an answer below this largest probability is sent to a person; 0 for none.
        suspects: what becomes of inputs of a client under an alarm: "log", "review" or "reject".
        breaker_share: of clients whose last input was flagged, from which on refusing stops.
        breaker_clients: how many clients there must be for that.

    Raises:
        InputError: a value that makes no sense.
    """

    shadow: bool = False
    fail: Literal["closed", "open"] = "closed"
    review: Literal["withhold", "mark"] = "withhold"
    low_confidence: float = 0.0
    suspects: Literal["log", "review", "reject"] = "log"
    breaker_share: float = 0.5
    breaker_clients: int = 20

    def __post_init__(self) -> None:
        for name, known in (
            ("fail", ("closed", "open")),
            ("review", ("withhold", "mark")),
            ("suspects", ("log", "review", "reject")),
        ):
            if getattr(self, name) not in known:
                raise InputError(Arg(name, getattr(self, name)), remedy=f"pass {', '.join(known[:-1])} or {known[-1]}")
        for name in ("low_confidence", "breaker_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(Arg(name, getattr(self, name)), remedy="pass a share from 0 to 1")
        if self.breaker_clients < 2:
            raise InputError(
                Arg("breaker_clients", self.breaker_clients),
                "lets one client stop the guard",
                remedy="pass at least 2",
            )


@dataclass(frozen=True)
class Seen:
    """What is known about one input.

    Attributes:
        action: what the policy says of it.
        p_value: of the policy; None where there is none.
        detector: the name of the one that gave it.
        confidence: the largest probability of the model; None where it gives none.
        faults: what is wrong with the input itself, in words.
        alarm: the kind of alarm that the client is under, or None.
        error: why it could not be judged, or None.
    """

    action: Action = Action.ACCEPT
    p_value: float | None = None
    detector: str = ""
    confidence: float | None = None
    faults: tuple[str, ...] = ()
    alarm: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What is done.

    Attributes:
        decided: by the rules alone.
        action: what the client meets: "accept" where something keeps the guard from withholding.
        reasons: the gravest first among those that decided; then why nothing is withheld.
        flagged: whether detector, confidence or the input itself spoke against it; what charts count.
    """

    decided: Word
    action: Word
    reasons: tuple[Reason, ...]
    flagged: bool


def decide(seen: Seen, rules: Rules, *, held: Sequence[str] = ()) -> Verdict:
    """What is done with one input.

    Args:
        seen: what is known about it.
        rules: of the operator.
        held: codes of what keeps the guard from withholding now: "breaker", "new-model"; shadow mode adds its own.
    """
    found = _found(seen, rules)
    decided = max((action for action, _ in found), default=Action.ACCEPT)
    reasons = [reason for _, reason in sorted(found, key=lambda pair: -pair[0])]
    stops = [*(["shadow"] if rules.shadow else []), *held]
    # What no model can take is refused in shadow mode too: there is no answer that could be given.
    action = Action.ACCEPT if stops and not seen.faults else decided
    if action != decided:
        reasons += [Reason(code, CODES[code]) for code in stops]
    flagged = seen.action != Action.ACCEPT or bool(seen.faults)
    return Verdict(decided.word, action.word, tuple(reasons), flagged)


def _found(seen: Seen, rules: Rules) -> list[tuple[Action, Reason]]:
    found = [(Action.REJECT, Reason("input", fault)) for fault in seen.faults]
    if seen.error is not None:
        action = Action.REJECT if rules.fail == "closed" else Action.ACCEPT
        found.append((action, Reason("error", f"it could not be judged: {seen.error}")))
    if seen.action != Action.ACCEPT:
        by = f" of the detector {seen.detector}" if seen.detector else ""
        p = "" if seen.p_value is None else f": p = {seen.p_value:.3g}, the share of clean inputs that look as odd"
        found.append((seen.action, Reason("detector", f"the p-value{by} is small{p}")))
    if seen.confidence is not None and seen.confidence < rules.low_confidence:
        text = f"the model gives its answer {seen.confidence:.1%}, and {rules.low_confidence:.1%} are asked for"
        found.append((Action.REVIEW, Reason("low-confidence", text)))
    if seen.alarm is not None:
        action = {"log": Action.ACCEPT, "review": Action.REVIEW, "reject": Action.REJECT}[rules.suspects]
        found.append((action, Reason("client", f"the client is under the alarm {seen.alarm}")))
    return found
