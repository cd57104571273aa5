"""The texts that a few changed words reach, for searches that go from text to text."""

from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor

from signstep.domains.text.codes import codes_of
from signstep.domains.text.edits import Edits
from signstep.domains.text.words import words_of
from signstep.engine.keys import RowDraws
from signstep.engine.tree import Tree
from signstep.errors import ThreatError

INSTEAD = "hotflip, word-search or random-words"


@dataclass(frozen=True, eq=False)
class TextRegion:
    """All texts with at most ``radius`` (R,) words changed, each by one of the ``edits``; words in white space stay.

    The set has no straight lines: what an attack on numbers asks of a region is refused with the names of those that
    search here.

    Attributes:
        texts: as they were, R.
        radius: words that may change, (R,).
        share: of the words of each text, at most; 0 for no such bound.
        edits: that are allowed.
        width: characters that a row has room for.
        device: of the rows.
    """

    texts: tuple[str, ...]
    radius: Tensor
    share: float
    edits: Edits
    width: int
    device: torch.device

    def allowance(self, row: int) -> int:
        """How many words of a text may change."""
        return allowance(self.texts[row], float(self.radius[row]), self.share)

    def codes(self, texts: list[str]) -> Tensor:
        """Texts as rows."""
        return codes_of(texts, self.width, self.device)

    def take(self, index: Tensor) -> "TextRegion":
        """The region of the rows at ``index``."""
        places = index.tolist()
        return replace(self, texts=tuple(self.texts[place] for place in places), radius=self.radius[index])

    def resized(self, radius: Tensor) -> "TextRegion":
        """The same with other numbers of words."""
        return replace(self, radius=radius)

    def frozen(self) -> Tensor:
        """No coordinate is frozen, (1,)."""
        return torch.zeros(1, dtype=torch.int64, device=self.device)

    def restrict(self, gradient: Tree) -> Tree:
        """As it is."""
        return gradient

    def zero(self) -> Tensor:
        """No change, (R, width)."""
        return torch.zeros(len(self.texts), self.width, dtype=torch.float32, device=self.device)

    def steepest(self, gradient: Tree) -> NoReturn:  # noqa: ARG002
        """Refused."""
        raise _no_steps()

    def step(self, d: Tree | None, gradient: Tree, length: Tensor) -> NoReturn:  # noqa: ARG002
        """Refused."""
        raise _no_steps()

    def project(self, d: Tree) -> NoReturn:  # noqa: ARG002
        """Refused."""
        raise _no_steps()

    def land(self, d: Tree) -> NoReturn:  # noqa: ARG002
        """Refused."""
        raise _no_steps()

    def sample(self, draws: RowDraws) -> NoReturn:  # noqa: ARG002
        """Refused."""
        raise _no_steps()

    def vertex(self, draws: RowDraws) -> NoReturn:  # noqa: ARG002
        """Refused."""
        raise _no_steps()


def allowance(text: str, words: float, share: float) -> int:
    """How many words of a text may change: ``words``, and at most a share of those that it has, rounded down."""
    if share:
        words = min(words, sum(1 for word in words_of(text) if word.core) * share)
    return int(words + 1e-9)


def _no_steps() -> ThreatError:
    return ThreatError("a text is not moved by steps: the attack is defined for numbers", remedy=f"pass {INSTEAD}")
