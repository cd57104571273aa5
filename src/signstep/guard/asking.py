"""A client of a running guard, as an attacker has one: it sees actions and labels, counts queries, shows keys."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from signstep.errors import ModelError, VictimError
from signstep.io.documents import json_value
from signstep.model.victims.address import Address
from signstep.model.victims.wire import Reply, Silence, Wire

_ANSWERED = (200, 202, 422)
_PATIENCE = 20  # times that a request is sent again after 429 or 503
_LONGEST = 30.0  # seconds of one wait


@dataclass(frozen=True)
class Heard:
    """What a client hears of one input.

    Attributes:
        id: of the decision.
        action: "accept", "review" or "reject".
        label: the answer; None where it was withheld.
        confidence: of it.
        scores: all of them, where the service tells.
    """

    id: str
    action: str
    label: int | None
    confidence: float | None
    scores: tuple[float, ...] | None


@dataclass
class Client:
    """Asks one input at a time, with each key in turn.

    Attributes:
        url: of the service, without a path.
        keys: to show, one after the other; () shows none.
        asked: what was heard, in order.
        timeout: seconds that a request may take.
    """

    url: str
    keys: Sequence[str] = ()
    timeout: float = 30.0
    asked: list[Heard] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._wire = Wire(Address.of(f"{self.url.rstrip('/')}/predict"), "POST", self.timeout)

    def __call__(self, x: Tensor) -> Heard:
        """Ask about one input (1, ...).

        Raises:
            VictimError: the service does not answer.
            ModelError: it answers with something else.
        """
        body = json.dumps({"inputs": x.detach().cpu().tolist()}).encode()
        headers = {"Content-Type": "application/json"}
        if self.keys:
            headers["Authorization"] = f"Bearer {self.keys[len(self.asked) % len(self.keys)]}"
        reply = self._sent(body, headers)
        for _ in range(_PATIENCE):
            if reply.status not in (429, 503):
                break
            wait = reply.headers.get("retry-after", "1")
            time.sleep(min(float(wait) if wait.isdigit() else 1.0, _LONGEST))
            reply = self._sent(body, headers)
        if reply.status not in _ANSWERED:
            raise VictimError(
                f"{self._wire.address.url} answers {reply.said}",
                remedy="see that it is signstep guard serve, and the key",
            )
        heard = _heard(json_value(reply.body, "the answer"))
        self.asked.append(heard)
        return heard

    def close(self) -> None:
        """Leave the connection."""
        self._wire.close()

    def _sent(self, body: bytes, headers: dict[str, str]) -> Reply:
        try:
            return self._wire.send(body, headers, {})
        except Silence as silence:
            if not silence.again:
                raise self._silent(silence) from silence
        try:  # once more, where the connection was closed meanwhile
            return self._wire.send(body, headers, {})
        except Silence as silence:
            raise self._silent(silence) from silence

    def _silent(self, silence: Silence) -> VictimError:
        return VictimError(f"{self._wire.address.url} does not answer ({silence})", remedy="start signstep guard serve")


def _heard(document: Any) -> Heard:
    try:
        label, scores = document.get("label"), document.get("scores")
        return Heard(
            str(document["id"]),
            str(document["action"]),
            None if label is None else int(label),
            None if label is None else float(document["confidence"]),
            None if scores is None else tuple(float(score) for score in scores),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            "the service answers otherwise than a guard does", remedy="pass the address of signstep guard serve"
        ) from error
