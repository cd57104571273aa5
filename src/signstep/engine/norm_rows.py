"""Norms that somebody else brings: what they must have, and names with arguments such as "weighted(0.5)"."""

import ast
import inspect
from collections.abc import Callable
from typing import Any

from signstep.errors import InputError, ThreatError
from signstep.importing import Spelling, is_spec
from signstep.messages import Arg
from signstep.registry import Brought

SPELLING = Spelling("the norm", "name", "my_norms:weighted")
FAMILY = Spelling("the norm", "name", "my_norms:Weighted(0.5)")

METHODS = ("length", "dual_length", "steepest", "project", "sample", "diameter")


def norm_of(brought: Brought) -> Any:
    """The norm that was brought, or that a class or function makes without arguments.

    Raises:
        InputError: it is none; the message says what it lacks.
    """
    thing: Any = brought.thing
    made = _made(thing, brought.name) if inspect.isclass(thing) or inspect.isroutine(thing) else thing
    refuse_norm(made)
    if made.name != brought.name and not is_spec(brought.name):
        raise InputError(f"the norm calls itself {made.name!r}", remedy=f"give it the name {brought.name!r}")
    return made


def family_of(brought: Brought) -> Callable[..., Any]:
    """The class or function that makes norms of its arguments.

    Raises:
        InputError: it is none.
    """
    if not callable(brought.thing):
        raise InputError(
            f"it is a {type(brought.thing).__name__}", remedy="name a class or a function that makes norms"
        )
    return brought.thing


def refuse_norm(thing: Any) -> None:
    """See that something has all that a norm has, and a name that can stand in a record.

    Raises:
        ThreatError: it has not.
    """
    missing = [name for name in METHODS if not callable(getattr(thing, name, None))]
    if missing:
        raise ThreatError(
            f"norm {type(thing).__name__} has no {', no '.join(missing)}, which norms have", remedy="write them"
        )
    name = getattr(thing, "name", None)
    if not isinstance(name, str) or not name or not name.isprintable() or any(map(str.isspace, name)):
        raise ThreatError(
            f"norm {type(thing).__name__} has the name {name!r}", remedy="write text without spaces, such as 'mine(2)'"
        )


def with_arguments(text: str) -> tuple[str, tuple[Any, ...], dict[str, Any]] | None:
    """Name and arguments of "weighted(0.5)" or "my_norms:Weighted(scale=0.5)"; None where the text has no brackets.

    >>> with_arguments("my_norms:Weighted(0.5, axis=1)")
    ('my_norms:Weighted', (0.5,), {'axis': 1})

    Raises:
        ThreatError: the arguments are no plain values.
    """
    name, bracket, rest = text.partition("(")
    if not bracket:
        return None
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError(rest)
        values = tuple(ast.literal_eval(part) for part in call.args)
        named = {str(part.arg): ast.literal_eval(part.value) for part in call.keywords if part.arg is not None}
        if len(named) < len(call.keywords):
            raise ValueError(rest)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ThreatError(
            Arg("norm", text), ": its arguments are no plain values", remedy="write them as in weighted(0.5)"
        ) from error
    return name, values, named


def _made(thing: Any, name: str) -> Any:
    """What a class or function makes without arguments.

    Raises:
        InputError: it needs some.
    """
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError) as error:
        raise InputError(f"the arguments of {name} cannot be read", remedy="wrap it in a function") from error
    try:
        signature.bind()
    except TypeError as error:
        raise InputError(f"it takes {signature}", remedy=f"write its arguments behind it, as in {name}(0.5)") from error
    return thing()
