"""Fewer tests over many tables: every pair of values once, instead of every combination.

A law over recipes, norms, settings and precisions has a thousand combinations; what breaks it is nearly always one
value or two that meet (Kuhn, Wallace, Gallo 2004, "Software fault interactions", section 4). Of a test marked
``pairwise`` those combinations run in which each two values of different parameters meet at least once; ``--whole``
runs all.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

Pair = tuple[tuple[str, str], tuple[str, str]]


def covering(rows: Sequence[Mapping[str, object]]) -> list[int]:
    """Places of rows in which every pair of values that meets in some row meets, greedily, in the order given."""
    pairs = [_pairs(row) for row in rows]
    open_pairs = set().union(*pairs)
    kept: list[int] = []
    for worth in range(max(map(len, pairs), default=0), 0, -1):
        for place, own in enumerate(pairs):
            new = own & open_pairs
            if len(new) >= worth:
                kept.append(place)
                open_pairs -= new
    return sorted(kept)


def _pairs(row: Mapping[str, object]) -> set[Pair]:
    values = [(name, str(value)) for name, value in sorted(row.items())]
    return set(combinations(values, 2)) or {(value, value) for value in values}
