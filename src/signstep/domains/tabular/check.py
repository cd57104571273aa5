"""An independent check that an attacked record could have been written down.

It decodes both rows by itself and looks at them one feature at a time, in plain float64; nothing is shared with the
search but the schema.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from signstep.domains.tabular.schema import Feature, Schema
from signstep.engine.defaults import plain_tensor
from signstep.engine.verify import Verification
from signstep.errors import InputError

_TOLERANCE = 1e-7

Array = NDArray[np.float64]


def check(terms: Mapping[str, Any], before: Tensor, after: Tensor) -> Verification:
    """Check wide rows ``after`` (R, width) against the schema and the budgets around ``before``.

    The size of a change is its largest share of a budget (for a category 1 / budget); infinite where something changed
    that cannot. A row is ok when the size is at most eps, every group holds one category, whole numbers are whole,
    bounds, directions and relations hold, and no more features differ than may; up to 1e-7 of the values' size.

    Args:
        terms: of a record: "domain_terms" with the "schema", as `Schema.plain` gives it, and "eps_value".
        before: the records.
        after: the attacked ones.
    """
    return check_rows(Schema.of(dict(terms["domain_terms"]["schema"])), terms["eps_value"], before, after)


def check_rows(schema: Schema, eps: float | Tensor, before: Tensor, after: Tensor) -> Verification:
    """`check` with the schema itself, and ``eps`` a number or one for each row."""
    if before.shape != after.shape or before.ndim != 2:
        raise InputError(
            f"attacked records have shape {tuple(after.shape)}, the clean ones {tuple(before.shape)}",
            remedy="pass two of one shape",
        )
    old, new = (part.detach().cpu().to(torch.float64).numpy() for part in (before, after))
    rows = len(old)
    ok = np.isfinite(new).all(1)
    size = np.zeros(rows)
    differing = np.zeros(rows, dtype=np.int64)
    values: dict[str, Array] = {}
    column = 0
    for feature in schema.features:
        if feature.kind == "categorical":
            width = len(feature.levels)
            part_old, part_new = old[:, column : column + width], new[:, column : column + width]
            ok &= (((part_new == 0) | (part_new == 1)).all(1)) & (part_new.sum(1) == 1)
            moved = (part_old != part_new).any(1)
            share = np.where(moved, 1.0, 0.0)
            column += width
        else:
            was, now = old[:, column], new[:, column]
            ok &= _number_fits(feature, was, now)
            moved, share = was != now, np.abs(now - was)
            values[feature.name] = now
            column += 1
        differing += moved
        if feature.change == "none":
            ok &= ~moved
        size = np.maximum(size, np.where(moved, _share(feature, share, old, column), 0.0))
    if column != old.shape[1]:
        raise InputError(f"records have {old.shape[1]} columns, the schema {column}", remedy="pass rows of this schema")
    for relation in schema.relations:
        total, scale = np.zeros(rows), np.full(rows, 1.0 + abs(relation.bound))
        for name, weight in relation.weights:
            total += weight * values[name]
            scale += np.abs(weight * values[name])
        gap = total - relation.bound
        ok &= (np.abs(gap) if relation.equal else gap) <= _TOLERANCE * scale
    if schema.changes:
        ok &= differing <= schema.changes
    limit = plain_tensor(eps, dtype=torch.float64).cpu().numpy()
    ok &= size <= limit * (1 + _TOLERANCE) + _TOLERANCE
    excess = size - limit
    return Verification(
        torch.from_numpy(ok).to(before.device), torch.from_numpy(size), torch.from_numpy(excess), _TOLERANCE
    )


def _number_fits(feature: Feature, was: Array, now: Array) -> NDArray[np.bool_]:
    """Bounds, steps and direction of one number."""
    slack = _TOLERANCE * np.maximum(1.0, np.abs(now))
    fits = (now >= feature.low - slack) & (now <= feature.high + slack)
    if feature.step:
        fits &= np.abs(now - feature.step * np.rint(now / feature.step)) <= np.minimum(slack, 1e-3 * feature.step)
    if feature.change == "up":
        fits &= now >= was
    if feature.change == "down":
        fits &= now <= was
    return fits


def _share(feature: Feature, moved: Array, old: Array, column: int) -> Array:
    """The share of its budget that a change takes; infinite where the budget is nothing."""
    allowance = feature.allowance
    amount = np.full(len(moved), allowance.amount)
    if allowance.of == "sd":
        amount = amount * feature.spread
    if allowance.of == "own":
        amount = amount * np.abs(old[:, column - 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(moved == 0, 0.0, np.where(amount > 0, moved / amount, np.inf))
