"""Decoded records: the rows of a table as numbers, and one sentence for each row that cannot be used."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from signstep.data.csv_text import has_decimal_comma, number_of
from signstep.data.tables import listed
from signstep.domains.tabular.cells import Cells
from signstep.domains.tabular.schema import Feature, Schema
from signstep.errors import LoadError
from signstep.messages import Arg

Array = NDArray[np.float64]
_SLACK = 1e-6  # of what relations and steps may be off: written decimals do not add up to the last bit


@dataclass(frozen=True, eq=False)
class Records:
    """Rows that can be used.

    Attributes:
        values: (R, F) float64, a number for each feature: its value, or the position of its level.
        labels: (R,) int64 positions of the classes, or None where the table has no target.
        groups: by group of the schema, its text for each row.
        names: what each row is called in its file.
        bad: rows left out.
        notes: what the reader must know.
    """

    values: Array
    labels: NDArray[np.int64] | None
    groups: dict[str, tuple[str, ...]]
    names: tuple[str, ...]
    bad: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)


def read_records(cells: Cells, schema: Schema, *, skip_bad: bool = False, labelled: bool = True) -> Records:
    """Decode a table by its schema.

    Raises:
        LoadError: a column is missing, a row is bad and ``skip_bad`` is off, or no row can be used.
    """
    cuts = [_cut(group) for group in schema.groups]
    needed = [feature.name for feature in schema.features]
    for name in [*needed, *([schema.target.column] if labelled else []), *(name for name, _ in cuts)]:
        if name not in cells.columns:
            raise LoadError(
                f"{cells.place} has no column {name!r}, which the schema names",
                remedy=f"add it to the file or remove it from the schema; the file has {listed(tuple(cells.columns))}",
            )
    faults = dict(cells.faults)
    values = np.zeros((len(cells), len(needed)))
    for number, feature in enumerate(schema.features):
        values[:, number] = _column(cells.columns[feature.name], feature, faults)
    labels = _labels(cells, schema, faults) if labelled else None
    _relations(values, schema, faults)
    if faults and not skip_bad:
        first = min(faults)
        raise LoadError(
            f"{cells.row(first)} {faults[first]}", remedy=("or skip such rows (", Arg("skip_bad", True), ")")
        )
    good = np.array([row not in faults for row in range(len(cells))], dtype=bool)
    if not good.any():
        why = f"; the first: {cells.row(min(faults))} {faults[min(faults)]}" if faults else ""
        raise LoadError(
            f"{cells.place}: none of {len(cells)} rows can be used{why}", remedy="correct rows, or the schema"
        )
    kept = np.flatnonzero(good)
    notes = []
    if faults:
        first = min(faults)
        notes.append(
            f"{len(faults)} of {len(cells)} rows were left out because they cannot be used; the first: "
            f"{cells.row(first)} {faults[first]}"
        )
    left = [name for name in cells.columns if name not in needed and name != schema.target.column]
    unsaid = [name for name in left if name not in schema.ignore]
    if unsaid:
        notes.append(f"columns that the schema does not name were left out: {listed(tuple(unsaid))}")
    return Records(
        values[kept],
        None if labels is None else labels[kept],
        {
            group: tuple(_side(cells.columns[name][row], test) for row in kept)
            for group, (name, test) in _named(schema, cuts)
        },
        tuple(f"{cells.unit} {cells.numbers[row]}" for row in kept),
        len(faults),
        tuple(notes),
    )


def _column(texts: list[str], feature: Feature, faults: dict[int, str]) -> Array:
    column = np.zeros(len(texts))
    levels = {level: float(number) for number, level in enumerate(feature.levels)}
    for row, text in enumerate(texts):
        if row in faults:
            continue
        value = levels.get(text) if feature.named else number_of(text)
        why = _why_not(text, value, feature)
        if why:
            faults[row] = why
        else:
            assert value is not None
            column[row] = value
    return column


def _why_not(text: str, value: float | None, feature: Feature) -> str:
    """What is wrong with a cell and what helps; "" if nothing."""
    where = f"has column {feature.name!r}"
    if value is None and (not text or text.lower() in ("nan", "na", "n/a", "null")):
        return f"{where} empty or NaN: fill it in or remove the row"
    if value is None and feature.named:
        return f"{where} = {text!r}, which is not among {', '.join(feature.levels[:12])}: add the level or correct it"
    if value is None:
        hint = "write a decimal point for its comma" if has_decimal_comma(text) else "correct it"
        return f"{where} = {text[:40]!r}, which is not a finite number: {hint}"
    if not feature.low <= value <= feature.high:
        return f"{where} = {text}, outside its bounds {feature.low:.12g} to {feature.high:.12g}: correct it or them"
    if feature.step and abs(value / feature.step - round(value / feature.step)) > _SLACK:
        return f"{where} = {text}, not a multiple of {feature.step:.12g}: correct it, or kind and step in the schema"
    return ""


def _labels(cells: Cells, schema: Schema, faults: dict[int, str]) -> NDArray[np.int64]:
    known = {text: number for number, text in enumerate(schema.target.classes)}
    labels = np.zeros(len(cells), dtype=np.int64)
    for row, text in enumerate(cells.columns[schema.target.column]):
        if row in faults:
            continue
        if text not in known:
            faults[row] = (
                f"has column {schema.target.column!r} = {text!r}, which is not among the classes "
                f"{', '.join(known)}: correct it or [target]"
            )
        else:
            labels[row] = known[text]
    return labels


def _relations(values: Array, schema: Schema, faults: dict[int, str]) -> None:
    for relation in schema.relations:
        total = np.zeros(len(values))
        size = np.full(len(values), max(1.0, abs(relation.bound)))
        for name, weight in relation.weights:
            total += weight * values[:, schema.number(name)]
            size += np.abs(weight * values[:, schema.number(name)])
        over = total - relation.bound
        broken = (np.abs(over) if relation.equal else over) > _SLACK * size
        for row in np.flatnonzero(broken).tolist():
            told = ", ".join(f"{name} = {values[row, schema.number(name)]:.12g}" for name, _ in relation.weights)
            faults.setdefault(row, f"breaks the relation {relation.rule!r} ({told}): correct it or the relation")


def _cut(group: str) -> tuple[str, Callable[[str], str] | None]:
    """The column of a group, and for a cut such as "Age < 25" the side that a cell falls on."""
    name, sign, rest = group.partition("<")
    edge = number_of(rest) if sign else None
    if edge is None:
        return group, None

    def side(text: str) -> str:
        value = number_of(text)
        below, above = f"{name.strip()} < {edge:g}", f"{name.strip()} >= {edge:g}"
        return "unknown" if value is None else below if value < edge else above

    return name.strip(), side


def _side(text: str, test: Callable[[str], str] | None) -> str:
    return (text or "unknown") if test is None else test(text)


def _named(schema: Schema, cuts: list[tuple[str, Any]]) -> list[tuple[str, tuple[str, Any]]]:
    return list(zip(schema.groups, cuts, strict=True))
