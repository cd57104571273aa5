"""Attacks that only ask: for scores, or for the answer alone."""

from signstep.core.recipe import Recipe

ROWS: tuple[Recipe, ...] = ()
