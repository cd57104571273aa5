"""The target column of a table: values become class numbers, or stay the real numbers that they are."""

import math
import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from signstep.errors import InputError, LoadError, SignstepError
from signstep.io.documents import read_text
from signstep.io.files import expanded
from signstep.messages import Arg, Blank

Value: TypeAlias = str | int | float | bool

_LARGEST_CLASS = 2**31 - 1
# What asks for the targets of a regression.
REAL = Arg("task", Blank("Regression(tolerance)"), python="real=True")

_MISSING = {"", "na", "n/a", "nan", "null"}


@dataclass(frozen=True)
class Labels:
    """Class numbers int64 (N,) or real targets float32 (N,), the names where there are names, and what was decided."""

    numbers: Tensor
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]


class ClassIndex:
    """Numbers of classes by their names; lists such as ImageNet's hold a name twice, for two classes.

    A name that stands for several classes is told apart by its number: "crane (134)".
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._numbers: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            self._numbers.setdefault(name, []).append(number)
        for name, numbers in list(self._numbers.items()):
            for number in numbers if len(numbers) > 1 else ():
                self._numbers.setdefault(f"{name} ({number})", [number])

    def __contains__(self, name: str) -> bool:
        return name in self._numbers

    def number(self, name: str, place: str, kind: type[SignstepError] = LoadError) -> int:
        """The number of a class.

        Args:
            name: In the list, or with its number where it stands there several times.
            place: What gave the name, for the message.
            kind: Of the error.

        Raises:
            KeyError: The name is not in the list.
            SignstepError: Of that kind, if the name stands for several classes.
        """
        numbers = self._numbers[name]
        if len(numbers) > 1:
            written = [f"{name} ({number})" for number in numbers]
            raise kind(
                f"{place}: {name!r} is the name of the classes {_and(list(map(str, numbers)))}",
                remedy=f"write {' or '.join(map(repr, written))}",
            )
        return numbers[0]


def _and(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


class Reals:
    """The values of the target column of a regression in the order of the rows."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._rows = array("f")

    def add(self, value: Value, place: Callable[[], str]) -> None:  # noqa: ARG002
        """The value of the next row, which `real_number` reads."""
        number = real_number(value)
        assert number is not None
        self._rows.append(number)

    def labels(self, classes: tuple[str, ...] | None) -> Labels:
        """All targets, float32 (N,).

        Raises:
            InputError: If there are classes.
        """
        if classes is not None:
            raise InputError(
                Arg("classes"),
                "gives an order to class names, and the targets of a regression are numbers",
                remedy="leave it out",
            )
        rows = np.frombuffer(self._rows, np.float32).copy() if self._rows else np.zeros(0, np.float32)
        return Labels(torch.from_numpy(rows), None, (f"column {self.column!r}: real targets as float32",))


def real_number(value: Value | None) -> float | None:
    """The finite number that a target is or spells, as far as float32 can hold it; else None."""
    if value is None or isinstance(value, bool):
        return None
    number = _number(value)
    return number if number is not None and abs(number) <= np.finfo(np.float32).max else None


class Targets:
    """The values of a target column in the order of the rows; memory grows by eight bytes per row.

    Whole numbers from 0 on are class numbers as they are. Anything else is a name, and the sorted names are numbered
    0..K-1, unless the order of the classes is given. The label to ignore is a number beside the classes, of any sign.
    """

    def __init__(self, column: str, ignore: int | None = None) -> None:
        self.column = column
        self._ignore = ignore
        self._codes: dict[Value, int] = {}
        self._places: list[str] = []
        self._rows = array("q")

    def add(self, value: Value, place: Callable[[], str]) -> None:
        """The value of the next row, and how to name that row in a message."""
        code = self._codes.get(value)
        if code is None:
            code = self._codes[value] = len(self._places)
            self._places.append(place())
        self._rows.append(code)

    def labels(self, classes: tuple[str, ...] | None) -> Labels:
        """All labels.

        Args:
            classes: Names in the order of their numbers, with which each value is then compared as text.

        Raises:
            LoadError: If a value is not among the classes given or stands for several of them, is a negative or
                fractional number, or if there are numbers and names.
        """
        kept = [value for value in self._codes if not self._ignored(value)]
        if classes is not None:
            return self._given(kept, classes)
        numbers = {value: number for value in kept if (number := _number(value)) is not None}
        if kept and not numbers:
            return self._named(tuple(sorted(map(str, kept))))
        names = [value for value in kept if value not in numbers]
        if names:
            one = next(iter(numbers))
            raise LoadError(
                f"{self._at(names[0])} is {names[0]!r} but {self._at(one)} is {one!r}",
                remedy="use either class names or class numbers throughout",
            )
        for value, number in numbers.items():
            if not number.is_integer() or not 0 <= number <= _LARGEST_CLASS:
                raise LoadError(
                    f"{self._at(value)} is {value}, not a class number",
                    remedy=(
                        "write labels as integers 0..K-1 or as class names, leave out what stands for no label (",
                        Arg("ignore_label"),
                        "), or declare a regression (",
                        REAL,
                        ")",
                    ),
                )
        return Labels(self._numbered(lambda value: int(numbers[value])), None, ())

    def _ignored(self, value: Value) -> bool:
        return self._ignore is not None and _number(value) == self._ignore

    def _given(self, kept: Sequence[Value], classes: tuple[str, ...]) -> Labels:
        index = ClassIndex(classes)
        for value in kept:
            if str(value) not in index:
                raise LoadError(
                    f"{self._at(value)} is {str(value)!r}, which is not among the {len(classes)} classes given",
                    remedy="add it to them or correct the row",
                )
        numbers = self._numbered(lambda value: index.number(str(value), self._at(value)))
        return Labels(numbers, classes, (f"column {self.column!r}: classes are numbered in the order given",))

    def _named(self, names: tuple[str, ...]) -> Labels:
        position = {name: number for number, name in enumerate(names)}
        shown = ", ".join(f"{name} = {number}" for number, name in enumerate(names[:4]))
        more = ", ..." if len(names) > 4 else ""
        note = f"column {self.column!r}: class names numbered in sorted order: {shown}{more}"
        return Labels(self._numbered(lambda value: position[str(value)]), names, (note,))

    def _numbered(self, number: Callable[[Value], int]) -> Tensor:
        """The numbers of all rows; the label to ignore is its own."""
        rows = np.frombuffer(self._rows, np.int64) if self._rows else np.zeros(0, np.int64)
        numbers = [self._ignore if self._ignored(value) else number(value) for value in self._codes]
        return torch.from_numpy(np.asarray(numbers, np.int64)[rows])

    def _at(self, value: Value) -> str:
        return f"{self._places[self._codes[value]]}, column {self.column!r}"


def is_missing(value: Value | None) -> bool:
    """Whether a target is no value: none, NaN, or text such as an empty cell, NA, N/A or null in any case."""
    if isinstance(value, str):
        return value.strip().lower() in _MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def read_classes(classes: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Class names in the order of the model's outputs, from a sequence or a text file with one name per line.

    A name may stand for several classes, as in ImageNet's list: see `ClassIndex`.

    Raises:
        InputError: If the sequence is empty, or holds an empty name.
        LoadError: If the file cannot be read, or the same holds for it.
    """
    if isinstance(classes, str | Path):
        path = expanded(classes)
        try:
            names = [line.strip() for line in _lines(read_text(path, "the list of classes"))]
        except LoadError as error:
            raise LoadError(
                Arg("classes", path),
                f"cannot be read ({error})",
                remedy="pass a UTF-8 text file with one name per line, or a sequence of names",
            ) from error
        _refuse_gaps(names, f"{path}", LoadError)
    else:
        names = list(classes)
        _refuse_gaps(names, "classes", InputError)
    return tuple(names)


def _lines(text: str) -> list[str]:
    """Lines end where editors end them: ``str.splitlines`` would also cut a name at a separator that nobody sees."""
    return re.split("\r\n|\r|\n", text.rstrip()) if text.strip() else []


def _refuse_gaps(names: list[str], where: str, kind: type[SignstepError]) -> None:
    if not names:
        raise kind(f"{where} holds no names", remedy="list the classes in the order of the model's outputs")
    for number, name in enumerate(names, 1):
        if not name:
            raise kind(f"{where}: name {number} is empty", remedy="list the classes without gaps, one name each")


def _number(value: Value) -> float | None:
    """The number that a value is or spells."""
    return spelled(value) if isinstance(value, str) else float(value)


def spelled(text: str) -> float | None:
    """The number that a text spells with a decimal point, NaN and infinity among them, or None.

    Python's own spellings (1_000, digits of other scripts) are slips in a table.
    """
    if "_" in text or not text.isascii():
        return None
    try:
        return float(text)
    except ValueError:
        return None
