"""What one check says: whether it holds, whether it could be made, and what was seen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec

from signstep.errors import SignstepError, VictimError

Given = ParamSpec("Given")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of the check.
        holds: nothing contradicts the record.
        seen: one sentence.
        complete: everything that the check needs was there; where not, nothing was shown either way.
    """

    name: str
    holds: bool
    seen: str
    complete: bool = True

    @property
    def state(self) -> str:
        """In a word: "ok", "FAIL", or "open" for what could not be checked."""
        return "FAIL" if not self.holds else "ok" if self.complete else "open"

    def __str__(self) -> str:
        return f"{self.state:<4}  {self.name}: {self.seen}"


class Book:
    """What is stated and does not follow."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def same(self, name: str, stated: object, counted: object) -> None:
        """Note a figure that is not what the examples give."""
        if stated != counted:
            self.wrong.append(f"{name} is stated as {_short(stated)}, the examples give {_short(counted)}")

    def need(self, holds: bool, sentence: str) -> bool:
        """Note what is impossible; returns whether it holds."""
        if not holds:
            self.wrong.append(sentence)
        return holds

    def check(self, name: str, seen: str) -> Check:
        """The check: with the first of what was noted, or ``seen`` where there is nothing."""
        more = f" (and {len(self.wrong) - 3} more)" if len(self.wrong) > 3 else ""
        return Check(name, not self.wrong, "; ".join(self.wrong[:3]) + more if self.wrong else seen)


def attempted(name: str, check: Callable[Given, Check], /, *args: Given.args, **kwargs: Given.kwargs) -> Check:
    """A check of a record that may be anything: one that breaks on it has found that no audit made it."""
    try:
        return check(*args, **kwargs)
    except VictimError as error:
        return Check(name, True, f"not looked at to the end: {error}", complete=False)
    except (SignstepError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return Check(name, False, f"it cannot be made of this record ({type(error).__name__}: {error})")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
