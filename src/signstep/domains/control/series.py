"""Recorded series: examples (R, T, C) with labels, and what was left out on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from signstep.data.csv_text import number_of, text_lines
from signstep.data.tables import listed, refuse_unknown
from signstep.data.targets import Targets
from signstep.errors import InputError, LoadError
from signstep.messages import Arg, Blank

_MOST_CLASSES = 10_000

# What asks for a model that answers with a number.
REGRESSION = (Arg("task", "regression"), Arg("tolerance", Blank("T")))


@dataclass(frozen=True, eq=False)
class Series:
    """Examples of equal length.

    Attributes:
        x: (R, T, C) float32, in the units of the file.
        y: (R,) int64, or float32 where labels are real numbers.
        classes: the names of the labels 0, 1, ...; none where labels are real numbers.
        names: of the channels.
        skipped: sentences about what was left out, and why.
        interval: seconds between two samples, where the file says so.
        places: of windows, the record and the row that each begins with; () for finished series.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    interval: float | None = None
    places: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(self.x) == 0:
            left_out = "; ".join(self.skipped[:2]) or "the file has none"
            raise InputError(f"no usable series is left: {left_out}", remedy="pass other data")

    @property
    def real(self) -> bool:
        """Whether labels are real numbers."""
        return self.y.is_floating_point()

    def called(self, answer: Tensor) -> str:
        """What an answer of a model is called: a class by its name, where it has one here."""
        if self.real:
            return f"{float(answer):.4g}"
        number = int(answer)
        return self.classes[number] if number < len(self.classes) else str(number)

    def rows(self, index: Tensor) -> "Series":
        """The examples at ``index``."""
        places = tuple(self.places[row] for row in index.tolist()) if self.places else ()
        return replace(self, x=self.x[index], y=self.y[index], places=places)

    def without(self, ignored: Sequence[str]) -> "Series":
        """The other channels.

        Raises:
            InputError: there is no such channel, or no other.
        """
        if not ignored:
            return self
        refuse_unknown(ignored, self.names)
        kept = [place for place, name in enumerate(self.names) if name not in ignored]
        if not kept:
            raise InputError(f"all {len(self.names)} channels are to be ignored", remedy="leave at least one")
        note = f"channels left out as asked: {listed(tuple(ignored))}"
        names = tuple(self.names[place] for place in kept)
        return replace(self, x=self.x[..., kept], names=names, skipped=(*self.skipped, note))


def classes_of(targets: Targets, place: str) -> tuple[Tensor, tuple[str, ...]]:
    """Labels (N,) int64 and the names of the classes; whole numbers are the classes that they count.

    Raises:
        LoadError: they are no class numbers or names.
    """
    labels = targets.labels(None)
    if labels.classes is not None:
        return labels.numbers, labels.classes
    largest = int(labels.numbers.max()) if len(labels.numbers) else -1
    if largest >= _MOST_CLASSES:
        raise LoadError(
            f"{place}: the labels in {targets.column!r} count classes up to {largest}",
            remedy=(
                "number them from 0, write names, or for a model that answers with a number pass",
                *REGRESSION,
            ),
        )
    return labels.numbers, tuple(map(str, range(largest + 1)))


def halves(series: Series) -> tuple[Series, Series]:
    """What a model is trained on and what is audited: of each class the first half in the order of the file, the rest.

    Windows that share rows with one that is trained on are in neither.

    Raises:
        InputError: a class has a single example, or all its others share rows with what is trained on.
    """
    train, test = list[int](), list[int]()
    length = series.x.shape[1]
    for label in range(1 if series.real else len(series.classes)):
        rows = list(range(len(series.x))) if series.real else (series.y == label).nonzero().squeeze(1).tolist()
        cut = (len(rows) + 1) // 2
        train += rows[:cut]
        ends = dict[int, int]()
        for record, first in (series.places[row] for row in rows[:cut] if series.places):
            ends[record] = max(ends.get(record, 0), first + length)
        rest = [
            row
            for row in rows[cut:]
            if not series.places or series.places[row][1] >= ends.get(series.places[row][0], 0)
        ]
        if rows and not rest:
            what = "the data" if series.real else f"the class {series.classes[label]!r}"
            raise InputError(
                f"{what} has too few series to train a model on some and to audit it on others that share no "
                f"rows with them ({len(rows)} in all)",
                remedy=("pass", Arg("model"), ", or more data"),
            )
        test += rest
    parts = (torch.tensor(sorted(rows), dtype=torch.int64, device="cpu") for rows in (train, test))
    return series.rows(next(parts)), series.rows(next(parts))


class Faults:
    """Bad rows: the first one ends the reading, unless bad rows are to be skipped; then they are counted."""

    def __init__(self, *, skip: bool) -> None:
        self.skip, self.said = skip, list[str]()

    def add(self, sentence: str) -> None:
        """Note one bad row.

        Raises:
            InputError: rows are not to be skipped.
        """
        if not self.skip:
            raise InputError(sentence, remedy=("correct it, or pass", Arg("skip_bad", True), "to leave it out"))
        self.said.append(sentence)

    def notes(self, what: str) -> tuple[str, ...]:
        """How many were left out, and the first of them."""
        return () if not self.said else (f"{len(self.said)} {what} left out (--skip-bad); the first: {self.said[0]}",)


def read_ts(path: Path, *, skip_bad: bool = False) -> Series:
    """Read the .ts format of the UCR and UEA archives: channels parted by colons, values by commas, the label last.

    Raises:
        LoadError: the file cannot be read, or has no labels.
        InputError: a line that does not fit the others, unless skip_bad.
    """
    with text_lines(path) as texts:
        lines = [line.rstrip("\r\n") for line in texts]
    stated: dict[str, list[str]] = {}
    begin = None
    for number, line in enumerate(lines, 1):
        words = line.strip().split()
        if words and words[0].startswith("@"):
            stated[words[0].lower()] = words[1:]
            if words[0].lower() == "@data":
                begin = number
                break
    if begin is None:
        raise LoadError(f"{path} has no line @data", remedy="pass a file of the UCR .ts format")
    named = stated.get("@classlabel", ["false"])
    if named[0].lower() != "true" or len(named) < 3:
        raise LoadError(f"{path} names no class labels", remedy="write a line such as: @classLabel true first second")
    classes = named[1:]
    channels = int(stated["@dimensions"][0]) if "@dimensions" in stated else None
    faults, parts, labels, shape = Faults(skip=skip_bad), list[NDArray[np.float64]](), list[int](), None
    for number, line in enumerate(lines[begin:], begin + 1):
        if not line.strip() or line.startswith("#"):
            continue
        read = _ts_line(line, classes, channels, shape)
        if isinstance(read, str):
            faults.add(f"{path.name}, line {number}{read}")
            continue
        parts.append(read[0])
        labels.append(read[1])
        shape = read[0].shape
    x = torch.from_numpy(np.stack(parts)).float() if parts else torch.empty(0, 1, 1, dtype=torch.float32, device="cpu")
    names = tuple(f"channel {number + 1}" for number in range(x.shape[2]))
    return Series(
        x, torch.tensor(labels, dtype=torch.int64, device="cpu"), tuple(classes), names, faults.notes("series")
    )


def _ts_line(
    line: str, classes: list[str], channels: int | None, shape: tuple[int, ...] | None
) -> tuple[NDArray[np.float64], int] | str:
    """The values (T, C) and the label of a line, or what is wrong with it."""
    *parts, label = line.strip().split(":")
    if label not in classes:
        return f": the label {label!r} is not one of {', '.join(classes)}"
    wanted = channels if shape is None else shape[1]
    if wanted is not None and len(parts) != wanted:
        return f" has {len(parts)} channels instead of {wanted}"
    columns = []
    length = None if shape is None else shape[0]
    for place, part in enumerate(parts, 1):
        cells = part.split(",")
        values = [number_of(cell) for cell in cells]
        if None in values:
            first = values.index(None)
            return f", channel {place}, sample {first + 1}: {cells[first].strip()!r} is not a finite number"
        if length is not None and len(cells) != length:
            return f", channel {place}: {len(cells)} samples instead of {length}"
        length = len(cells)
        columns.append(values)
    return np.array(columns, dtype=np.float64).T, classes.index(label)
