"""From the units in a ledger to the record, and the points, of a single audit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from signstep.auditing.evidence import Evidence
from signstep.auditing.merge import merge
from signstep.auditing.result import Result
from signstep.data.forms import Batches
from signstep.scale.ledger import Ledger
from signstep.scale.machines import kinds


def joined(
    ledger: Ledger,
    *,
    starts: Sequence[int],
    unit: int,
    evidence: Evidence | None,
    read: Batches,
    remarks: Sequence[str] = (),
) -> Result:
    """The record of the units that begin at ``starts``, which lie side by side from the first example on.

    Args:
        ledger: has them.
        starts: of the units.
        unit: rows of a unit.
        evidence: takes their points over, as many as it has room for.
        read: the data, for what was left out of it.
        remarks: why it is partial; empty where it is whole.

    Raises:
        LoadError: a unit's file is none.
    """
    parts: list[Result] = []
    for start in starts:
        result, points, dropped = ledger.read(start)
        kept = set() if evidence is None else _taken(evidence, points, start, dropped)
        knob = result.knob if result.knob is not None and result.knob.row in kept else None
        parts.append(replace(result, knob=None if remarks else knob))
    versions = parts[0].versions
    whole = merge([replace(part, versions=versions) for part in parts])
    machines = kinds([ledger.rows[start].machine for start in starts])
    terms: dict[str, Any] = {**whole.terms, "units": {"rows": unit, "batch": ledger.batch, "machines": machines}}
    if read.left_out:
        terms["left_out"] = dict(read.left_out)
    notes = tuple(dict.fromkeys((*whole.notes, *read.said, *remarks)))
    return replace(whole, terms=terms, notes=notes, partial=bool(remarks))


def _taken(evidence: Evidence, points: Mapping[str, Tensor], start: int, dropped: int) -> set[int]:
    """Move the points of a unit to the others; the rows, of the unit, of those that there is room for."""
    rows = points["row"].tolist() if points else []
    moved = {**points, "row": points["row"] + start} if points else {}
    return set(rows[: evidence.take_over(moved, dropped)])
