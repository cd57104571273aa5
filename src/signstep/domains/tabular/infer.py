"""A first schema from the cells of a table, for a person to edit."""

from collections.abc import Sequence

import numpy as np

from signstep.data.csv_text import number_of
from signstep.data.tables import refuse_unknown
from signstep.data.times import read_times
from signstep.domains.tabular.cells import Cells
from signstep.domains.tabular.schema import Change, Feature, Kind, Schema, Target
from signstep.errors import InputError
from signstep.messages import Arg

_EMPTY = ("", "na", "n/a", "nan", "null")
_IMMUTABLE = {"age", "sex", "gender", "race", "ethnicity", "nationality", "birthday", "foreignworker", "single"}
_IDS = {"id", "uuid", "index"}
_NAMES = ("target", "label", "class", "y", "decision", "default", "approved", "outcome")
_MOST_LEVELS = 40


def infer_schema(cells: Cells, target: str | None = None, ignore: Sequence[str] = ()) -> Schema:
    """A schema that fits the table.

    Whole numbers become integers, two values a binary feature, texts categories; bounds, mean and standard deviation
    are those seen. What looks like an immutable trait by its name (age, sex, ...) gets change = "none"; what looks like
    an id, or holds dates and times, is ignored. The favourable class is a guess (the last one) for a person to check.

    Args:
        cells: the table.
        target: the column of the labels; None guesses by name, then the last column.
        ignore: columns that the model does not see.

    Raises:
        InputError: no such column, or one that cannot be told (too many texts, nothing in it).
    """
    if len(cells) == 0:
        raise InputError(f"{cells.place} has no rows", remedy="pass a table with some, which a schema is inferred from")
    column = _target(cells, target)
    classes = tuple(sorted(set(_filled(cells.columns[column])), key=_by_number))
    if not 2 <= len(classes) <= _MOST_LEVELS:
        raise InputError(
            f"{cells.place}: the column {column!r} has {len(classes)} different values and cannot be the decision",
            remedy=("name another with", Arg("label_column")),
        )
    refuse_unknown(ignore, [name for name in cells.columns if name != column])
    ignored = tuple(name for name in cells.columns if name != column and (name in ignore or _no_feature(name, cells)))
    names = [name for name in cells.columns if name not in {column, *ignored}]
    features = tuple(_feature(name, cells) for name in names)
    groups = tuple(one.name for one in features if one.change == "none" and one.named and "<" not in one.name)
    return Schema(features, Target(column, classes, classes[-1]), ignore=ignored, groups=groups)


def _no_feature(name: str, cells: Cells) -> bool:
    """Whether a column is an id by its name, or holds dates and times."""
    if _bare(name) in _IDS:
        return True
    times = read_times(_filled(cells.columns[name]))
    return times is not None and None not in times.seconds


def _feature(name: str, cells: Cells) -> Feature:
    texts = _filled(cells.columns[name])
    if not texts:
        raise InputError(f"{cells.place}: the column {name!r} is empty", remedy="remove it from the file")
    change: Change = "none" if any(part in _IMMUTABLE for part in (_bare(name), *_words(name))) else "both"
    different = tuple(sorted(set(texts), key=_by_number))
    if len(different) == 2:
        centre, spread = _moments([float(different.index(text)) for text in texts])
        return Feature(name, "binary", levels=different, change=change, centre=centre, spread=spread)
    values = [number for number in map(number_of, texts) if number is not None]
    if len(values) < len(texts):
        if len(different) > _MOST_LEVELS:
            raise InputError(
                f"{cells.place}: the column {name!r} has {len(different)} different texts, more than the "
                f"{_MOST_LEVELS} of a category",
                remedy=("encode it as numbers, merge rare ones, or leave it out with", Arg("ignore_column")),
            )
        if len(different) == 1:
            raise InputError(
                f"{cells.place}: the column {name!r} holds {different[0]!r} alone", remedy="remove it from the file"
            )
        return Feature(name, "categorical", levels=different, change=change)
    kind: Kind = "integer" if all(value.is_integer() for value in values) else "continuous"
    centre, spread = _moments(values)
    if min(values) == max(values):
        change = "none"  # a range of one value leaves nothing to change to
    return Feature(name, kind, min(values), max(values), change=change, centre=centre, spread=spread)


def _moments(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation, rounded for a file that people read."""
    unit = max(map(abs, values)) or 1.0  # squares of the largest numbers would be infinite
    shares = np.array(values) / unit
    spread = unit * float(np.std(shares))
    return _rounded(unit * float(np.mean(shares))), _rounded(spread) if spread > 0 else 1.0


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _target(cells: Cells, target: str | None) -> str:
    if target is not None:
        if target not in cells.columns:
            raise InputError(
                f"{cells.place} has no column {target!r}",
                remedy=("pass", Arg("label_column"), f"with one of {', '.join(cells.columns)}"),
            )
        return target
    for name in _NAMES:
        for column in cells.columns:
            if _bare(column) == name:
                return column
    return list(cells.columns)[-1]


def _filled(texts: list[str]) -> list[str]:
    return [text for text in texts if text.lower() not in _EMPTY]


def _bare(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _words(name: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in name.lower()).split()


def _by_number(text: str) -> tuple[int, float, str]:
    number = number_of(text)
    return (1, 0.0, text) if number is None else (0, number, text)
