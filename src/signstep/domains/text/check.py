"""An independent check that an attacked text is one that the threat allows: two strings and the rules of the record.

It reads the strings out of the code points by itself, splits them letter by letter, and judges every changed word by
what each kind of edit is, not by listing edits. Nothing is shared with the search; import-linter keeps it that way.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from signstep.engine.defaults import plain_tensor
from signstep.engine.verify import Verification
from signstep.errors import InputError


def check(terms: Mapping[str, Any], before: Tensor, after: Tensor) -> Verification:
    """Check saved texts (R, width) by the terms of a record: "eps_value" and the rules in "domain_terms"."""
    return check_texts(terms["domain_terms"]["change"], terms["eps_value"], before, after)


def check_texts(rules: Mapping[str, Any], eps: float | Tensor, before: Tensor, after: Tensor) -> Verification:
    """Check texts ``after`` against what may change around ``before``.

    The size of a change is the number of words that differ; infinite where white space or punctuation differs, a row
    is no text, or a word became what no allowed edit makes of it.

    Args:
        rules: "kinds", "typos", "keep", "share", "offers", "look_alikes", "keyboard" and "invisible", see docs.
        eps: words that may differ, a number or (R,).
        before: code points (R, width).
        after: likewise.
    """
    if before.shape != after.shape or before.ndim != 2:
        raise InputError(
            f"texts have the shapes {tuple(before.shape)} and {tuple(after.shape)}", remedy="pass equal (R, width)"
        )
    allowed = plain_tensor(eps, dtype=torch.float64).cpu().expand(len(before)).clone()
    size = torch.full((len(before),), torch.inf, dtype=torch.float64, device="cpu")
    for row, (old, new) in enumerate(zip(before.cpu().double().tolist(), after.cpu().double().tolist(), strict=True)):
        was, now = _read(old), _read(new)
        if was is None or now is None:
            continue
        runs = _runs(was)
        share = float(rules.get("share") or 0.0)
        if share:
            words = sum(1 for run in runs if any(letter.isalnum() for letter in run))
            allowed[row] = min(float(allowed[row]), int(words * share + 1e-9))
        size[row] = _changed(rules, runs, _runs(now))
    excess = size - allowed
    return Verification((excess <= 1e-9).to(before.device), size.to(before.device), excess.to(before.device), 0.0)


def _read(row: list[float]) -> str | None:
    """The text of a row; None if it is none."""
    letters, ended = [], False
    for code in row:
        if code == 0:
            ended = True
        elif ended or not 1 <= code <= 0x10FFFF or code % 1 or 0xD800 <= code <= 0xDFFF:
            return None
        else:
            letters.append(chr(int(code)))
    return "".join(letters)


def _runs(text: str) -> list[str]:
    """Runs of white space and of other letters in turns, each whole."""
    runs: list[str] = []
    for letter in text:
        if runs and runs[-1][-1].isspace() == letter.isspace():
            runs[-1] += letter
        else:
            runs.append(letter)
    return runs


def _changed(rules: Mapping[str, Any], old: list[str], new: list[str]) -> float:
    """How many words differ; infinity where one differs as it must not."""
    if len(old) != len(new):
        return float("inf")
    count = 0
    for was, now in zip(old, new, strict=True):
        if was == now:
            continue
        if was.isspace() or now.isspace() or not _word_may(rules, was, now):
            return float("inf")
        count += 1
    return float(count)


def _word_may(rules: Mapping[str, Any], was: str, now: str) -> bool:
    """Whether one run of letters may become another."""
    old, new = _trimmed(was), _trimmed(now)
    if old is None or new is None or (old[0], old[2]) != (new[0], new[2]):
        return False
    if any(_stays(str(pattern), old[1]) or _stays(str(pattern), new[1]) for pattern in rules["keep"]):
        return False
    kinds = {
        "synonyms": _offered,
        "neighbours": _offered,
        "typos": _slipped,
        "homoglyphs": _alike,
        "zero-width": _unseen,
    }
    return any(kinds[kind](rules, old[1], new[1]) for kind in rules["kinds"] if kind in kinds)


def _trimmed(run: str) -> tuple[str, str, str] | None:
    """What stands before the first letter or digit, from there to the last one, and after it."""
    start, end = 0, len(run)
    while start < end and not run[start].isalnum():
        start += 1
    while end > start and not run[end - 1].isalnum():
        end -= 1
    return (run[:start], run[start:end], run[end:]) if start < end else None


def _stays(pattern: str, word: str) -> bool:
    """Whether a word is what a pattern says; * is any run of letters, found from the left, with one way back."""
    wanted, found = pattern.casefold(), word.casefold()
    i = j = 0
    star, mark = -1, 0
    while j < len(found):
        if i < len(wanted) and wanted[i] == "*":
            star, mark = i, j
            i += 1
        elif i < len(wanted) and wanted[i] == found[j]:
            i, j = i + 1, j + 1
        elif star >= 0:
            mark += 1
            i, j = star + 1, mark
        else:
            return False
    return all(letter == "*" for letter in wanted[i:])


def _offered(rules: Mapping[str, Any], old: str, new: str) -> bool:
    """Whether a word of the list stands there, with capitals where the old one had them."""
    for word in rules["offers"].get(old.lower(), ()):
        if len(old) > 1 and old.isupper():
            same = new == word.upper()
        elif old[0].isupper():
            same = new[:1] == word[:1].upper() and new[1:] == word[1:]
        else:
            same = new == word
        if same:
            return True
    return False


def _slipped(rules: Mapping[str, Any], old: str, new: str) -> bool:
    """Whether one slip between the first and the last letter makes the one of the other."""
    if len(old) < 4 or old[0] != new[0] or old[-1] != new[-1]:
        return False
    may: Sequence[str] = rules["typos"]
    inner = range(1, len(old) - 1)
    if len(new) == len(old):
        differ = [place for place in range(len(old)) if old[place] != new[place]]
        if len(differ) == 2 and differ[1] == differ[0] + 1:
            first, second = differ
            return "swap" in may and old[first] == new[second] and old[second] == new[first]
        return len(differ) == 1 and "key" in may and _beside(rules, old[differ[0]], new[differ[0]])
    if len(new) == len(old) - 1:
        return "delete" in may and any(old[:place] + old[place + 1 :] == new for place in inner)
    return len(new) == len(old) + 1 and any(
        ("double" in may and new[place + 1] == old[place])
        or ("insert" in may and _beside(rules, old[place], new[place + 1]))
        for place in inner
        if new[: place + 1] == old[: place + 1] and new[place + 2 :] == old[place + 1 :]
    )


def _beside(rules: Mapping[str, Any], old: str, new: str) -> bool:
    """Whether the keys of two letters touch; capitals stay capitals."""
    return old.isupper() == new.isupper() and new.lower() in rules["keyboard"].get(old.lower(), "")


def _alike(rules: Mapping[str, Any], old: str, new: str) -> bool:
    """Whether one letter was exchanged for another that looks like it."""
    differ = [(a, b) for a, b in zip(old, new, strict=False) if a != b]
    if len(old) != len(new) or len(differ) != 1:
        return False
    was, now = differ[0]
    return f"U+{ord(now):04X}" in rules["look_alikes"].get(was, ())


def _unseen(rules: Mapping[str, Any], old: str, new: str) -> bool:
    """Whether one invisible mark was put between two letters."""
    if len(new) != len(old) + 1:
        return False
    return any(
        f"U+{ord(new[place]):04X}" in rules["invisible"] and new[:place] + new[place + 1 :] == old
        for place in range(1, len(old))
    )
