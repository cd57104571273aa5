"""What a recipe is: a name, a function that builds the attack, and what a reader must know about it."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from signstep.engine.attack import Attack, Needs
from signstep.engine.oracles import Oracle
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.registry import nearest


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
        norms: the norms it is defined for, by name; one with arguments may go by what stands before them ("l0" for
            "l0(0)" too); empty for all.
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

    def takes(self, norm: str) -> bool:
        """Whether it is defined for the norm of this name."""
        return fits_norm(self.norms, norm)


def fits_norm(norms: tuple[str, ...], norm: str) -> bool:
    """Whether a norm is among those named: itself, or the family before its arguments; none named are all.

    >>> fits_norm(("l0", "linf"), "l0(0)"), fits_norm(("grouped(0)",), "grouped(1)")
    (True, False)
    """
    return not norms or norm in norms or norm.partition("(")[0] in norms


WHITE_BOX = "gradients of the model (or of a surrogate: transfer)"
SCORES = "scores of the model for inputs of the attacker's choice"
LABELS = "the model's answer, a label without scores, for inputs of the attacker's choice"


Option: TypeAlias = float | int | str | bool | None


def defaults_of(row: Recipe) -> dict[str, Option]:
    """The options of a recipe and their defaults: those arguments of ``build`` whose defaults can be typed as text."""
    arguments = inspect.signature(row.build).parameters.values()
    return {
        one.name: one.default
        for one in arguments
        if one.name != "oracle" and (one.default is None or isinstance(one.default, (float, int, str, bool)))
    }


def options_of(row: Recipe) -> tuple[str, ...]:
    """The options that a recipe takes on the command line."""
    return tuple(defaults_of(row))


def built(row: Recipe, options: Mapping[str, Option], said: str, oracle: Oracle | None = None) -> Attack:
    """The attack of a recipe with these options; ``said`` is the name it was called by, for messages.

    Raises:
        InputError: a value does not fit; the message names the recipe, whose option it is.
    """
    given: dict[str, Any] = dict(options) if oracle is None else {**options, "oracle": oracle}
    try:
        return row.build(**given)
    except InputError as error:
        if error.where:
            raise
        raise error.within(said) from error


def parse_options(row: Recipe, text: str, said: str) -> dict[str, Option]:
    """Read "steps=50,restarts=10" for a recipe; ``said`` is the name it was called by, for messages.

    Raises:
        InputError: no such option, or not a value for it.
    """
    defaults = defaults_of(row)
    options: dict[str, Option] = {}
    for item in filter(None, text.split(",")):
        option, equals, value = (part.strip() for part in item.partition("="))
        if not equals or option not in defaults:
            known = ", ".join(defaults) or "none"
            near = nearest(option, defaults) if equals else None
            hint = f"did you mean {near}={value}?" if near else f"its options are {known}, written NAME=VALUE"
            raise InputError(f"recipe {said!r} has no option {item!r}", remedy=hint)
        options[option] = _value(option, value, defaults[option], said)
    return options


def _value(option: str, value: str, default: Option, said: str) -> float | int | str:
    if isinstance(default, str):
        return value
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise InputError(Arg(option, value), remedy="pass true or false", where=said)
        return value.lower() == "true"
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
