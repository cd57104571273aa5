"""Findings that somebody else brings: what their rows must be."""

import re
from typing import Any

from signstep.auditing.findings.rule import FindingRow, Rule
from signstep.errors import InputError
from signstep.importing import Spelling, is_spec
from signstep.registry import Brought

SPELLING = Spelling("the finding", "row", "my_findings:FEW_CLASSES")

_CODE = re.compile(r"(?!SS\d)[A-Z]{2,8}\d{2,4}")


def row_of(brought: Brought) -> FindingRow:
    """The row that was brought; its two results are looked at, as the tests look at those of Signstep's own.

    Raises:
        InputError: it is no row, or does not do what it says.
    """
    row: Any = brought.thing
    if not isinstance(row, FindingRow) or not isinstance(row.rule, Rule):
        raise InputError(f"it is a {type(row).__name__}", remedy="name a FindingRow of a Rule")
    texts = (row.rule.code, row.rule.title, row.rule.meaning, row.rule.remedy)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError("its rule has no code, title, meaning or remedy", remedy="write each as text")
    if not _CODE.fullmatch(row.code):
        raise InputError(
            f"its code is {row.code!r}", remedy="write two to eight capitals of your own, not SS, and a number"
        )
    if row.code != brought.name and not is_spec(brought.name):
        raise InputError(f"the row calls itself {row.code!r}", remedy=f"give it the name {brought.name!r}")
    for name, found in (("provoked", row.look(row.provoked())), ("just_not", row.look(row.just_not()))):
        if not isinstance(found, str) or bool(found) is not (name == "provoked"):
            needed = "evidence" if name == "provoked" else "none"
            raise InputError(
                f"its look gives {found!r} on its own {name}(), where {needed} is to be found",
                remedy="correct the one or the other",
            )
    return row
