"""A text as words: runs without white space, each with punctuation around a core that may change."""

import re
from dataclasses import dataclass

_RUN = re.compile(r"\S+")


@dataclass(frozen=True)
class Word:
    """A word of a text: where its core starts and ends, and the core itself ("" where it is punctuation alone)."""

    start: int
    end: int
    core: str


def words_of(text: str) -> tuple[Word, ...]:
    """The words of a text in their order.

    >>> [word.core for word in words_of('Win "cash" - now!')]
    ['Win', 'cash', '', 'now']
    """
    return tuple(_word(match[0], match.start()) for match in _RUN.finditer(text))


def _word(run: str, start: int) -> Word:
    letters = [place for place, letter in enumerate(run) if letter.isalnum()]
    if not letters:
        return Word(start, start, "")
    first, last = letters[0], letters[-1] + 1
    return Word(start + first, start + last, run[first:last])


def with_words(text: str, words: tuple[Word, ...], changes: dict[int, str]) -> str:
    """The text with the cores of the words at these places replaced."""
    parts, here = [], 0
    for place in sorted(changes):
        word = words[place]
        parts += [text[here : word.start], changes[place]]
        here = word.end
    return "".join([*parts, text[here:]])


def without_word(text: str, word: Word) -> str:
    """The text without the core of a word."""
    return text[: word.start] + text[word.end :]


def cased(word: str, like: str) -> str:
    """A word in small letters, written as another one is: capitals throughout, a capital first, or as it is.

    >>> cased("money", "Cash"), cased("money", "CASH"), cased("money", "cash")
    ('Money', 'MONEY', 'money')
    """
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def fits(pattern: str, word: str) -> bool:
    """Whether a word is what a pattern says, in which * stands for any letters; capitals do not matter.

    >>> fits("http*", "HTTPS"), fits("*@*", "me@home"), fits("not", "note")
    (True, True, False)
    """
    parts = pattern.casefold().split("*")
    rest = word.casefold()
    if len(parts) == 1:
        return rest == parts[0]
    first, *middle, last = parts
    if not rest.startswith(first) or len(rest) < len(first) + len(last) or not rest.endswith(last):
        return False
    rest = rest[len(first) : len(rest) - len(last)]
    for part in middle:
        place = rest.find(part)
        if place < 0:
            return False
        rest = rest[place + len(part) :]
    return True
