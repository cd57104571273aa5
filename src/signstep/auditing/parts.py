"""A part of an audit: every n-th example, or a run of them that lie together.

In the terms of a record stands ``[i, n]`` for every n-th example from the i-th on, ``[start, stop, 1]`` for a run.
"""

from collections.abc import Sequence
from typing import TypeAlias

from signstep.errors import InputError
from signstep.messages import Arg

Part: TypeAlias = tuple[int, int] | range


def check_part(part: Part | None) -> None:
    """See that it is one.

    Raises:
        InputError: it is not.
    """
    if isinstance(part, range):
        if part.step != 1 or not 0 <= part.start < part.stop:
            raise InputError(Arg("shard", part), remedy="pass range(start, stop) with 0 <= start < stop")
    elif part is not None and not 0 <= part[0] < part[1]:
        raise InputError(Arg("shard", part), remedy="pass (i, n) with 0 <= i < n")


def stated(part: Part | None) -> list[int] | None:
    """As a record states it."""
    return [part.start, part.stop, 1] if isinstance(part, range) else None if part is None else list(part)


def part_of(term: Sequence[int] | None) -> Part | None:
    """From what a record states."""
    if term is None:
        return None
    return range(term[0], term[1]) if len(term) == 3 else (term[0], term[1])


def fine(term: object) -> bool:
    """Whether a record, which anybody may have written, states a part."""
    if term is None:
        return True
    if not isinstance(term, list) or any(type(part) is not int for part in term):
        return False
    if len(term) == 3:
        return bool(0 <= term[0] < term[1] and term[2] == 1)
    return len(term) == 2 and bool(0 <= term[0] < term[1])


def spread(part: Part | Sequence[int] | None) -> tuple[int, int]:
    """The place of the first example among all, and how far the next ones are apart.

    >>> spread((1, 4)), spread(range(256, 512)), spread([256, 512, 1]), spread(None)
    ((1, 4), (256, 1), (256, 1), (0, 1))
    """
    if part is None:
        return 0, 1
    if isinstance(part, range):
        return part.start, 1
    return (part[0], 1) if len(part) == 3 else (part[0], part[1])


def place(part: Sequence[int], row: int) -> int:
    """The place among all of a row of a part, as it is stated."""
    first, step = spread(part)
    return first + row * step


def named(part: Part | Sequence[int]) -> str:
    """In words.

    >>> named((1, 4)), named([256, 512, 1])
    ('shard 1/4', 'examples 256 to 511')
    """
    if isinstance(part, range) or len(part) == 3:
        return f"examples {part[0]} to {part[-1] if isinstance(part, range) else part[1] - 1}"
    return f"shard {part[0]}/{part[1]}"
