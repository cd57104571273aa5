"""What was asked of a result before it was known, and whether it passed."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Gate:
    """A gate; no partial result passes one.

    Attributes:
        kind: "fail-under", a share of robust accuracy; or "baseline", an earlier result.
        limit: the share; None for a baseline.
        passed: whether the result passed.
    """

    kind: Literal["fail-under", "baseline"]
    limit: float | None
    passed: bool


def reaches(robust: float, limit: float, *, partial: bool) -> bool:
    """Whether robust accuracy passes the gate that asks for ``limit``; no number passes none."""
    return robust >= limit and not partial
