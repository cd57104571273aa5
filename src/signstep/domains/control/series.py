"""Recorded series: examples (R, T, C) with labels, and what was left out on the way."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from signstep.errors import InputError, LoadError


@dataclass(frozen=True, eq=False)
class Series:
    """Examples of equal length.

    Attributes:
        x: (R, T, C) float32, in the units of the file.
        y: (R,) int64.
        classes: the names of the labels 0, 1, ...
        names: of the channels.
        skipped: sentences about what was left out, and why.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.x) == 0:
            raise InputError(f"no usable series is left; {'; '.join(self.skipped[:2]) or 'the file has none'}")


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
            raise InputError(f"{sentence}; correct it, or pass --skip-bad to leave it out")
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
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"{path} cannot be read ({error}); pass a .ts file") from error
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
        raise LoadError(f"{path} has no line @data; pass a file of the UCR .ts format")
    named = stated.get("@classlabel", ["false"])
    if named[0].lower() != "true" or len(named) < 3:
        raise LoadError(f"{path} names no class labels; the line must read: @classLabel true first second ...")
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


def number_of(cell: str) -> float | None:
    """The finite number that a cell holds, or None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
