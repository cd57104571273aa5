"""The threat model of texts: at most so many words changed, each by one edit of the kinds that are declared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from signstep.domains.text.check import check_texts
from signstep.domains.text.codes import texts_of
from signstep.domains.text.edits import Edits
from signstep.domains.text.letters import INVISIBLE, KEYBOARD, LOOK_ALIKES
from signstep.domains.text.region import INSTEAD, TextRegion
from signstep.engine.defaults import plain_tensor
from signstep.engine.norms import Draws
from signstep.engine.shaped import ShapedThreat
from signstep.engine.threat import Eps, read_eps
from signstep.engine.verify import Verification
from signstep.errors import ThreatError
from signstep.messages import Arg

KIND = "words"


@dataclass(frozen=True)
class Words:
    """The number of changed words: what a size means in records. Two strings are needed to take it; see `check`."""

    name: ClassVar[str] = KIND

    def length(self, d: Tensor) -> Tensor:
        """Refused: a difference of code points does not say how many words differ."""
        raise _no_length(d)

    def dual_length(self, g: Tensor) -> Tensor:
        """Refused."""
        raise _no_length(g)

    def steepest(self, g: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Refused."""
        raise _no_length(g)

    def project(self, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Refused."""
        raise _no_length(d)

    def sample(self, draws: Draws, shape: tuple[int, ...]) -> Tensor:  # noqa: ARG002
        """Refused."""
        raise _no_length(torch.zeros(0, dtype=torch.float32, device="cpu"))

    def diameter(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:  # noqa: ARG002
        """Refused."""
        raise _no_length(low)


@dataclass(frozen=True, eq=False, repr=False)
class TextThreat(ShapedThreat):
    """At most ``eps`` words of a text changed, and at most a ``share`` of its words; each by one of the ``edits``.

    The attacked tensor is that of `codes`.
    """

    edits: Edits = field(default_factory=lambda: Edits(()))
    share: float = 0.0

    @property
    def kind(self) -> str:
        """``words``."""
        return KIND

    @property
    def rules(self) -> Mapping[str, Any]:
        """What may change, as plain values: what a record says and the checker goes by."""
        kinds = self.edits.kinds
        return {
            "kinds": list(kinds),
            "typos": list(self.edits.typos) if "typos" in kinds else [],
            "keep": list(self.edits.keep),
            "share": self.share,
            "offers": {word: list(others) for word, others in sorted(self.edits.offers.items())},
            "look_alikes": _named() if "homoglyphs" in kinds else {},
            "keyboard": KEYBOARD if "typos" in kinds else {},
            "invisible": [_code(mark) for mark in INVISIBLE] if "zero-width" in kinds else [],
        }

    def around(self, x: Tensor) -> TextRegion:
        """The region around texts (R, width)."""
        radius = plain_tensor(self.eps, dtype=torch.float32).to(x.device)
        return TextRegion(
            tuple(texts_of(x)), radius.expand(len(x)).clone(), self.share, self.edits, x.shape[1], x.device
        )

    def checked(self, x: Tensor, point: Tensor) -> Verification:
        """By `check`."""
        assert self.eps is not None
        return check_texts(self.rules, self.eps, x, point)

    def __str__(self) -> str:
        share = f" and {100 * self.share:g} % of a text" if self.share else ""
        kept = f", {len(self.edits.keep)} kept" if self.edits.keep else ""
        return f"at most {self.label} word(s){share} changed by {', '.join(self.edits.kinds)}{kept}"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, TextThreat) and super().__eq__(other)
        return same and isinstance(other, TextThreat) and (self.edits, self.share) == (other.edits, other.share)

    __hash__ = None  # type: ignore[assignment]  # as its base


def text_threat(edits: Edits, words: Eps, *, share: float = 0.0) -> TextThreat:
    """At most so many words changed.

    Raises:
        ThreatError: it is no number of words.
    """
    size = read_eps(words)
    if not isinstance(size, float) or size != round(size):
        raise ThreatError(Arg("words", words), remedy="pass a whole number of words, such as 2")
    return TextThreat(Words(), size, None, None, None, None, f"{size:g}", edits, share)


def _named() -> dict[str, list[str]]:
    """The look-alikes by their numbers, which nobody can mistake for the letters themselves."""
    return {letter: [_code(other) for other in others] for letter, others in LOOK_ALIKES.items()}


def _code(letter: str) -> str:
    return f"U+{ord(letter):04X}"


def _no_length(_: Tensor) -> ThreatError:
    return ThreatError(
        "changed words are counted in two texts, not in a difference of numbers", remedy=f"use {INSTEAD}"
    )
