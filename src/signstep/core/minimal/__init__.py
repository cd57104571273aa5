"""Attacks that look for the smallest change that fools."""

from signstep.core.recipe import Recipe

ROWS: tuple[Recipe, ...] = ()
