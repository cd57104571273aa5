"""Finished series in a NumPy archive: ``x`` of (examples, samples, channels), labels, and perhaps their names.

``x`` and ``y``; or ``x_train``, ``y_train``, ``x_test`` and ``y_test``, of which the test half is audited and the other
trains a model where none is given. Beside them ``names`` (``feature_names``, ``channels``) for the channels and
``classes`` (``class_names``) for labels that count from 0. Rows are held to what a table's are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from signstep.data.npz import array_names, read_arrays
from signstep.data.tables import listed
from signstep.data.targets import Targets, is_missing
from signstep.domains.control.series import Faults, Series, classes_of
from signstep.errors import LoadError
from signstep.messages import Arg

_X, _Y = ("x", "X"), ("y", "Y", "labels", "label")
_NAMES, _CLASSES = ("names", "feature_names", "channels", "channel_names"), ("classes", "class_names")
_MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class _Archive:
    path: Path
    arrays: dict[str, NDArray[Any]]

    def first(self, names: Sequence[str], half: str = "") -> tuple[str, NDArray[Any]] | None:
        """The first of these arrays that is there, and its name."""
        spelt = (name + half for name in names)
        return next(((name, self.arrays[name]) for name in spelt if name in self.arrays), None)


def read_npz(
    path: Path, *, label: str | None = None, skip_bad: bool = False, real: bool = False
) -> tuple[Series, Series | None]:
    """The series to audit, and those to train on where the archive parts them.

    Args:
        path: the archive.
        label: the array of labels, or the beginning of its name before ``_test``; None for one of the usual names.
        skip_bad: leave out series with values that are not finite, and count them.
        real: labels are real numbers.

    Raises:
        LoadError: the file cannot be read, or holds no such arrays.
        InputError: an example is bad, unless skip_bad.
    """
    known = array_names(path)
    labels = _Y if label is None else (label,)
    halves = ("", "_test", "_train")
    wanted = [*(name + half for name in (*_X, *labels) for half in halves), *_NAMES, *_CLASSES]
    archive = _Archive(path, read_arrays(path, wanted))
    test = "" if archive.first(_X) is not None else "_test"
    if archive.first(_X, test) is None or archive.first(labels, test) is None:
        missing = "x" if archive.first(_X, test) is None else label or "y"
        raise LoadError(
            f"{path} has no array {missing!r}, it has {listed(known) or 'none'}",
            remedy=(
                "save x (examples, samples, channels) and y, or x_train, y_train, x_test and y_test, with "
                "numpy.savez, or name the labels with",
                Arg("label_column"),
            ),
        )
    tested = _series(archive, labels, test, skip_bad=skip_bad, real=real, classes=None)
    if test == "" or archive.first(_X, "_train") is None or archive.first(labels, "_train") is None:
        return tested, None
    trained = _series(archive, labels, "_train", skip_bad=skip_bad, real=real, classes=tested.classes)
    if trained.x.shape[1:] != tested.x.shape[1:]:
        raise LoadError(
            f"{path}: x_train has series of {tuple(trained.x.shape[1:])} and x_test of {tuple(tested.x.shape[1:])}",
            remedy="save two halves of one set",
        )
    return tested, trained


def _series(
    archive: _Archive,
    labels: Sequence[str],
    half: str,
    *,
    skip_bad: bool,
    real: bool,
    classes: tuple[str, ...] | None,
) -> Series:
    found, said = archive.first(_X, half), archive.first(labels, half)
    assert found is not None
    assert said is not None
    (name, x), (label, y) = found, said
    where = f"{archive.path}: {name}"
    if x.dtype.kind not in "iufb":
        raise LoadError(
            f"{where} has dtype {x.dtype}", remedy="save the series as numbers, in the units of the sensors"
        )
    if x.ndim == 2:
        x = x[:, :, None]
    if x.ndim != 3 or 0 in x.shape:
        raise LoadError(
            f"{where} has shape {x.shape}", remedy="save it as (examples, samples, channels), none of them 0"
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (len(x),):
        raise LoadError(
            f"{archive.path}: {label} has shape {y.shape} for {len(x)} series", remedy="save one label for each"
        )
    faults, bad = Faults(skip=skip_bad), np.zeros(len(x), dtype=bool)
    wide = x.astype(np.float64)
    for row in np.flatnonzero(~(np.abs(wide) <= _MOST).all((1, 2))).tolist():
        sample, channel = np.argwhere(~(np.abs(wide[row]) <= _MOST))[0].tolist()
        faults.add(
            f"{archive.path.name}, {name}[{row}], sample {sample + 1}, channel {channel + 1} is "
            f"{wide[row, sample, channel]:g}, no finite number that float32 can hold"
        )
        bad[row] = True
    targets, named = _reals(archive, label, y, faults, bad) if real else _classes(archive, label, y, classes)
    good = np.flatnonzero(~bad)
    return Series(
        torch.from_numpy(wide[good]).float(),
        torch.from_numpy(targets[good]),
        named,
        _channels(archive, x.shape[2]),
        faults.notes("series"),
    )


def _reals(
    archive: _Archive, label: str, y: NDArray[Any], faults: Faults, bad: NDArray[np.bool_]
) -> tuple[NDArray[Any], tuple[str, ...]]:
    if y.dtype.kind not in "iuf":
        raise LoadError(f"{archive.path}: {label} has dtype {y.dtype}", remedy="save numbers, as a regression needs")
    for row in np.flatnonzero(~(np.abs(y.astype(np.float64)) <= _MOST) & ~bad).tolist():
        faults.add(f"{archive.path.name}, {label}[{row}] is {y[row]}, no finite number that float32 can hold")
        bad[row] = True
    with np.errstate(over="ignore"):  # what float32 cannot hold is left out above
        return y.astype(np.float32), ()


def _classes(
    archive: _Archive, label: str, y: NDArray[Any], known: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class numbers, which ``classes`` may name, or the positions of names."""
    if y.dtype.kind not in "iubfUS":
        raise LoadError(f"{archive.path}: {label} has dtype {y.dtype}", remedy="save class numbers or names")
    targets = Targets(label)
    for row, value in enumerate(np.char.decode(y, "utf-8", "replace").tolist() if y.dtype.kind == "S" else y.tolist()):
        if is_missing(value):
            raise LoadError(f"{archive.path}: {label}[{row}] holds no label", remedy="save one for each series")
        targets.add(int(value) if isinstance(value, bool) else value, partial(_place, archive, label, row))
    numbers, names = classes_of(targets, archive.path.name)
    given = archive.first(_CLASSES)
    if given is not None and y.dtype.kind not in "US":
        named = tuple(map(str, given[1].reshape(-1).tolist()))
        if len(named) < len(names):
            raise LoadError(
                f"{archive.path}: {label} goes up to {len(names) - 1}, and {given[0]} has {len(named)} names",
                remedy="save a name for each class, counted from 0",
            )
        names = named
    if known is not None and y.dtype.kind in "US" and names != known:
        raise LoadError(
            f"{archive.path}: {label} holds {listed(names)}, the half to audit {listed(known)}",
            remedy="save two halves of one set",
        )
    return numbers.numpy(), names if known is None else max(names, known, key=len)


def _place(archive: _Archive, label: str, row: int) -> str:
    return f"{archive.path.name}, {label}[{row}]"


def _channels(archive: _Archive, count: int) -> tuple[str, ...]:
    given = archive.first(_NAMES)
    if given is None:
        return tuple(f"channel {number + 1}" for number in range(count))
    names = tuple(map(str, given[1].reshape(-1).tolist()))
    if len(names) != count or len(set(names)) != count or "" in names:
        raise LoadError(
            f"{archive.path}: {given[0]} has {len(set(names) - {''})} different names for {count} channels",
            remedy="save one for each",
        )
    return names
