"""What a recipe is: a name, a function that builds the attack, and what a reader must know about it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from signstep.engine.attack import Attack, Needs
from signstep.engine.oracles import Oracle
from signstep.errors import InputError
from signstep.messages import Arg


@dataclass(frozen=True)
class Recipe:
    """One row of the table.

    Attributes:
        name: as on the command line.
        build: makes the attack; its keyword arguments, which all have defaults, are the recipe's options.
        title: in words.
        source: the paper.
        knowledge: what the attacker must have, in words.
        cost: passes for each example and restart, with the verdict.
        needs: the same as one of four words: the attack asks for "nothing", "labels", "scores" or "gradients".
        norms: the norms it is defined for; empty for all.
        smallest: whether it looks for the smallest change that fools, rather than within a given eps.
        images: whether it needs images (R, C, H, W).
        balls: whether it is defined for balls in boxes alone, and not for sets of other shapes; so are all those that
            look for the smallest change.
    """

    name: str
    build: Callable[..., Attack]
    title: str
    source: str
    knowledge: str
    cost: str
    needs: Needs = "gradients"
    norms: tuple[str, ...] = ()
    smallest: bool = False
    images: bool = False
    balls: bool = False


WHITE_BOX = "gradients of the model (or of a surrogate: transfer)"
SCORES = "scores of the model for inputs of the attacker's choice"
LABELS = "the model's answer, a label without scores, for inputs of the attacker's choice"


def options_of(row: Recipe) -> tuple[str, ...]:
    """The options that a recipe takes on the command line."""
    defaults = row.build.__kwdefaults__ or {}
    return tuple(name for name in defaults if name != "oracle")


def built(row: Recipe, text: str, said: str, oracle: Oracle | None = None) -> Attack:
    """The attack of a recipe with the options of ``text``; ``said`` is the name it was called by, for messages.

    Raises:
        InputError: no such option, or no value for it; the message names the recipe, whose option it is.
    """
    options: dict[str, Any] = dict(parse_options(row, text, said))
    if oracle is not None:
        options["oracle"] = oracle
    try:
        return row.build(**options)
    except InputError as error:
        if error.where:
            raise
        raise error.within(said) from error


def parse_options(row: Recipe, text: str, said: str) -> dict[str, float | int | str]:
    """Read "steps=50,restarts=10" for a recipe; ``said`` is the name it was called by, for messages.

    Raises:
        InputError: no such option, or not a value for it.
    """
    defaults = row.build.__kwdefaults__ or {}
    options: dict[str, float | int | str] = {}
    for item in filter(None, text.split(",")):
        option, equals, value = (part.strip() for part in item.partition("="))
        if not equals or option not in options_of(row):
            known = ", ".join(options_of(row)) or "none"
            raise InputError(f"recipe {said!r} has no option {item!r}; its options are {known}, written name=value")
        options[option] = _value(option, value, defaults[option], said)
    return options


def _value(option: str, value: str, default: object, said: str) -> float | int | str:
    if isinstance(default, str):
        return value
    whole = isinstance(default, int)
    try:
        number = int(value) if whole else float(value)
    except ValueError as error:
        raise InputError(Arg(option, value), remedy=f"pass a {'whole ' * whole}number", where=said) from error
    if isinstance(number, float) and math.isinf(number):
        raise InputError(Arg(option, value), remedy="pass a finite number", where=said)
    return number


def step_length(step: float | None, whole: float, steps: int) -> float:
    """The length of a step relative to eps: as given, or ``whole / steps``.

    Raises:
        InputError: fewer steps than one.
    """
    if steps < 1:
        raise InputError(Arg("steps", steps), remedy="pass at least 1")
    return whole / steps if step is None else step
