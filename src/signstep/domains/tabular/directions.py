"""The elementary moves of a set given by linear relations.

A feature outside all relations moves alone. Inside, a move that keeps the relations may need two or three features: to
raise a total, raise a part with it. The moves are the circuits of the matrix of the relations with a slack for each
inequality, up to three features: no move with fewer features keeps the same relations. Steps along circuits lead a
linear function to its maximum over the set (Bland 1976; De Loera, Hemmecke & Lee 2015).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import combinations
from math import gcd

import torch
from torch import Tensor

from signstep.domains.tabular.encode import Layout
from signstep.domains.tabular.relations import Relation

_LIKE = 10**6  # weights are taken for fractions with denominators up to this
_LARGEST = 10**6
_MOST = 3


@dataclass(frozen=True, eq=False)
class Moves:
    """Elementary moves over the N features that are numbers, and the relations they keep.

    Attributes:
        vectors: (D, N) float64: a move of length t adds t * vector; both signs are meant.
        units: (D,) lengths are multiples of it; 0 for any length.
        weights: (M, N) of the relations weights @ value <= bounds.
        bounds: (M,).
        equal: (M,) bool: where = is meant.
        bound_up: (N,) bool: features that are in a relation.
        places: (D, 3) the features of each move, padded with its first one.
        parts: (D, 3) their weights, 0 where padded.
    """

    vectors: Tensor
    units: Tensor
    weights: Tensor
    bounds: Tensor
    equal: Tensor
    bound_up: Tensor
    places: Tensor
    parts: Tensor

    @cached_property
    def related(self) -> Tensor:
        """Positions of the moves among features that are in a relation."""
        return (self.vectors[:, self.bound_up] != 0).any(1).nonzero().squeeze(1)

    @cached_property
    def among_related(self) -> "Moves":
        """These moves alone."""
        mine = self.related
        parts = {name: getattr(self, name)[mine] for name in ("vectors", "units", "places", "parts")}
        return replace(self, **parts)

    @cached_property
    def drift(self) -> Tensor:
        """By how much a move of length 1 raises each relation (D, M)."""
        return self.vectors @ self.weights.T


def moves_of(layout: Layout) -> Moves:
    """The elementary moves of a schema; features that cannot change take part in none."""
    schema = layout.schema
    numeric = layout.numeric.tolist()
    place = {schema.features[number].name: position for position, number in enumerate(numeric)}
    steps = [Fraction(schema.features[number].step).limit_denominator(_LIKE) for number in numeric]
    free = [schema.features[number].change != "none" for number in numeric]
    rows = [_row(relation, place) for relation in schema.relations]
    equal = [relation.equal for relation in schema.relations]
    found: dict[tuple[tuple[int, Fraction], ...], Fraction] = {}
    for position in range(len(numeric)):
        if free[position] and not any(position in row and same for row, same in zip(rows, equal, strict=True)):
            found[((position, Fraction(1)),)] = steps[position]
    for support in _supports(rows, free):
        for vector in _circuits(support, rows, equal):
            unit = _unit(vector, steps)
            if unit is not None:
                found.setdefault(tuple(sorted(vector.items())), unit)
    count = len(numeric)
    vectors = torch.zeros(len(found), count, dtype=torch.float64, device="cpu")
    places = torch.zeros(len(found), _MOST, dtype=torch.int64, device="cpu")
    parts = torch.zeros(len(found), _MOST, dtype=torch.float64, device="cpu")
    for number, members in enumerate(found):
        places[number] = members[0][0]
        for slot, (position, part) in enumerate(members):
            vectors[number, position] = parts[number, slot] = float(part)
            places[number, slot] = position
    weights = torch.zeros(len(rows), count, dtype=torch.float64, device="cpu")
    for number, row in enumerate(rows):
        for position, weight in row.items():
            weights[number, position] = float(weight)
    bound_up = torch.zeros(count, dtype=torch.bool, device="cpu")
    for row in rows:
        bound_up[list(row)] = True
    return Moves(
        vectors,
        torch.tensor([float(unit) for unit in found.values()], dtype=torch.float64, device="cpu"),
        weights,
        torch.tensor([relation.bound for relation in schema.relations], dtype=torch.float64, device="cpu"),
        torch.tensor(equal, dtype=torch.bool, device="cpu"),
        bound_up,
        places,
        parts,
    )


def _row(relation: Relation, place: dict[str, int]) -> dict[int, Fraction]:
    return {place[name]: Fraction(weight).limit_denominator(_LIKE) for name, weight in relation.weights}


def _supports(rows: list[dict[int, Fraction]], free: list[bool]) -> Iterator[tuple[int, ...]]:
    """Two or three features that hang together through relations."""
    near: dict[int, set[int]] = {}
    for row in rows:
        members = [position for position in row if free[position]]
        for position in members:
            near.setdefault(position, set()).update(members)
    for first, second in combinations(sorted(near), 2):
        if second in near[first]:
            yield first, second
    for triple in combinations(sorted(near), 3):
        links = sum(b in near[a] for a, b in combinations(triple, 2))
        if links >= 2 and len(rows) > 1:
            yield triple


def _circuits(
    support: tuple[int, ...], rows: list[dict[int, Fraction]], equal: list[bool]
) -> Iterator[dict[int, Fraction]]:
    """The moves of these features that keep all equalities, and one relation fewer than there are features."""
    touched = [(row, same) for row, same in zip(rows, equal, strict=True) if any(place in row for place in support)]
    needed = len(support) - 1
    fixed = [row for row, same in touched if same]
    loose = [row for row, same in touched if not same]
    for more in combinations(loose, max(0, needed - len(fixed))):
        kept = fixed + list(more)
        vector = _kernel([[row.get(place, Fraction(0)) for place in support] for row in kept])
        if vector is not None and all(vector):
            first = vector[0] / abs(vector[0])
            yield {place: first * weight for place, weight in zip(support, vector, strict=True)}


def _kernel(matrix: list[list[Fraction]]) -> list[Fraction] | None:
    """The one direction, in smallest whole numbers, that a matrix sends to zero; None if there are none or several."""
    work = [list(row) for row in matrix]
    columns = len(work[0]) if work else 0
    pivots: list[int] = []
    for column in range(columns):
        rank = len(pivots)
        found = next((r for r in range(rank, len(work)) if work[r][column] != 0), None)
        if found is None:
            continue
        work[rank], work[found] = work[found], work[rank]
        head = work[rank][column]
        work[rank] = [value / head for value in work[rank]]
        for r in range(len(work)):
            if r != rank and work[r][column] != 0:
                factor = work[r][column]
                work[r] = [a - factor * b for a, b in zip(work[r], work[rank], strict=True)]
        pivots.append(column)
    left = [column for column in range(columns) if column not in pivots]
    if len(left) != 1:
        return None
    vector = [Fraction(0)] * columns
    vector[left[0]] = Fraction(1)
    for rank, column in enumerate(pivots):
        vector[column] = -work[rank][left[0]]
    whole = 1
    for value in vector:
        whole = whole * value.denominator // gcd(whole, value.denominator)
    scaled = [value * whole for value in vector]
    shared = gcd(*(int(value) for value in scaled))
    return [value / shared for value in scaled] if shared else None


def _unit(vector: dict[int, Fraction], steps: list[Fraction]) -> Fraction | None:
    """The smallest length that is a whole number of steps in every feature; None if it is too large to matter."""
    unit = Fraction(0)
    for position, weight in vector.items():
        if steps[position] == 0:
            continue
        own = abs(steps[position] / weight)
        unit = own if unit == 0 else _common(unit, own)
    return unit if unit <= _LARGEST else None


def _common(first: Fraction, second: Fraction) -> Fraction:
    """The least common multiple of two fractions."""
    bottom = first.denominator * second.denominator // gcd(first.denominator, second.denominator)
    a, b = int(first * bottom), int(second * bottom)
    return Fraction(a * b // gcd(a, b), bottom)
