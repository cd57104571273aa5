"""Figures that follow from the letters and numbers of the examples: counted once when a record is made, again to check.

Nothing here attacks: `rescore` and the report use it too.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from signstep.auditing.record import NOT_RUN, Examples, Record, worst_case
from signstep.engine.statistics import quantile

_QUARTERS = (0.25, 0.5, 0.75)

# An eps such as 8/255 is rounded on its way to the length of a change and back.
ROUNDED = 1 + 1e-6


@dataclass(frozen=True)
class Step:
    """One rung of a ladder: whom it met, what it found, and what was known after it.

    Attributes:
        name: of the rung.
        entered: examples it was run on.
        fallen: of these, those that it fooled.
        held: examples right and not fooled, over all examples, by it and all rungs before.
        undetermined: examples that are undetermined after it.
        forwards: forward passes for each example that entered, mean.
        backwards: backward passes for each example that entered, mean.
        seconds: that it took.
        elapsed: that it and all rungs before took.
    """

    name: str
    entered: int
    fallen: int
    held: int
    undetermined: int
    forwards: float
    backwards: float
    seconds: float
    elapsed: float


def steps(result: Record) -> tuple[Step, ...]:
    """The rungs of a ladder in their order; also of attacks that all took all examples, as if they were rungs."""
    found: list[Step] = []
    elapsed = 0.0
    for place, entry in enumerate(result.attacks):
        so_far = result.attacks[: place + 1]
        columns = {part.name: result.per_example.verdicts[part.name] for part in so_far}
        letters = worst_case(replace(result.per_example, verdicts=columns), so_far)
        elapsed += entry.seconds
        each = result.examples / entry.entered if entry.entered else 0.0
        found.append(
            Step(
                entry.name,
                entry.entered,
                entry.fooled,
                letters.count("h"),
                letters.count("u"),
                entry.forwards * each,
                entry.backwards * each,
                entry.seconds,
                elapsed,
            )
        )
    return tuple(found)


def passes_quartiles(passes: Sequence[int], column: str) -> tuple[float, float, float] | None:
    """Quartiles of the passes spent on the examples that an attack was run on."""
    spent = [float(count) for count, letter in zip(passes, column, strict=True) if letter != NOT_RUN]
    values = [quantile(spent, share) for share in _QUARTERS]
    return None if values[0] is None else (values[0], values[1], values[2])  # type: ignore[return-value]


def median_distance(distances: Iterable[float | None]) -> float | None:
    """The median length of the change where an attack fooled."""
    return quantile([length for length in distances if length is not None], 0.5)


def nearest_quartiles(
    nearest: Sequence[float | None], clean: str, column: str
) -> tuple[float | None, float | None, float | None] | None:
    """Quartiles of the nearest points that fool, over the right examples that an attack was run on."""
    lengths = [
        math.inf if length is None else length
        for length, right, letter in zip(nearest, clean, column, strict=True)
        if right == "r" and letter != NOT_RUN
    ]
    if not lengths:
        return None
    first, middle, third = (_finite(quantile(lengths, share)) for share in _QUARTERS)
    return first, middle, third


def fooled_within(nearest: Sequence[float | None], clean: str, eps: float) -> int:
    """How many right examples have a point that fools at most ``eps`` away."""
    pairs = zip(nearest, clean, strict=True)
    return sum(right == "r" and length is not None and length <= eps * ROUNDED for length, right in pairs)


def everywhere(clean: str, column: str) -> bool:
    """Whether an attack was run on every right example."""
    return all(letter != NOT_RUN for letter, right in zip(column, clean, strict=True) if right == "r")


def transferred(examples: Examples, other: str, attack: str) -> tuple[int, int]:
    """How many points of an attack fool another model, and how many could: those it answers rightly untouched."""
    there = examples.transfers[other]
    pairs = [(a, b) for a, b in zip(there["clean"], there[attack], strict=True) if a == "r" and b != NOT_RUN]
    return sum(after == "w" for _, after in pairs), len(pairs)


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
