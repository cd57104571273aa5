"""One search in one text: what may change, what was asked, and the best found so far.

A search is a generator. It yields what it wants to know (`Ask`, `Probe`, `Lean`) and is sent the answers; `searching`
runs those of many texts side by side. So each text's search sees its own answers alone, whatever the batch.
"""

import math
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from signstep.domains.text.edits import Edits
from signstep.domains.text.words import Word, with_words, words_of

Changes: TypeAlias = Mapping[int, str]
"""New cores of words, by their place in the text."""


class Ask(NamedTuple):
    """The model's word on texts with these changes; answered with a `Seen` for each."""

    changes: Sequence[Changes]


class Probe(NamedTuple):
    """The model's word on texts that are never returned; answered likewise."""

    texts: Sequence[str]


class Lean(NamedTuple):
    """The first-order gain of every edit of the texts with these changes; answered with `Gain`s for each."""

    changes: Sequence[Changes]


class Seen(NamedTuple):
    """The searched loss, and whether the model failed."""

    loss: float
    fooled: bool


class Gain(NamedTuple):
    """What an edit of the word at a place gains to first order."""

    gain: float
    place: int
    core: str


Question: TypeAlias = Ask | Probe | Lean
Answers: TypeAlias = list[Seen] | list[list[Gain]]
Search: TypeAlias = Generator[Question, Answers, None]


@dataclass
class Walk:
    """A text under search.

    Attributes:
        text: as it was.
        words: of it.
        open_: places of words that the model reads.
        allowance: how many may change.
        edits: that are allowed.
        queries: passes that may be spent, backward ones beside their forward ones.
        draws: random numbers of this text.
        asked: forward passes spent.
        leaned: backward passes spent.
        wrong: whether the model fails on it.
        best: the changes that count: fewest of those that fool, else the largest loss.
        seen: what the model said of them.
    """

    text: str
    words: tuple[Word, ...]
    open_: frozenset[int]
    allowance: int
    edits: Edits
    queries: int
    draws: random.Random
    asked: int = 0
    leaned: int = 0
    wrong: bool = False
    best: Changes = field(default_factory=dict)
    seen: Seen = field(default_factory=lambda: Seen(-math.inf, False))
    _options: dict[int, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, text: str, allowance: int, edits: Edits, queries: int, draws: random.Random, read_to: int | None
    ) -> "Walk":
        """A text of which the model reads the letters before ``read_to``; None: all."""
        words = words_of(text)
        open_ = frozenset(place for place, word in enumerate(words) if read_to is None or word.end <= read_to)
        return cls(text, words, open_, allowance, edits, queries, draws)

    @property
    def left(self) -> int:
        """Passes that may still be spent."""
        return self.queries - self.asked

    @property
    def places(self) -> list[int]:
        """Words that an edit can change."""
        return [place for place in sorted(self.open_) if self.options(place)]

    def options(self, place: int) -> tuple[str, ...]:
        """What may stand at a place."""
        if place not in self._options:
            self._options[place] = self.edits.of(self.words[place].core) if place in self.open_ else ()
        return self._options[place]

    def typed(self, changes: Changes) -> str:
        """The text with these changes."""
        return with_words(self.text, self.words, dict(changes))

    def told(self, changes: Changes, seen: Seen) -> None:
        """Keep the better of what is known and this; the untouched text is never called a success."""
        if not changes:
            self.wrong = seen.fooled
            if self.seen.loss == -math.inf:
                self.seen = Seen(seen.loss, False)
            return
        if self.seen.fooled:
            better = seen.fooled and (-len(changes), seen.loss) > (-len(self.best), self.seen.loss)
        else:
            better = seen.fooled or not self.best or seen.loss > self.seen.loss
        if better:
            self.best, self.seen = changes, seen


def fewer(walk: Walk) -> Search:
    """Take changes back as long as the model still fails: the end of every search for the smallest change."""
    while walk.seen.fooled and len(walk.best) > 1 and walk.left >= len(walk.best):
        before = len(walk.best)
        yield Ask([_without(walk.best, place) for place in sorted(walk.best)])
        if len(walk.best) == before:
            return


def _without(changes: Changes, place: int) -> Changes:
    return {other: core for other, core in changes.items() if other != place}


def fresh(tries: Sequence[Changes], most: int) -> list[Changes]:
    """Each of the changes once, at most so many."""
    found: dict[frozenset[tuple[int, str]], Changes] = {}
    for changes in tries:
        found.setdefault(frozenset(changes.items()), changes)
        if len(found) >= most:
            break
    return list(found.values())[: max(0, most)]
