"""Sections of somebody's own: functions of a result, whose words go into the record."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from signstep.auditing.result import Result
from signstep.auditing.sections import Section
from signstep.errors import InputError
from signstep.frames import named, place
from signstep.importing import Spelling
from signstep.messages import Arg
from signstep.plain import one_line
from signstep.registry import Brought, Registry

SPELLING = Spelling("the section", "function", "my_sections:by_class")

Maker: TypeAlias = Callable[[Result], Section | Iterable[Section]]


def row_of(brought: Brought) -> Maker:
    """The function that was brought.

    Raises:
        InputError: it cannot be called with a result.
    """
    make: Any = brought.thing
    if not callable(make):
        raise InputError(f"it is a {type(make).__name__}", remedy="name a function from a Result to a Section")
    try:
        inspect.signature(make).bind(None)
    except (TypeError, ValueError) as error:
        raise InputError(f"it does not take one result ({error})", remedy="let it take the Result alone") from error
    return make  # type: ignore[no-any-return]


SECTIONS: Registry[Maker] = Registry("signstep.sections", SPELLING, row_of, argument="section")


def with_sections(result: Result, names: Sequence[str]) -> Result:
    """The result with what functions of somebody's own say of it, behind what its domain says.

    The work is done by then: a function that fails leaves a note, and the result stays.

    Args:
        result: what an audit returned.
        names: of functions in the table, or "module:name".

    Raises:
        InputError: there is no such function.
    """
    makers = [(name, SECTIONS.find(name)) for name in names]
    found: list[Section] = []
    notes: list[str] = []
    for name, make in makers:
        try:
            found += _sections(name, make(result))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() in a function must not cost what was found
            notes.append(one_line(f"the section {name} could not be made: {named(error)}{place(error)}"))
    return replace(result, sections=(*result.sections, *found), notes=(*result.notes, *notes))


def _sections(name: str, made: Any) -> tuple[Section, ...]:
    parts = (made,) if isinstance(made, Section) else tuple(made) if isinstance(made, Iterable) else (made,)
    for part in parts:
        if not isinstance(part, Section):
            raise InputError(Arg(name), f"gave a {type(part).__name__}", remedy="return a signstep.Section, or several")
    return parts
