"""What is stored: a decision, and an alarm, as the tables hold them."""

import json
import math
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from signstep.errors import LoadError
from signstep.guard.decide import Reason
from signstep.io.documents import json_value
from signstep.plain import one_line

Array = np.ndarray[Any, Any]
LONGEST = 200  # characters of a client's name
_MOST = 2**28  # bytes that a stored input may unpack to


@dataclass(frozen=True)
class Decided:
    """One decision.

    Attributes:
        id: that leads here from answers, alarms and the queue.
        at: seconds since 1970.
        client: who asked.
        action: what the client met.
        decided: what the rules said.
        label: the model's answer, kept also where it was withheld; None where there was none.
        name: of that class.
        confidence: of the answer.
        p_value: of the policy.
        detector: that gave it.
        reasons: for a person.
        flagged: by detector or input checks.
        low: whether the confidence was low.
        digest: of the model's weights.
        input: the input, packed; None where it is not kept.
        fingerprint: of the input, keyed.
        queue: "open" in the review queue, "done" after it, else "".
        reviewed: the label that a person gave; None where none did.
        reviewer: who.
    """

    id: str
    at: float
    client: str
    action: str
    decided: str
    label: int | None = None
    name: str = ""
    confidence: float | None = None
    p_value: float | None = None
    detector: str = ""
    reasons: tuple[Reason, ...] = ()
    flagged: bool = False
    low: bool = False
    digest: str = ""
    input: bytes | None = None
    fingerprint: str = ""
    queue: str = ""
    reviewed: int | None = None
    reviewer: str = ""

    def plain(self) -> dict[str, Any]:
        """As the columns of the table; text of others is made visible, and shortened."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("client", "name", "detector", "reviewer"):
            row[name] = shown(row[name])
        row["reasons"] = json.dumps([[reason.code, one_line(reason.text)[:500]] for reason in self.reasons])
        return row

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Decided":
        """From the columns of the table.

        Raises:
            LoadError: its reasons are none.
        """
        found = json_value(row["reasons"], "the reasons of a stored decision", 2**20)
        pairs: list[Any] = found if isinstance(found, list) else [None]
        fine = all(isinstance(pair, list) and [type(part) for part in pair] == [str, str] for pair in pairs)
        if not fine:
            raise LoadError("a stored decision has reasons that are none", remedy="see who else writes to the store")
        reasons = tuple(Reason(code, text) for code, text in pairs)
        return cls(**{**{name: row[name] for name in cls.__dataclass_fields__}, "reasons": reasons})


@dataclass(frozen=True)
class Alarmed:
    """An alarm as it is stored.

    Attributes:
        at: seconds since 1970.
        kind: of the alarm.
        client: whom it is about; "" for the stream.
        text: what was counted.
        decision: the id of the decision at which it came.
    """

    at: float
    kind: str
    client: str
    text: str
    decision: str

    def plain(self) -> dict[str, Any]:
        """As the columns of the table."""
        return {
            "at": self.at,
            "kind": self.kind,
            "client": shown(self.client),
            "text": one_line(self.text)[:500],
            "decision": self.decision,
        }


def shown(text: str) -> str:
    """Text of others as one visible line that any database takes."""
    return one_line(text)[:LONGEST]


def packed(x: Array) -> bytes:
    """An input for the store."""
    held = BytesIO()
    np.save(held, np.ascontiguousarray(x), allow_pickle=False)
    return zlib.compress(held.getvalue(), 1)


def unpacked(content: bytes) -> Array:
    """An input from the store.

    Raises:
        LoadError: it is none.
    """
    try:
        inflating = zlib.decompressobj()
        plain = inflating.decompress(content, _MOST)
        if inflating.unconsumed_tail:
            raise ValueError("it is larger than any input")
        made = _array(plain)
    except (ValueError, TypeError, OverflowError, zlib.error) as error:
        raise LoadError(
            f"a stored input cannot be read ({error})", remedy="see who else writes to the store"
        ) from error
    return made


def _array(content: bytes) -> Array:
    """What `packed` has in it, once its header claims neither more than there is nor something else than numbers.

    Raises:
        ValueError: it does.
    """
    held = BytesIO(content)
    if np.lib.format.read_magic(held) != (1, 0):
        raise ValueError("it is of another version")
    shape, _, kind = np.lib.format.read_array_header_1_0(held)
    if kind.kind not in "biuf" or math.prod(shape) * kind.itemsize != len(content) - held.tell():
        raise ValueError("its header is not that of its numbers")
    made: Array = np.load(BytesIO(content), allow_pickle=False)
    return made
