"""The attacks on texts: by gradient, by questions alone, and the control."""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import ClassVar

from signstep.attacks.recipe import SCORES, WHITE_BOX, Recipe
from signstep.domains.text.searching import searched
from signstep.domains.text.walk import (
    Answers,
    Ask,
    Changes,
    Lean,
    Probe,
    Question,
    Search,
    Seen,
    Walk,
    phases,
)
from signstep.domains.text.words import without_word
from signstep.engine.attack import Needs
from signstep.engine.keys import Key
from signstep.engine.outcome import Found
from signstep.engine.passes import Passes, Setting
from signstep.engine.problem import HELD_OUT, Problem
from signstep.engine.region import Region
from signstep.engine.tree import Tree
from signstep.errors import InputError
from signstep.messages import Arg

_TOP = 8  # of the words that are left, those whose best edit is tried on top of what is there
_TOGETHER = 16  # random texts that are asked about at once


@dataclass(frozen=True)
class _OnTexts:
    """What the attacks share: a budget of passes for each text, beside the verdict's."""

    queries: int
    name: str = field(default="", kw_only=True)
    draws: ClassVar[bool] = True
    from_clean: ClassVar[bool] = False
    # Whether it looks for the smallest number of words.
    smallest: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.queries < 2:
            raise InputError(Arg("queries", self.queries), remedy="pass at least 2")

    def passes(self, setting: Setting) -> Passes:
        """What the plan lets one text spend; a text in which nothing may change costs the verdict alone."""
        verdict = HELD_OUT if setting.random else 1
        return Passes(1 + verdict, verdict, self.queries + verdict)

    def __call__(
        self,
        problem: Problem,
        region: Region,
        clean: Tree,
        key: Key,
        begin: Tree | None = None,  # noqa: ARG002
    ) -> Found:
        """Attack every row."""
        return searched(self.name, problem, region, clean, key, self.queries, self._search, smallest=self.smallest)

    def _search(self, walk: Walk) -> Search:
        """The search of one text."""
        raise NotImplementedError


@dataclass(frozen=True)
class HotFlip(_OnTexts):
    """Gradient-guided substitution with a beam (Ebrahimi, Rao, Lowd & Dou 2018, sections 3 and 4), verified by asking.

    One more word at a time: from each of the ``beam`` best texts one gradient ranks all edits (`gains`), the model is
    asked about the first ``asks``, and random exchanges of what was found spend the rest of the share of that number of
    words. When a text fools, changes are taken back as long as it still does. beam=1 is the greedy search.

    Attributes:
        queries: passes for each text at most; a gradient counts as one.
        beam: texts that go on.
        asks: edits to ask about after each gradient step.
    """

    queries: int = 300
    beam: int = 2
    asks: int = 16
    name: str = field(default="hotflip", kw_only=True)
    steps: int = 1
    needs: Needs = "gradients"

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("beam", "asks"):
            if getattr(self, option) < 1:
                raise InputError(Arg(option, getattr(self, option)), remedy="pass at least 1")

    def _search(self, walk: Walk) -> Search:
        yield from phases(walk, self._opening)

    def _opening(self, walk: Walk, before: list[Changes]) -> Search:
        """The best edits by first order on top of the best texts with one word less."""
        beam = before[: min(self.beam, walk.left - 1)]
        if beam:
            ranked = yield Lean(beam)
            tries = walk.fresh(_tries(beam, ranked))[: self.asks]
            if tries:
                yield Ask(tries)


@dataclass(frozen=True)
class WordSearch(_OnTexts):
    """For models that give scores alone: the words that matter first.

    After TextFooler (Jin, Jin, Zhou & Szolovits 2020, section 3): how much a word matters is told by the text without
    it. Then edits of the most important words are tried one by one; the best of each word are put together, one more
    word at a time, and random exchanges spend the rest of the share of that number of words. Changes are taken back as
    long as the model still fails. Jin et al. go through the words once and keep the best substitute of each, which may
    change more words than it needs.

    Attributes:
        queries: passes for each text at most.
        tries: edits to try of each word.
    """

    queries: int = 300
    tries: int = 12
    name: str = field(default="word-search", kw_only=True)
    steps: int = 0
    needs: Needs = "scores"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tries < 1:
            raise InputError(Arg("tries", self.tries), remedy="pass at least 1")

    def _search(self, walk: Walk) -> Search:
        single: dict[int, tuple[float, str]] = {}

        def opening(walk: Walk, before: list[Changes]) -> Search:
            if walk.size == 1:
                yield from self._singles(walk, single)
                return
            here = before[0]
            others = sorted((place for place in single if place not in here), key=lambda place: -single[place][0])
            tries = walk.fresh({**here, place: single[place][1]} for place in others[:_TOP])
            if tries:
                yield Ask(tries)

        yield from phases(walk, opening)

    def _singles(self, walk: Walk, single: dict[int, tuple[float, str]]) -> Search:
        """Edits of one word after the other, the most important first; the best of each is noted."""
        order = yield from self._important(walk)
        for place in order:
            cores = spread(walk.options(place), min(self.tries, walk.left))
            if not cores or walk.seen.fooled:
                return
            seen = yield Ask([{place: core} for core in cores])
            losses = [(one.loss, core) for one, core in zip(seen, cores, strict=True) if isinstance(one, Seen)]
            single[place] = max(losses, key=lambda pair: pair[0])

    def _important(self, walk: Walk) -> Generator[Question, Answers, list[int]]:
        """Places in the order of what the model loses without their words; in that of the text where none is left."""
        places = walk.places
        several = sum(1 for word in walk.words if word.core) > 1
        asked = places[: max(0, (walk.left - self.tries) // 2)] if several else []
        if not asked:
            return places
        seen = yield Probe([without_word(walk.text, walk.words[place]) for place in asked])
        losses = {place: one.loss for place, one in zip(asked, seen, strict=True) if isinstance(one, Seen)}
        return sorted(asked, key=lambda place: (-losses[place], place))


@dataclass(frozen=True)
class RandomWords(_OnTexts):
    """The control: random allowed edits of as many random words as may change, as often as the others ask.

    What it fools, no search was needed for. It looks for no smallest change.

    Attributes:
        queries: random texts to ask about.
    """

    queries: int = 300
    name: str = field(default="random-words", kw_only=True)
    smallest: ClassVar[bool] = False
    steps: int = 0
    needs: Needs = "scores"

    def _search(self, walk: Walk) -> Search:
        yield Ask([{}])
        while walk.left > 0 and not walk.seen.fooled:
            yield Ask([self._drawn(walk) for _ in range(min(_TOGETHER, walk.left))])

    def _drawn(self, walk: Walk) -> Changes:
        places = list(walk.places)
        found: dict[int, str] = {}
        for _ in range(min(walk.allowance, len(places))):
            place = places.pop(walk.drawn(len(places)))
            options = walk.options(place)
            found[place] = options[walk.drawn(len(options))]
        return found


def spread(cores: tuple[str, ...], count: int) -> list[str]:
    """So many of them, the first and then as far apart as they go."""
    if count <= 0 or not cores:
        return []
    if count >= len(cores):
        return list(cores)
    return [cores[number * len(cores) // count] for number in range(count)]


def _tries(beam: list[Changes], ranked: Answers) -> list[Changes]:
    """All edits on top of the texts of a beam, the largest gain first."""
    found: list[tuple[float, int, Changes]] = []
    for number, (changes, listed) in enumerate(zip(beam, ranked, strict=True)):
        assert isinstance(listed, list)
        found += [(one.gain, number, {**changes, one.place: one.core}) for one in listed]
    return [changes for _, _, changes in sorted(found, key=lambda one: (-one[0], one[1]))]


def random_words(*, queries: int = 300) -> RandomWords:
    """See `RandomWords`."""
    return RandomWords(queries)


def hotflip(*, queries: int = 300, beam: int = 2, asks: int = 16) -> HotFlip:
    """See `HotFlip`."""
    return HotFlip(queries, beam, asks)


def word_search(*, queries: int = 300, tries: int = 12) -> WordSearch:
    """See `WordSearch`."""
    return WordSearch(queries, tries)


RECIPES = {
    "random-words": Recipe(
        "random-words",
        random_words,
        "the control: random edits of random words, as many as may change",
        "Signstep, documented in Texts",
        SCORES,
        "at most queries + 1 forwards",
        needs="scores",
    ),
    "hotflip": Recipe(
        "hotflip",
        hotflip,
        "edits ranked by the gradient of the embedding, with a beam, verified by asking; the smallest number of words",
        "Ebrahimi, Rao, Lowd & Dou 2018 (ACL), sections 3 and 4; edits of words and their check by asking: Signstep",
        WHITE_BOX,
        "at most queries + 1 forwards, a backward for each step and text of the beam",
        smallest=True,
    ),
    "word-search": Recipe(
        "word-search",
        word_search,
        "the words that matter first, by questions alone; the smallest number of words",
        "after Jin, Jin, Zhou & Szolovits 2020 (TextFooler, AAAI), section 3",
        SCORES,
        "at most queries + 1 forwards",
        needs="scores",
        smallest=True,
    ),
}
"""Attacks of texts alone."""
