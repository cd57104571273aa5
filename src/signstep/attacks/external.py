"""Attacks that somebody else brings: what their rows must be, and attacks under names that can be typed again."""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args

from signstep.attacks.recipe import Option, Recipe
from signstep.engine.attack import Attack, Needs, with_oracle
from signstep.engine.oracles import Oracle
from signstep.engine.origin import foreign
from signstep.errors import InputError
from signstep.importing import Spelling, is_spec
from signstep.registry import Brought

SPELLING = Spelling("the attack", "name", "my_attacks:attack")

_WORDS = ("title", "source", "knowledge", "cost")


def row_of(brought: Brought) -> Recipe:
    """The row of a `Recipe`, of a function that makes an attack, or of an attack object; the attack is made once.

    Raises:
        InputError: it is none of these; the message says what is wrong.
    """
    thing: Any = brought.thing
    if isinstance(thing, Recipe):
        if thing.name != brought.name and not is_spec(brought.name):
            raise InputError(f"the row calls itself {thing.name!r}", remedy=f"give it the name {brought.name!r}")
        row = replace(thing, name=brought.name)
        _refuse(row)
        _made(row)
        return row
    if not callable(thing):
        raise InputError(
            f"it is a {type(thing).__name__}", remedy="name a function that makes an attack, a Recipe or an attack"
        )
    title = (inspect.getdoc(thing) or "an attack of somebody's own").partition("\n")[0]
    attack = not inspect.isclass(thing) and not inspect.isroutine(thing) and hasattr(thing, "steps")
    build = (lambda: thing) if attack else thing
    row = Recipe(brought.name, build, title, "", "as the attack says", "not stated")
    _refuse(row)
    made = _made(row)
    needs: Needs = getattr(made, "needs", "gradients" if made.steps else "nothing")
    if needs not in get_args(Needs):
        raise InputError(f"its attack has needs={needs!r}", remedy=f"say one of {', '.join(get_args(Needs))}")
    return replace(row, needs=needs)


def attack_of(row: Recipe, name: str, options: Mapping[str, Option], oracle: Oracle | None) -> Attack:
    """The attack of a row from outside, called ``name``: in a record it stands as it can be typed again.

    Raises:
        InputError: the attack cannot be called so, or has no place for an oracle.
    """
    takes = "oracle" in inspect.signature(row.build).parameters
    with foreign(f"the attack {name}"):
        made = row.build(**options, oracle=oracle) if takes else row.build(**options)
    if oracle is not None and not takes:
        made = with_oracle(made, oracle)
    return _called(made, name)


def _called(attack: Any, name: str) -> Attack:
    """The attack under another name."""
    if attack.name == name:
        return attack  # type: ignore[no-any-return]
    if is_dataclass(attack) and any(field.name == "name" and field.init for field in fields(attack)):
        return replace(attack, name=name)  # type: ignore[type-var, return-value]
    own = copy.copy(attack)
    try:
        own.name = name
    except AttributeError as error:
        raise InputError(
            f"the attack {name} calls itself {attack.name!r} and cannot be called otherwise",
            remedy="give it a field name",
        ) from error
    return own  # type: ignore[no-any-return]


def _refuse(row: Recipe) -> None:
    """See that a row says what rows say.

    Raises:
        InputError: it does not.
    """
    for word in _WORDS:
        if not isinstance(getattr(row, word), str):
            raise InputError(f"its {word} is {getattr(row, word)!r}", remedy="write text")
    if row.needs not in get_args(Needs):
        raise InputError(f"it has needs={row.needs!r}", remedy=f"say one of {', '.join(get_args(Needs))}")
    if not isinstance(row.norms, tuple) or not all(isinstance(norm, str) for norm in row.norms):
        raise InputError(
            f"it has norms={row.norms!r}", remedy="write a tuple of names, such as ('linf',), or () for all"
        )
    if not callable(row.build):
        raise InputError(
            f"its build is a {type(row.build).__name__}", remedy="give it a function that makes the attack"
        )
    try:
        arguments = inspect.signature(row.build).parameters.values()
    except (TypeError, ValueError) as error:
        raise InputError(f"the arguments of {row.build!r} cannot be read", remedy="wrap it in a function") from error
    for one in arguments:
        named = one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL) and (not named or one.default is one.empty):
            raise InputError(
                f"its argument {one.name} has no default; recipes are made by name alone", remedy="give it one"
            )


def _made(row: Recipe) -> Attack:
    """The attack that the row makes where nobody says otherwise."""
    made: Any = row.build()
    missing = [name for name in ("name", "steps", "draws", "from_clean") if not hasattr(made, name)]
    if not callable(made) or missing or inspect.isclass(made):
        said = f"has no {' and no '.join(missing)}" if missing and callable(made) else f"is a {type(made).__name__}"
        raise InputError(f"what it makes {said}", remedy="let it return an attack, such as signstep.GradientAttack")
    return _called(made, row.name)
