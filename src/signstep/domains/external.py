"""Domains that somebody else brings: what their packages must offer."""

from dataclasses import replace
from types import ModuleType
from typing import Any

from signstep.domains.case import IMAGE
from signstep.domains.domain import Domain
from signstep.errors import InputError
from signstep.importing import Spelling, imported_module, is_spec
from signstep.registry import Brought

SPELLING = Spelling("the domain", "row", "my_package.bridge")


def row_of(brought: Brought) -> Domain:
    """The row of a `Domain`, or of a module that offers ``case``; its package is imported.

    Raises:
        InputError: it is neither; the message says what is wrong.
    """
    thing: Any = brought.thing
    if brought.name == IMAGE:
        raise InputError(f"{IMAGE!r} is what inputs are where no domain is named", remedy="give it another name")
    if isinstance(thing, Domain):
        if thing.name != brought.name and not is_spec(brought.name):
            raise InputError(f"the row calls itself {thing.name!r}", remedy=f"give it the name {brought.name!r}")
        row = replace(thing, name=brought.name)
    elif isinstance(thing, ModuleType):
        title = (thing.__doc__ or "inputs of somebody's own").strip().partition("\n")[0]
        heeds = frozenset(map(str, getattr(thing, "HEEDS", ())))
        row = Domain(brought.name, title, thing.__name__, heeds, tuple(getattr(thing, "RECIPES", ())))
    else:
        raise InputError(
            f"it is a {type(thing).__name__}", remedy="name a module that offers case(request), or a Domain"
        )
    module = imported_module(row.package)
    if not callable(getattr(module, "case", None)):
        raise InputError(f"{row.package} has no case(request), which makes an audit of a request", remedy="write it")
    missing = sorted(set(row.recipes) - set(getattr(module, "RECIPES", ())))
    if missing:
        raise InputError(f"{row.package} has no RECIPES for {', '.join(missing)}", remedy="give it a row for each")
    return row
