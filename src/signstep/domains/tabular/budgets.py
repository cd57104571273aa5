"""Budgets: by how much a feature may change, in its unit, as a share of its own value, or in standard deviations."""

from dataclasses import dataclass
from typing import Literal

from signstep.errors import InputError
from signstep.messages import Key


@dataclass(frozen=True)
class Budget:
    """``amount`` of "unit", of "own" (a share of the value itself) or of "sd"."""

    amount: float
    of: Literal["unit", "own", "sd"]

    def resolved(self, value: float, spread: float) -> float:
        """The allowed change of a feature that has this value, in its unit."""
        return self.amount * {"unit": 1.0, "own": abs(value), "sd": spread}[self.of]


def read_budget(text: str, where: str, *, named: bool) -> Budget:
    """Read "500", "2 %" or "0.1 sd".

    Raises:
        InputError: it is none of these, negative, or not a plain number where values are levels.
    """
    rest = text.strip()
    of: Literal["unit", "own", "sd"] = "unit"
    if rest.endswith("%"):
        rest, of = rest[:-1], "own"
    elif rest.lower().endswith("sd"):
        rest, of = rest[:-2], "sd"
    try:
        amount = float(rest) * (0.01 if of == "own" else 1.0)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < float("inf"):
        raise InputError(
            Key("budget", text), remedy='write a number in its unit, "2 %" or "0.1 sd", at least 0', where=where
        )
    if named and of != "unit":
        raise InputError(
            Key("budget", text), ", but its values are levels", remedy="write how many levels, such as 1", where=where
        )
    return Budget(amount, of)
