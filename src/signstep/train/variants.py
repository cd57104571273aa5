"""A way to train in one word: a recipe with its options, and knobs of the loop beside them."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from signstep.errors import InputError
from signstep.importing import name_and_options
from signstep.messages import Arg
from signstep.train.recipes import OPTIONS, TrainingRecipe, training_recipe
from signstep.train.settings import Settings

_KNOBS = tuple(field.name for field in fields(Settings))


def variant(spec: str, settings: Settings) -> tuple[TrainingRecipe, Settings]:
    """Recipe and settings of a spec such as ``"pgd-at:steps=7,smoothing=0.1"``.

    Options of the recipe and fields of `Settings` stand in one list; no name is both.

    Args:
        spec: NAME, or NAME:OPTION=VALUE,...
        settings: what holds where the spec says nothing.

    Raises:
        InputError: no such recipe or option, or a value that does not fit.

    >>> recipe, settings = variant("pgd-at:steps=7,smoothing=0.1", Settings())
    >>> recipe.steps, settings.smoothing
    (7, 0.1)
    """
    name, options = name_and_options(spec.strip())
    own: list[str] = []
    knobs: list[str] = []
    for piece in filter(None, (part.strip() for part in options.split(","))):
        option = piece.partition("=")[0].strip()
        if option not in (*OPTIONS, *_KNOBS):
            raise InputError(
                Arg("recipe", spec),
                f": {piece!r} is no option",
                remedy=f"pass NAME=VALUE with {', '.join((*OPTIONS, *_KNOBS))}",
            )
        (knobs if option in _KNOBS else own).append(piece)
    return training_recipe(f"{name}:{','.join(own)}"), with_knobs(settings, knobs)


def with_knobs(settings: Settings, given: Sequence[str]) -> Settings:
    """Settings with fields from texts such as ``"epochs=5"``.

    Raises:
        InputError: no such field, or a value that does not fit.

    >>> with_knobs(Settings(), ["epochs=5", "flip=true"]).flip
    True
    """
    changes: dict[str, Any] = {}
    for text in given:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or name not in _KNOBS:
            raise InputError(
                Arg("set", text, python=f"setting {text!r}"), remedy=f"pass NAME=VALUE with {', '.join(_KNOBS)}"
            )
        if name in changes:
            raise InputError(Arg("set", name, python=f"setting {name}"), "is given twice", remedy="keep one")
        changes[name] = _read(text, value, getattr(settings, name), name)
    return replace(settings, **changes)


def _read(text: str, value: str, now: object, name: str) -> Any:
    if value.lower() == "none" and name in ("cure", "check_every"):
        return None
    if isinstance(now, bool):
        if value.lower() not in ("true", "false"):
            raise InputError(Arg("set", text, python=f"setting {text!r}"), remedy="pass true or false")
        return value.lower() == "true"
    kind: Any = int if name == "check_every" else str if now is None or callable(now) else type(now)
    try:
        return kind(value)
    except ValueError as error:
        raise InputError(
            Arg("set", text, python=f"setting {text!r}"), f": {value!r} is not a number", remedy="pass one"
        ) from error
