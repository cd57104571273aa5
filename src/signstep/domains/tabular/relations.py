"""Linear relations between features, as people write them: "total = a + b", "2 * a - b <= 100"."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from signstep.errors import InputError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|'(?P<quoted>[^']+)'|(?P<name>[^\W\d][\w.]*)|(?P<sign>[+\-*]))"
)
_ROUNDS = 200


@dataclass(frozen=True)
class Relation:
    """sum of weight * feature <= bound, or = bound where ``equal``; ``rule`` is the text."""

    rule: str
    weights: tuple[tuple[str, float], ...]
    bound: float
    equal: bool


def read_relation(rule: str) -> Relation:
    """Read a relation; names with spaces stand in single quotes.

    >>> read_relation("total = a + b").weights
    (('total', 1.0), ('a', -1.0), ('b', -1.0))

    Raises:
        InputError: it cannot be read, or names no feature.
    """
    outside = re.sub(r"'[^']*'", lambda found: "_" * len(found.group()), rule)
    signs = re.findall(r"<=|>=|==|=|<|>", outside)
    if len(signs) != 1 or signs[0] in ("<", ">"):
        raise InputError(
            f"the relation {rule!r} has not exactly one of <=, >= and =", remedy='write it as "a + b <= c"'
        )
    at = outside.index(signs[0])
    weights: dict[str, float] = {}
    bound = 0.0
    for side, factor in ((rule[:at], 1.0), (rule[at + len(signs[0]) :], -1.0)):
        for name, weight in _terms(side, rule):
            if name is None:
                bound -= factor * weight
            else:
                weights[name] = weights.get(name, 0.0) + factor * weight
    weights = {name: weight for name, weight in weights.items() if weight != 0}
    if not weights:
        raise InputError(f"the relation {rule!r} leaves no feature", remedy="name at least one")
    turn = -1.0 if signs[0] == ">=" else 1.0
    return Relation(
        rule, tuple((name, turn * weight) for name, weight in weights.items()), turn * bound + 0.0, signs[0][0] == "="
    )


def propagated(relations: Sequence[Relation], ends: Mapping[str, tuple[float, float]]) -> Relation | None:
    """A relation that no values within the bounds can satisfy, found by passing bounds on; None if there is none."""
    ranges = dict(ends)
    for _ in range(_ROUNDS):
        moved = False
        for relation in relations:
            for turn in (1.0, -1.0) if relation.equal else (1.0,):
                terms = [(name, turn * weight) for name, weight in relation.weights]
                least = sum(min(weight * end for end in ranges[name]) for name, weight in terms)
                room = turn * relation.bound - least
                if room < -1e-9 * max(1.0, abs(relation.bound), abs(least)):
                    return relation
                for name, weight in terms:
                    low, high = ranges[name]
                    span = max(0.0, room) / abs(weight)
                    new = (low, min(high, low + span)) if weight > 0 else (max(low, high - span), high)
                    moved |= not all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(new, (low, high), strict=True))
                    ranges[name] = new
        if not moved:
            return None
    return None


def _terms(side: str, rule: str) -> list[tuple[str | None, float]]:
    """The sum on one side: names with weights, None for a number alone."""
    found: list[tuple[str | None, float]] = []
    sign, weight, name, empty, starred = 1.0, 1.0, None, True, True
    at = 0
    side = side.strip()

    def close() -> None:
        if empty or starred:
            raise InputError(
                f"the relation {rule!r} cannot be read near {side!r}", remedy='write sums such as "2 * a - b"'
            )
        found.append((name, sign * weight))

    while at < len(side):
        token = _TOKEN.match(side, at)
        if token is None:
            raise InputError(
                f"the relation {rule!r} cannot be read at {side[at:]!r}", remedy="quote such names: 'my column'"
            )
        at = token.end()
        mark = token["sign"]
        if mark in ("+", "-"):
            if not (empty and not found and at == 1):
                close()
                sign = 1.0
            sign = sign if mark == "+" else -1.0
            weight, name, empty, starred = 1.0, None, True, True
        elif mark == "*":
            if starred:
                raise InputError(
                    f"the relation {rule!r} has * without a factor before it", remedy="write sums such as 2 * a - b"
                )
            starred = True
        else:
            if not starred or (token["number"] is None and name is not None):
                raise InputError(
                    f"the relation {rule!r} cannot be read at {side!r}", remedy="put + - or * between the terms"
                )
            empty, starred = False, False
            if token["number"] is not None:
                weight *= float(token["number"])
            else:
                name = token["quoted"] or token["name"]
    close()
    return found
