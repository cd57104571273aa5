"""Tables of numbers with a target column, whatever file they come from: rows become inputs, one column the labels.

Every column but the target is a feature, in the order of the file. A row is bad where a feature is missing, is no
number, or is NaN, infinite or too large for float32; where it has another number of cells than the header; or where
its target is missing or, for a regression, no finite number (see ``signstep.data.targets``). A bad row
is named, or skipped and counted with ``skip_bad``.

The whole table is read once when it is opened: the labels are needed, class names must be known before they can be
numbered, and a bad row should show before hours of work. Then it is read again for each iteration, a block at a time.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from signstep.data.batches import DataSource, regroup
from signstep.data.targets import Reals, Targets, Value, is_missing, real_number
from signstep.errors import InputError, LoadError
from signstep.messages import Arg

Array = np.ndarray[Any, np.dtype[Any]]

BLOCK_ROWS = 512


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a table.

    Attributes:
        numbers: What each row is called: the line in a text file, or the row counted from 0.
        values: The features, float64 (n, F); NaN where one is missing.
        targets: The target of each row, None where it is missing.
        faults: Why the row at a position cannot be read, for some; its values say nothing then.
    """

    numbers: Sequence[int]
    values: Array
    targets: Sequence[Value | None]
    faults: Mapping[int, str]


class Table(Protocol):
    """A table that can be read from its beginning as often as needed."""

    @property
    def place(self) -> str:
        """What messages call it."""

    @property
    def unit(self) -> str:
        """What the numbers of its rows count: "line" or "row"."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns in the order of the file."""

    def check(self, target: str, *, real: bool) -> None:
        """Refuse columns that cannot hold features, or a target that cannot hold labels or numbers, by their type."""

    def rows(self, target: str) -> Iterator[Rows]:
        """All rows, a block at a time."""


def open_tables(
    tables: Sequence[Table],
    *,
    name: str,
    files: Mapping[str, Path],
    target: str | None,
    classes: tuple[str, ...] | None,
    skip_bad: bool,
    batch_size: int,
    real: bool = False,
    ignore: int | None = None,
) -> DataSource:
    """Tables with the same columns, one after the other, as a data source of shape (F,).

    With ``real`` the target column holds real numbers (regression), which stay as they are, float32. ``ignore`` is a
    label that stands for none, and is no class.

    Raises:
        InputError: If the target is not named or is no column.
        LoadError: If the columns differ between tables, a row is bad and ``skip_bad`` is off, or no row can be used.
    """
    columns = tables[0].columns
    for table in tables:
        _refuse_columns(table, columns, tables[0].place)
    target = _target(tables[0].place, columns, target)
    for table in tables:
        table.check(target, real=real)
    features = tuple(column for column in columns if column != target)

    targets = Reals(target) if real else Targets(target, ignore)
    count, bad, first_bad = 0, 0, ""
    for table in tables:
        for rows in table.rows(target):
            faults = _checked(rows, features, target, real=real)[1]
            for position, value in enumerate(rows.targets):
                if position not in faults and value is not None:
                    targets.add(value, partial(_row, table, rows.numbers[position]))
            if faults and not first_bad:
                position = min(faults)
                first_bad = f"{_row(table, rows.numbers[position])}, {faults[position]}"
            if faults and not skip_bad:
                raise LoadError(
                    first_bad, remedy=("repair or remove such rows, or skip them (", Arg("skip_bad", True), ")")
                )
            count += len(rows.targets)
            bad += len(faults)
    if count == bad:
        reason = f"; the first: {first_bad}" if bad else ""
        raise LoadError(
            f"{name}: none of {count} rows can be used{reason}", remedy="write numbers and a label or target in each"
        )
    labels = targets.labels(classes)

    def read(sizes: Sequence[int]) -> Iterator[Tensor]:
        return regroup(
            (_good(rows, features, target, real=real) for table in tables for rows in table.rows(target)), sizes
        )

    skipped = (f"{bad} of {count} rows skipped because they cannot be used; the first: {first_bad}",) if bad else ()
    return DataSource(
        name=name,
        labels=labels.numbers,
        shape=(len(features),),
        read=read,
        files=files,
        batch_size=batch_size,
        total=count - bad,
        classes=labels.classes,
        notes=(
            f"{'targets' if real else 'labels'} from column {target!r}; the other {len(features)} columns as float32 "
            "in the order of the file",
            *labels.notes,
            *skipped,
        ),
        skipped=bad,
    )


def listed(columns: Sequence[str]) -> str:
    """Column names for a message."""
    return ", ".join(columns[:20]) + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")


def refuse_names(place: object, columns: Sequence[str]) -> None:
    """See that each column has a name of its own.

    Raises:
        LoadError: One has none, or an index's, or two have one name.
    """
    for number, column in enumerate(columns, 1):
        if not column or (column.startswith("__index_level_") and column.endswith("__")):
            raise LoadError(
                f"{place}: column {number} is named {column[:80]!r} and looks like an index, not a feature",
                remedy="name it, or write the file without its index (pandas: index=False)",
            )
    twice = next((column for column, times in Counter(columns).items() if times > 1), None)
    if twice is not None:
        raise LoadError(f"{place} has two columns named {twice[:80]!r}", remedy="give each column a name of its own")


def refuse_unknown(ignored: Sequence[str], names: Sequence[str]) -> None:
    """See that all that is to be ignored is there.

    Raises:
        InputError: it is not.
    """
    unknown = next((name for name in ignored if name not in names), None)
    if unknown is not None:
        raise InputError(
            f"there is no column {unknown!r} to ignore; the data has {listed(tuple(names))}",
            remedy=("pass", Arg("ignore_column"), ", or ignore in the schema, with one of these"),
        )


def _refuse_columns(table: Table, columns: tuple[str, ...], first: str) -> None:
    refuse_names(table.place, table.columns)
    if table.columns != columns:
        raise LoadError(
            f"the shard {table.place} has the columns {listed(table.columns)} but {first} has {listed(columns)}",
            remedy="write all shards with the same columns in the same order",
        )
    if len(columns) < 2:
        raise LoadError(
            f"{table.place} has only the column {listed(columns)!r}", remedy="write at least one feature and a target"
        )


def _target(place: str, columns: tuple[str, ...], target: str | None) -> str:
    if target is None:
        raise InputError(
            f"{place} has the columns {listed(columns)}",
            remedy=("pass", Arg("label_column"), "with the one that holds the labels"),
        )
    if target not in columns:
        raise InputError(
            f"{place} has no column {target!r}", remedy=("pass", Arg("label_column"), f"with one of {listed(columns)}")
        )
    return target


def _row(table: Table, number: int) -> str:
    return f"{table.place}, {table.unit} {number}"


def _checked(rows: Rows, features: tuple[str, ...], target: str, *, real: bool) -> tuple[Array, dict[int, str]]:
    """The features as float32, and what is wrong with the row at a position."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told below
        values = rows.values.astype(np.float32)
    faults = dict(rows.faults)
    for position, value in enumerate(rows.targets):
        if position not in faults and is_missing(value):
            faults[position] = f"column {target!r} holds no {'number' if real else 'label'}"
        elif real and position not in faults and real_number(value) is None:
            faults[position] = f"column {target!r} is {value!r}, not a number, and a regression needs one"
    for position in np.flatnonzero(~np.isfinite(values).all(1)).tolist():
        column = int(np.flatnonzero(~np.isfinite(values[position]))[0])
        value = rows.values[position, column]
        what = "is missing or NaN" if np.isnan(value) else f"is {value:g}, which float32 cannot hold"
        faults.setdefault(position, f"column {features[column]!r} {what}")
    return values, faults


def _good(rows: Rows, features: tuple[str, ...], target: str, *, real: bool) -> Tensor:
    values, faults = _checked(rows, features, target, real=real)
    return torch.from_numpy(np.delete(values, list(faults), axis=0) if faults else values)
