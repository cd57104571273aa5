"""Messages made of parts: what is wrong, with the argument and the value seen, and what to do about it.

A part is text or an `Arg`. The API writes ``box=(0, 1)`` for an `Arg`, the command line ``--box 0,1``; whatever else a
message quotes, a path or a column of somebody's table, is text, and nobody looks for names in it.

>>> told = Message(Arg("grid", 255), "needs a box with two ends", remedy=("pass", Arg("box", (0, 1))))
>>> print(told)
grid=255 needs a box with two ends; pass box=(0, 1)
>>> told.argument, told.value, told.remedy
('grid', 255, 'pass box=(0, 1)')
"""

import pickle
from collections.abc import Callable, Sequence
from copy import copy
from enum import Enum
from os import PathLike, fspath
from typing import Self, TypeAlias

from signstep.plain import one_line


class Unsaid(Enum):
    """The value of an argument that is named without one."""

    UNSAID = "unsaid"


UNSAID = Unsaid.UNSAID


class Blank:
    """A value that the reader is to fill in, by names for its parts: ``Blank("low", "high")`` is (low, high)."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __repr__(self) -> str:
        return f"({', '.join(self.names)})" if len(self.names) > 1 else "".join(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blank) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)


class Arg:
    """An argument of the API in a message.

    Args:
        name: as it is passed.
        value: the value seen, or the one to pass; a `Blank` where the reader is to fill it in.
        of: what of the argument the value is, such as "shape" or "dtype": "x has shape (3,)" for "x=(3,)".
        shown: the value as it is written, where its repr is not.
        python: what the API writes instead of all this, where it has no argument of its own for what is an option.
    """

    def __init__(
        self, name: str, value: object = UNSAID, *, of: str = "", shown: str | None = None, python: str = ""
    ) -> None:
        self.name, self.value, self.of, self.python = name, value, of, python
        self.shown = shown if shown is not None else None if value is UNSAID else _written(value)
        self.as_shown = shown is not None

    def __reduce__(self) -> tuple[object, ...]:
        """What cannot go to another process, such as somebody's function, goes as the text that stands for it."""
        try:
            pickle.dumps(self.value)
            value = self.value
        except Exception:  # whatever pickling raises
            value = self.shown
        return _again, (type(self), self.name, value, self.of, self.shown, self.python, self.as_shown)

    def __repr__(self) -> str:
        return f"Arg({in_python(self, cure=False)!r})"


class Key(Arg):
    """A key of somebody's file in a message, as TOML writes it: ``step = 0.5``. It has one name everywhere."""


def _written(value: object) -> str:
    return repr(fspath(value) if isinstance(value, PathLike) else value)


def _again(kind: type[Arg], name: str, value: object, of: str, shown: str | None, python: str, as_shown: bool) -> Arg:
    made = kind(name, value, of=of, shown=shown, python=python)
    made.as_shown = as_shown
    return made


Part: TypeAlias = str | Arg

# How an argument is written; the flag says that it stands in a remedy, where it is to be passed.
Say: TypeAlias = Callable[[Arg, bool], str]


def in_python(argument: Arg, cure: bool) -> str:
    """As it stands in a call: ``eps=0.1``; without a value eps, and in a remedy ``eps=``, which asks for one."""
    if argument.python:
        return argument.python
    if argument.shown is None:
        return f"{argument.name}=" if cure and not isinstance(argument, Key) else argument.name
    if argument.of:
        return f"{argument.name} has {argument.of} {argument.shown}"
    return f"{argument.name}{' = ' if isinstance(argument, Key) else '='}{argument.shown}"


class Message:
    """What errors and warnings carry, as fields.

    Args:
        parts: what is wrong. Spaces between parts and commas between arguments are set here; a part that begins with a
            mark such as a comma follows the one before at once.
        remedy: what to do, of such parts too.
        where: what the arguments are options or keys of, if they are not the API's: a recipe, a table of a schema, a
            file. It stands before all, and the command line leaves such arguments as they are.
    """

    def __init__(self, *parts: Part, remedy: Part | Sequence[Part] = (), where: str = "") -> None:
        self.parts = parts
        self.cure: tuple[Part, ...] = (remedy,) if isinstance(remedy, (str, Arg)) else tuple(remedy)
        self.where = where

    @property
    def argument(self) -> str | None:
        """The name of the first argument that is said to be wrong."""
        return None if self._first is None else self._first.name

    @property
    def value(self) -> object:
        """The value seen of it; None as well where none is said."""
        return None if self._first is None or self._first.value is UNSAID else self._first.value

    @property
    def text(self) -> str:
        """What is wrong, without the remedy, in the words of the API."""
        return _joined(self.parts, in_python, cure=False)

    @property
    def remedy(self) -> str | None:
        """What to do about it, in the words of the API."""
        return _joined(self.cure, in_python, cure=True) or None

    def said(self, say: Say, between: str = ", ") -> str:
        """The whole message, on one line in which nothing is hidden.

        Args:
            say: writes the arguments.
            between: what stands between arguments that are to be passed together.
        """
        say, between = (in_python, ", ") if self.where else (say, between)
        text, cure = _joined(self.parts, say, cure=False), _joined(self.cure, say, cure=True, between=between)
        if text and cure:
            # A question is answered by a sentence of its own.
            text = f"{text} {cure[0].upper()}{cure[1:]}" if text.endswith("?") else f"{text}; {cure}"
        return one_line(f"{self.where}: {text or cure}" if self.where else text or cure)

    def within(self, where: str) -> Self:
        """The same message about a place that its arguments belong to."""
        placed = copy(self)
        placed.where = f"{where}: {self.where}" if self.where else where
        return placed

    def __str__(self) -> str:
        return self.said(in_python)

    @property
    def _first(self) -> Arg | None:
        return next((part for part in self.parts if isinstance(part, Arg)), None)


def _joined(parts: Sequence[Part], say: Say, *, cure: bool, between: str = ", ") -> str:
    text, before = "", None
    for part in parts:
        word = part if isinstance(part, str) else say(part, cure)
        if not text or not word or word[0] in ",.;:)?!" or text[-1] == "(":
            space = ""
        else:
            space = between if isinstance(before, Arg) and isinstance(part, Arg) else " "
        text, before = f"{text}{space}{word}", part
    return text
