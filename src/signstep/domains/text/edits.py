"""What may stand in the place of a word: one edit of one of the kinds that are allowed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from signstep.domains.text.letters import INVISIBLE, KEYBOARD, LOOK_ALIKES, TYPOS
from signstep.domains.text.words import cased, fits

SHORTEST = 4  # letters of a word that a typo may strike: first and last stay, and something lies between


@dataclass(frozen=True)
class Edits:
    """The edits that are allowed.

    Attributes:
        kinds: of `letters.KINDS`.
        typos: of `letters.TYPOS`.
        keep: words and patterns (``http*``) that stay, and are not put in either.
        offers: for a word in small letters those that may replace it, in small letters, the best first: synonyms and
            neighbours together.
    """

    kinds: tuple[str, ...]
    typos: tuple[str, ...] = TYPOS
    keep: tuple[str, ...] = ()
    offers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, core: str) -> tuple[str, ...]:
        """What may stand in the place of a core, each once, the kinds in turns."""
        if not core or self.kept(core):
            return ()
        kinds = [
            list(self._substitutes(core)) if {"synonyms", "neighbours"} & set(self.kinds) else [],
            list(_look_alikes(core)) if "homoglyphs" in self.kinds else [],
            list(_typos(core, self.typos)) if "typos" in self.kinds else [],
            list(_invisible(core)) if "zero-width" in self.kinds else [],
        ]
        found = (one for turn in zip_longest(*kinds) for one in turn if one is not None)
        return tuple(dict.fromkeys(one for one in found if one != core and not self.kept(one)))

    def kept(self, core: str) -> bool:
        """Whether a word stays."""
        return any(fits(pattern, core) for pattern in self.keep)

    @property
    def growth(self) -> int:
        """By how many letters an edit makes a word longer at most."""
        longer = (len(new) - len(old) for old, news in self.offers.items() for new in news)
        return max(1, *longer, 1)

    def _substitutes(self, core: str) -> Iterator[str]:
        for new in self.offers.get(core.lower(), ()):
            yield cased(new, core)


def _typos(core: str, allowed: tuple[str, ...]) -> Iterator[str]:
    """Slips of the fingers between the first and the last letter; swaps and losses first, which are commonest."""
    if len(core) < SHORTEST:
        return
    inner = range(1, len(core) - 1)
    if "swap" in allowed:
        for place in inner[:-1]:
            yield core[:place] + core[place + 1] + core[place] + core[place + 2 :]
    if "delete" in allowed:
        for place in inner:
            yield core[:place] + core[place + 1 :]
    if "double" in allowed:
        for place in inner:
            yield core[: place + 1] + core[place:]
    for place in inner:
        for other in KEYBOARD.get(core[place].lower(), ""):
            letter = other.upper() if core[place].isupper() else other
            if "key" in allowed:
                yield core[:place] + letter + core[place + 1 :]
            if "insert" in allowed:
                yield core[: place + 1] + letter + core[place + 1 :]


def _look_alikes(core: str) -> Iterator[str]:
    for place, letter in enumerate(core):
        for other in LOOK_ALIKES.get(letter, ""):
            yield core[:place] + other + core[place + 1 :]


def _invisible(core: str) -> Iterator[str]:
    for mark in INVISIBLE:
        for place in range(1, len(core)):
            yield core[:place] + mark + core[place:]
