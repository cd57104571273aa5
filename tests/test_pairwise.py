"""Thinning by pairs: nothing that two values do together goes unseen, and every process thins alike."""

from itertools import combinations, product
from typing import Any

import pytest

from pairwise import covering

TABLES: dict[str, list[dict[str, Any]]] = {
    "three": [{"a": a, "b": b, "c": c} for a, b, c in product(range(5), "xyz", (True, False))],
    "with holes": [{"a": a, "b": b, "c": c} for a, b, c in product(range(6), range(6), range(4)) if (a + b) % 3],
    "joined": [{"name": n, "norm": m, "dtype": d} for (n, m), d in product([("p", 1), ("p", 2), ("q", 2)], "fh")],
    "two": [{"a": a, "b": b} for a, b in product(range(3), range(4))],
    "one": [{"a": a} for a in range(3)],
}


@pytest.mark.parametrize("name", TABLES)
def test_every_two_values_that_meet_still_meet(name: str) -> None:
    rows = TABLES[name]
    kept = [rows[place] for place in covering(rows)]
    for first, second in combinations(rows[0], 2):
        assert {(row[first], row[second]) for row in kept} == {(row[first], row[second]) for row in rows}
    assert all({row[axis] for row in kept} == {row[axis] for row in rows} for axis in rows[0])


def test_it_is_few() -> None:
    rows = [dict(enumerate(values)) for values in product(range(4), repeat=5)]
    named = [{str(axis): value for axis, value in row.items()} for row in rows]
    assert 16 <= len(covering(named)) <= 40 < len(rows)


def test_the_same_law_keeps_the_same_combinations(request: pytest.FixtureRequest) -> None:
    """What runs is what `covering` says of all combinations, unless all are asked for."""
    mine = [item for item in request.session.items if item.nodeid.split("[")[0].endswith("::test_thinned")]
    whole = [{"a": a, "b": b, "c": c} for a, b, c in ALL]
    expected = whole if request.config.getoption("--whole") else [whole[place] for place in covering(whole)]
    assert len(expected) == (64 if request.config.getoption("--whole") else len(covering(whole)))
    if len(mine) > 1:  # one test alone was asked for otherwise
        ran = [dict(item.callspec.params) for item in mine if isinstance(item, pytest.Function)]
        assert sorted(map(repr, ran)) == sorted(map(repr, expected))


ALL = list(product(range(4), repeat=3))


@pytest.mark.pairwise
@pytest.mark.parametrize(("a", "b", "c"), ALL)
def test_thinned(a: int, b: int, c: int) -> None:
    assert (a, b, c) in ALL
