r"""Tables of letters: what looks alike, what lies beside each other on a keyboard, what cannot be seen.

The look-alikes are pairs of the Unicode consortium's list of confusables (Unicode Technical Standard 39, section 4,
confusables.txt) between Latin and Cyrillic or Greek, those alone that most fonts draw the same: a few dozen of several
thousand. The keyboard is QWERTY.
"""

import unicodedata

_CYRILLIC = {
    "a": "\u0430",
    "c": "\u0441",
    "d": "\u0501",
    "e": "\u0435",
    "h": "\u04bb",
    "i": "\u0456",
    "j": "\u0458",
    "o": "\u043e",
    "p": "\u0440",
    "q": "\u051b",
    "s": "\u0455",
    "w": "\u051d",
    "x": "\u0445",
    "y": "\u0443",
    "A": "\u0410",
    "B": "\u0412",
    "C": "\u0421",
    "E": "\u0415",
    "H": "\u041d",
    "I": "\u0406",
    "J": "\u0408",
    "K": "\u041a",
    "M": "\u041c",
    "O": "\u041e",
    "P": "\u0420",
    "S": "\u0405",
    "T": "\u0422",
    "X": "\u0425",
}
_GREEK = {
    "o": "\u03bf",
    "v": "\u03bd",
    "A": "\u0391",
    "B": "\u0392",
    "E": "\u0395",
    "H": "\u0397",
    "I": "\u0399",
    "K": "\u039a",
    "M": "\u039c",
    "N": "\u039d",
    "O": "\u039f",
    "P": "\u03a1",
    "T": "\u03a4",
    "X": "\u03a7",
    "Y": "\u03a5",
    "Z": "\u0396",
}

LOOK_ALIKES: dict[str, str] = {
    letter: _CYRILLIC.get(letter, "") + _GREEK.get(letter, "") for letter in sorted({*_CYRILLIC, *_GREEK})
}
"""For a Latin letter the others that look like it."""

INVISIBLE = "\u200b\u200c\u200d\u2060"
"""ZERO WIDTH SPACE, ZERO WIDTH NON-JOINER, ZERO WIDTH JOINER, WORD JOINER."""

_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))


def _keyboard() -> dict[str, str]:
    """For a letter those whose keys touch its own: at most a little more than one key away."""
    place = {
        letter: (shift + column, row) for row, (keys, shift) in enumerate(_ROWS) for column, letter in enumerate(keys)
    }
    return {
        letter: "".join(
            other for other, (x, y) in place.items() if other != letter and abs(x - here) <= 1 and abs(y - row) <= 1
        )
        for letter, (here, row) in place.items()
    }


KEYBOARD: dict[str, str] = _keyboard()
"""For a small Latin letter its neighbours on the keyboard."""

TYPOS = ("swap", "delete", "insert", "double", "key")
KINDS = ("synonyms", "neighbours", "typos", "homoglyphs", "zero-width")


def escaped(text: str) -> str:
    r"""Text in which every letter that is not plain Latin is written out, so that look-alikes can be told apart.

    Letters with accents and punctuation stay; so does what has no look-alike in Latin (Chinese, emoji).

    >>> print(escaped("p\u0430y\u200bpal na\u00efve"))
    p\u0430y\u200bpal naïve
    """
    return "".join(_written(letter) for letter in text)


_STRANGE = {other for others in LOOK_ALIKES.values() for other in others}
_MARKS = "\u27e6\u27e7"  # which reports put around what was changed
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _written(letter: str) -> str:
    if letter not in _STRANGE and letter not in _MARKS and unicodedata.category(letter) not in _UNSEEN:
        return letter
    code = ord(letter)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
