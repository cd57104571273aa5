"""What a row of the table of defences is, and turning "jpeg:quality=75" into a transformation."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from signstep.defences.step import Step
from signstep.errors import InputError
from signstep.importing import Spelling, is_spec, name_and_options
from signstep.messages import Arg
from signstep.registry import Brought, Registry, nearest

SPELLING = Spelling("the defence", "name", "my_defences:smooth")


@dataclass(frozen=True)
class Defence:
    """A transformation of inputs as a row of the table.

    Attributes:
        name: as on the command line.
        build: makes the `Step`; its arguments, which all have defaults, are the options.
        title: what it does, in words.
        gradient: how an attacker gets past it: by its own gradient, or by which stand-in.
        source: the paper that proposes it.
        broken: the paper that shows what it is worth, and that in a few words.
        ease: "low", "medium" or "high": how hard it is to bring into use, and why.
    """

    name: str
    build: Callable[..., Step]
    title: str
    gradient: str
    source: str
    broken: str
    ease: str = "low: one function in front of the model"

    @property
    def random(self) -> bool:
        """Whether it draws numbers."""
        return self.build().random

    @property
    def options(self) -> dict[str, Any]:
        """Its options and their defaults."""
        return {part.name: part.default for part in inspect.signature(self.build).parameters.values()}


def row_of(brought: Brought) -> Defence:
    """The row of a `Defence`, of a `Step`, or of a function that makes one.

    Raises:
        InputError: it is none of these.
    """
    thing: Any = brought.thing
    if isinstance(thing, Defence):
        if thing.name != brought.name and not is_spec(brought.name):
            raise InputError(f"the row calls itself {thing.name!r}", remedy=f"give it the name {brought.name!r}")
        row = replace(thing, name=brought.name)
    elif isinstance(thing, Step):
        row = Defence(brought.name, lambda: thing, *_UNKNOWN)
    elif callable(thing):
        row = Defence(brought.name, thing, *_UNKNOWN)
    else:
        raise InputError(
            f"it is a {type(thing).__name__}",
            remedy="name a Defence, a Step such as ss.defences.custom(forward, stand_in), or a function that makes one",
        )
    if not all(part.default is not part.empty for part in inspect.signature(row.build).parameters.values()):
        raise InputError("its function has arguments without a default", remedy="give each one")
    made = row.build()
    if not isinstance(made, Step):
        raise InputError(f"it makes a {type(made).__name__}", remedy="let it make a Step")
    return row


_UNKNOWN = ("somebody's own", "as it says", "not stated", "not known: measure it with signstep defences")


def step_of(spec: "str | Step", table: Registry[Defence]) -> Step:
    """A transformation from its name and options, such as "jpeg:quality=75"; a `Step` is taken as it is.

    Raises:
        InputError: no such defence or option, or a value that does not fit.
    """
    if isinstance(spec, Step):
        return spec
    if not isinstance(spec, str):
        raise InputError(
            Arg("defences", spec),
            remedy="pass names such as 'jpeg:quality=75', or what ss.defences.custom(forward, stand_in) makes",
        )
    name, options = (spec.partition(":")[0], spec.partition(":")[2]) if ":" in spec else (spec, "")
    if name not in table.own:
        name, options = name_and_options(spec)
    row = table.find(name)
    given = {}
    for item in filter(None, options.split(",")):
        option, equals, value = (part.strip() for part in item.partition("="))
        if not equals or option not in row.options:
            near = nearest(option, row.options) if equals else None
            known = ", ".join(row.options) or "none"
            hint = f"did you mean {near}={value}?" if near else f"its options are {known}, written NAME=VALUE"
            raise InputError(f"defence {name!r} has no option {item!r}", remedy=hint)
        given[option] = _value(option, value, row.options[option], name)
    return row.build(**given)


def _value(option: str, text: str, default: object, where: str) -> float | int | str:
    if isinstance(default, str):
        return text
    whole = isinstance(default, int)
    top, slash, bottom = text.partition("/")
    try:
        return int(text) if whole else float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(Arg(option, text), remedy=f"pass a {'whole ' * whole}number", where=where) from error
