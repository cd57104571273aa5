r"""Text as it leaves the program: names, labels and messages of others neither steer a terminal nor deceive a reader.

Whatever is printed, raised or written goes through `plain` or `one_line`; what a terminal would obey and what an eye
cannot see is written out as an escape. The escapes are those of JSON and TOML, so that text in either stays valid and
is read back as what it was.
"""

import re
import unicodedata

# Letters that are drawn as nothing.
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
_USUAL = re.compile(r"[^\n\t -~]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
_KINDS = ("Cc", "Cf", "Cs", "Zl", "Zp")
_SHORT = {"\r": r"\r", "\b": r"\b", "\f": r"\f"}


def plain(text: str) -> str:
    r"""Text of several lines with what cannot be seen written out; its new lines and tabs stay.

    Written out are control characters (ESC, BEL, backspace, carriage return, DEL, the C1 set with CSI), marks that turn
    the direction of writing, joiners and other characters of no width, separators of lines and paragraphs, and halves
    of surrogate pairs, which stand for the bytes of file names that are not UTF-8.

    >>> print(plain("cat\u202egnp.exe \x1b[2J"))
    cat\u202egnp.exe \u001b[2J
    """
    return _USUAL.sub(_written_out, text)


def one_line(text: str) -> str:
    r"""The same for text that is one line: its new lines and tabs are written out too.

    >>> print(one_line("cat\nok  robust accuracy 100 %"))
    cat\nok  robust accuracy 100 %
    """
    return plain(text).replace("\n", r"\n").replace("\t", r"\t")


def markdown(text: str) -> str:
    r"""Text that Markdown, and the HTML inside it, leave alone; on one line.

    >>> print(markdown("a_b|<script>"))
    a\_b\|\<script\>
    """
    return _MARKDOWN.sub(r"\\\1", " ".join(plain(text).replace("\u00a0", " ").split()))


def isolated(text: str) -> str:
    """A block of Markdown that shows the text as it is; the fence is longer than any in the text."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 0)
    return f"{fence}text\n{plain(text)}\n{fence}"


def plain_json(text: str) -> str:
    r"""A document of JSON likewise; characters beyond 16 bits become pairs, as JSON writes them.

    >>> print(plain_json('{"cat\u202e": "\U000e0001"}'))
    {"cat\u202e": "\udb40\udc01"}
    """
    return _USUAL.sub(lambda match: _paired(match) if _hidden(match[0]) else match[0], text)


def _hidden(letter: str) -> bool:
    return unicodedata.category(letter) in _KINDS or letter in _BLANK


def _written_out(match: re.Match[str]) -> str:
    letter = match[0]
    if not _hidden(letter):
        return letter
    code = ord(letter)
    return _SHORT.get(letter) or (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _paired(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
