"""What findings count: whom which attack felled, and whether that is more than chance."""

import math
from collections.abc import Sequence

from signstep.auditing.record import AttackResult, Record
from signstep.engine.statistics import mcnemar
from signstep.importing import name_and_options

# The share of the right answers that makes a missed example matter.
MATTERS = 0.01


def felled(result: Record, *entries: AttackResult) -> list[bool]:
    """For each right example whether any of these attacks fooled it."""
    columns = [result.per_example.verdicts[entry.name] for entry in entries]
    right = [row for row, letter in enumerate(result.per_example.clean) if letter == "r"]
    return [any(column[row] == "f" for column in columns) for row in right]


def only(one: list[bool], other: list[bool]) -> tuple[int, int]:
    """Right examples that only the first, and only the second, of two fooled."""
    pairs = list(zip(one, other, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def more(one: int, other: int) -> bool:
    """Whether the first felled more that the second did not than the other way round, by more than chance.

    >>> more(10, 3), more(10, 2)
    (False, True)
    """
    return one > other and mcnemar(one, other) < 0.05


def exceeds(count: int, whole: int, share: float) -> bool:
    """Whether a count is more than this share of the whole, by an exact binomial test at 5 %.

    >>> exceeds(15, 1000, 0.01), exceeds(16, 1000, 0.01)
    (False, True)
    """
    below = math.fsum(
        math.exp(
            math.lgamma(whole + 1)
            - math.lgamma(k + 1)
            - math.lgamma(whole - k + 1)
            + k * math.log(share)
            + (whole - k) * math.log1p(-share)
        )
        for k in range(min(count, whole + 1))
    )
    return count > share * whole and 1 - below < 0.05


def base(entry: AttackResult) -> str:
    """The recipe without options, and without what a ladder adds to it."""
    return name_and_options(entry.name.partition(" ")[0])[0]


def scope(entry: AttackResult) -> str:
    """The inputs that an attack changes, where a domain says so in its name ("fgsm on text"); else nothing."""
    return entry.name.partition(" on ")[2]


def named(result: Record, name: str) -> AttackResult | None:
    """The first entry of a recipe, whatever its options."""
    return next((entry for entry in result.attacks if base(entry) == name), None)


def names(entries: Sequence[AttackResult]) -> str:
    """The names of several in a sentence."""
    return " and ".join(entry.name for entry in entries)


def singles(result: Record) -> list[tuple[AttackResult, list[AttackResult]]]:
    """Each run of FGSM, with the attacks of several gradient steps that change the same inputs."""
    several = [entry for entry in result.attacks if entry.steps > 1]
    found = [entry for entry in result.attacks if base(entry) == "fgsm"]
    return [(single, [entry for entry in several if scope(entry) == scope(single)]) for single in found]
