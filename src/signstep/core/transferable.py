"""Gradient attacks made to carry over to other models."""

from signstep.core.recipe import Recipe

ROWS: tuple[Recipe, ...] = ()
