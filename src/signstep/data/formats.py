"""What a row of the table of data formats is, and what somebody else may bring in the place of one."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from signstep.data.batches import DataSource
from signstep.data.loaders import loaded
from signstep.errors import InputError
from signstep.importing import Spelling, is_spec
from signstep.registry import Brought

SPELLING = Spelling("the data", "name", "my_data:loader")


@dataclass(frozen=True)
class Asked:
    """What the caller of `open_data` asked for, which see.

    Attributes:
        batch_size: rows per batch.
        limit: the first few examples alone.
        split: "test" or "train".
        resize: (height, width) of images.
        label_column: of a table.
        classes: class names in the order of the model's outputs.
        skip_bad: leave out what cannot be read, and count it.
        real: targets are real numbers.
        max_pixels: the most pixels of an image.
        ignore_label: the label that stands for none.
    """

    batch_size: int
    limit: int | None = None
    split: str | None = None
    resize: tuple[int, int] | None = None
    label_column: str | None = None
    classes: tuple[str, ...] | None = None
    skip_bad: bool = False
    real: bool = False
    max_pixels: int | None = None
    ignore_label: int | None = None


Opener: TypeAlias = Callable[[Path, Asked], DataSource]

USES = ("split", "resize", "label_column", "classes", "skip_bad", "max_pixels", "real")
"""Options that a format may know; ``batch_size``, ``limit`` and ``ignore_label`` have a meaning for all."""


@dataclass(frozen=True)
class DataFormat:
    """One row: a kind of file or folder, or a set that is opened by its name.

    Attributes:
        name: of the format; what is typed where ``recognises`` is None.
        title: in words.
        open: reads what lies at a path (of a named set, its name).
        recognises: whether a path that exists is of this kind; None for a set that is opened by its name.
        uses: those of `USES` that it heeds.
    """

    name: str
    title: str
    open: Opener
    recognises: Callable[[Path], bool] | None = None
    uses: frozenset[str] = frozenset()


def row_of(brought: Brought) -> DataFormat:
    """The row of a `DataFormat`; or of what gives batches (x, y): a `DataSource`, an iterable, or a function of one.

    Raises:
        InputError: it is none of these; the message says what is wrong.
    """
    thing: Any = brought.thing
    if isinstance(thing, DataFormat):
        if thing.name != brought.name and not is_spec(brought.name):
            raise InputError(f"the row calls itself {thing.name!r}", remedy=f"give it the name {brought.name!r}")
        if not callable(thing.open) or not (thing.recognises is None or callable(thing.recognises)):
            raise InputError("its open or its recognises cannot be called", remedy="give it functions")
        unknown = sorted(set(thing.uses) - set(USES))
        if unknown:
            raise InputError(
                f"it uses {', '.join(unknown)}, which no option is", remedy=f"name some of {', '.join(USES)}"
            )
        return replace(thing, name=brought.name, open=partial(_opened, thing.open, brought.name))
    if inspect.isclass(thing) or inspect.isroutine(thing):
        return DataFormat(brought.name, _title(thing), partial(_called, thing, brought.name), uses=_arguments(thing))
    return DataFormat(brought.name, _title(thing), partial(_finished, thing, brought.name))


def _opened(opener: Callable[[Path, Asked], object], name: str, path: Path, asked: Asked) -> DataSource:
    return loaded(partial(opener, path, asked), f"{name} {path}", asked.batch_size, asked.limit, real=asked.real)


def _called(make: Callable[..., object], name: str, path: Path, asked: Asked) -> DataSource:  # noqa: ARG001
    """What a function of somebody's own gives, with those options that it takes."""
    takes = _parameters(make)
    given = {option: getattr(asked, option) for option in (*USES, "batch_size", "limit") if option in takes}
    return loaded(partial(make, **given), name, asked.batch_size, asked.limit, real=asked.real)


def _finished(thing: object, name: str, path: Path, asked: Asked) -> DataSource:  # noqa: ARG001
    return loaded(lambda: thing, name, asked.batch_size, asked.limit, real=asked.real, made=False)


def _parameters(make: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(make).parameters
    except (TypeError, ValueError) as error:
        raise InputError(f"the arguments of {make!r} cannot be read", remedy="wrap it in a function") from error


def _arguments(make: Callable[..., object]) -> frozenset[str]:
    """The options that a function takes.

    Raises:
        InputError: it needs something else.
    """
    parameters = _parameters(make)
    for one in parameters.values():
        star = one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        known = one.name in (*USES, "batch_size", "limit") and one.kind is not one.POSITIONAL_ONLY
        if not star and not known and one.default is one.empty:
            raise InputError(
                f"its argument {one.name} has no default",
                remedy=f"let it take {', '.join(USES)}, batch_size and limit, and what has a default",
            )
    # Targets are what the function returns, whether it was told which are wanted or not.
    return frozenset({"real", *(name for name in USES if name in parameters)})


def _title(thing: object) -> str:
    told = inspect.getdoc(thing) if inspect.isclass(thing) or inspect.isroutine(thing) else None
    return (told or "data of somebody's own").partition("\n")[0]
