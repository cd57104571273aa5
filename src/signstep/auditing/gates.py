"""What was asked of a result before it was known, and whether it passed."""

from dataclasses import dataclass
from typing import Literal

from signstep.auditing.diagnosed import Diagnosed


@dataclass(frozen=True)
class Gate:
    """A gate; no partial result passes one.

    Attributes:
        kind: "fail-under", a share of robust accuracy; "baseline", an earlier result; "inflated" or "undetermined", a
            verdict of the diagnosis that it must not have.
        limit: the share; None for others.
        passed: whether the result passed.
    """

    kind: Literal["fail-under", "baseline", "inflated", "undetermined"]
    limit: float | None
    passed: bool


def reaches(robust: float, limit: float, *, partial: bool) -> bool:
    """Whether robust accuracy passes the gate that asks for ``limit``; no number passes none."""
    return robust >= limit and not partial


def free_of(diagnosis: Diagnosed | None, word: str) -> bool:
    """Whether the verdict is another one than ``word``; where there is none, or half of one, no gate is passed."""
    return diagnosis is not None and not diagnosis.partial and diagnosis.verdict.word != word
