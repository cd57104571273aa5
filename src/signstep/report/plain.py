"""Text from outside, without what could deceive its reader."""

import re

# Control characters, marks that turn the direction of writing, and halves of surrogate pairs (undecodable file names).
_DECEIVING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def plain(text: str) -> str:
    r"""The text with such characters replaced by a mark; new lines stay.

    >>> plain("cat\u202egnp.exe")
    'cat�gnp.exe'
    """
    return _DECEIVING.sub("\ufffd", text)
