"""Attacks of a domain's own, which stand in its records under names that can be typed again."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from signstep.attacks.recipe import Recipe, built, parse_options
from signstep.engine.attack import Attack

Named: TypeAlias = Callable[[str], Attack | None]
"""From what is typed to an attack object of that name; None for all that the engine's own table knows."""


def named_in(rows: Mapping[str, Recipe]) -> Named:
    """Attacks from a table like the engine's, with options: "coordinate-search:queries=200".

    The attack's name is what was typed, so that it says the same in a record.
    """

    def find(spec: str) -> Attack | None:
        name, _, tail = spec.strip().partition(":")
        row = rows.get(name)
        if row is None:
            return None
        made: Any = built(row, parse_options(row, tail, name), name)
        return replace(made, name=spec.strip())  # type: ignore[no-any-return]

    return find


def none_named(spec: str) -> Attack | None:  # noqa: ARG001
    """For domains without attacks of their own."""
    return None
