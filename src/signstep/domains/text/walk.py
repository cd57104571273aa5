"""One search in one text: what may change, what was asked, and the best found so far.

A search is a generator. It yields what it wants to know (`Ask`, `Probe`, `Lean`) and is sent the answers; `searching`
runs those of many texts side by side. So each text's search sees its own answers alone, whatever the batch.
"""

import math
import random
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from signstep.domains.text.edits import Edits
from signstep.domains.text.words import Word, with_words, words_of

_EXCHANGES = 8  # exchanges that are asked about at once
_BEST = 16  # texts that the next number of words may go on from
_SHARE = 0.4  # of the passes that are left, for each number of words

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
        queries: passes that may be spent; a gradient is one.
        draws: random numbers of this text.
        asked: forward passes spent.
        leaned: backward passes spent.
        wrong: whether the model fails on the untouched text.
        best: the changes that count: fewest of those that fool, else the largest loss.
        seen: what the model said of them.
        size: words that are changed in this phase.
        until: passes at which the phase ends; None where there is none.
        tops: what was asked about in this phase, with its loss.
        tried: all that was asked about.
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
    size: int = 0
    until: int | None = None
    tops: list[tuple[float, Changes]] = field(default_factory=list)
    tried: set[frozenset[tuple[int, str]]] = field(default_factory=set)
    _options: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _places: list[int] | None = None

    @classmethod
    def of(
        cls, text: str, allowance: int, edits: Edits, queries: int, draws: random.Random, read_to: int | None
    ) -> "Walk":
        """A text of which the model reads the letters before ``read_to``; None: all."""
        words = words_of(text)
        open_ = frozenset(place for place, word in enumerate(words) if read_to is None or word.end <= read_to)
        return cls(text, words, open_, allowance, edits, queries, draws)

    @property
    def places(self) -> list[int]:
        """Words that an edit can change."""
        if self._places is None:
            self._places = [place for place in sorted(self.open_) if self.options(place)]
        return self._places

    def options(self, place: int) -> tuple[str, ...]:
        """What may stand at a place."""
        if place not in self._options:
            self._options[place] = self.edits.of(self.words[place].core) if place in self.open_ else ()
        return self._options[place]

    def typed(self, changes: Changes) -> str:
        """The text with these changes."""
        return with_words(self.text, self.words, dict(changes))

    def drawn(self, count: int) -> int:
        """A random number below ``count``."""
        return int(self.draws.random() * count)

    @property
    def left(self) -> int:
        """Passes that may still be spent, in this phase where there is one."""
        return (self.queries if self.until is None else self.until) - self.asked

    def phase(self, size: int) -> None:
        """Go on to texts with ``size`` changed words: they get a share of what is left.

        The share does not depend on how many words may change at most. So a search under a larger budget begins as the
        one under the smaller does, and finds whatever that finds.
        """
        self.until = None
        self.size, self.tops = size, []
        self.until = self.asked + math.ceil(_SHARE * self.left)

    def last(self) -> None:
        """The phases are over: all that is left may be spent."""
        self.until = None

    def top(self, count: int) -> list[Changes]:
        """Those of this phase with the largest loss."""
        return [changes for _, changes in sorted(self.tops, key=lambda one: -one[0])[:count]]

    def fresh(self, tries: Iterable[Changes]) -> list[Changes]:
        """Those that were not asked about yet, each once, as many as may be."""
        found: dict[frozenset[tuple[int, str]], Changes] = {}
        for changes in tries:
            if len(found) >= self.left:
                break
            if _key(changes) not in self.tried:
                found.setdefault(_key(changes), changes)
        return list(found.values())

    def told(self, changes: Changes, seen: Seen) -> None:
        """Keep the better of what is known and this; the untouched text is never called a success."""
        if not changes:
            self.wrong = seen.fooled
            return
        self.tried.add(_key(changes))
        if len(changes) == self.size:
            self.tops.append((seen.loss, changes))
        if self.seen.fooled:
            better = seen.fooled and (-len(changes), seen.loss) > (-len(self.best), self.seen.loss)
        else:
            better = seen.fooled or not self.best or seen.loss > self.seen.loss
        if better:
            self.best, self.seen = changes, seen


Opening: TypeAlias = Callable[[Walk, list[Changes]], Search]
"""What a number of words begins with, given the best texts with one word less, the best first."""


def phases(walk: Walk, opening: Opening) -> Search:
    """The untouched text, then texts with one changed word, with two, ...: until the model fails.

    Args:
        walk: the text.
        opening: what each size begins with; exchanges at random spend the rest of its share.
    """
    yield Ask([{}])
    before: list[Changes] = [{}]
    for size in range(1, min(walk.allowance, len(walk.places)) + 1):
        walk.phase(size)
        yield from opening(walk, before)
        if not walk.seen.fooled:
            yield from _exchanged(walk)
        if walk.seen.fooled or not walk.tops:
            break
        before = walk.top(_BEST)
    walk.last()
    yield from _fewer(walk)


def _exchanged(walk: Walk) -> Search:
    """One change of the best text exchanged at random, kept where the loss grows.

    First order and single edits say little about several together; exchanges of what was found say the rest.
    """
    while walk.left > 0 and not walk.seen.fooled:
        best = (walk.top(1) or [{}])[0]
        tries = walk.fresh([_neighbour(walk, best) for _ in range(_EXCHANGES)])
        if not tries:
            return
        yield Ask(tries)


def _neighbour(walk: Walk, best: Changes) -> Changes:
    """The changes with one of them exchanged for another, perhaps of another word."""
    kept = dict(best)
    if kept:
        del kept[sorted(kept)[walk.drawn(len(kept))]]
    while len(kept) < walk.size:
        free = [place for place in walk.places if place not in kept]
        place = free[walk.drawn(len(free))]
        options = walk.options(place)
        kept[place] = options[walk.drawn(len(options))]
    return kept


def _fewer(walk: Walk) -> Search:
    """Take changes back as long as the model still fails: the end of every search for the smallest change."""
    while walk.seen.fooled and len(walk.best) > 1 and walk.left >= len(walk.best):
        before = len(walk.best)
        tries = walk.fresh([_without(walk.best, place) for place in sorted(walk.best)])
        if not tries:
            return
        yield Ask(tries)
        if len(walk.best) == before:
            return


def _without(changes: Changes, place: int) -> Changes:
    return {other: core for other, core in changes.items() if other != place}


def _key(changes: Changes) -> frozenset[tuple[int, str]]:
    return frozenset(changes.items())
