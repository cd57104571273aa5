"""Coordinates in groups: which axes of an example make one group, and the way there and back."""

import math

from torch import Tensor

from signstep.errors import ThreatError


def grouped(d: Tensor, axes: tuple[int, ...], name: str) -> Tensor:
    """View ``d`` (R, ...) as (R, groups, members); without axes every coordinate is a group of its own.

    Raises:
        ThreatError: the examples do not have these axes; the message names the norm ``name``.
    """
    dims, last = _dims(d, axes, name)
    members = math.prod(d.shape[dim] for dim in dims)
    return d.movedim(dims, tuple(last)).reshape(len(d), math.prod(d.shape[1:]) // members, members)


def ungrouped(rows: Tensor, like: Tensor, axes: tuple[int, ...], name: str) -> Tensor:
    """Undo `grouped`: members of all groups, in the order of that view, back in the shape of ``like``."""
    dims, last = _dims(like, axes, name)
    return rows.reshape(like.movedim(dims, tuple(last)).shape).movedim(tuple(last), dims).contiguous()


def _dims(d: Tensor, axes: tuple[int, ...], name: str) -> tuple[list[int], range]:
    """Where the group axes are in ``d`` and where `grouped` moves them: to the end."""
    ndim = d.ndim - 1
    if not all(-ndim <= axis < ndim for axis in axes):
        raise ThreatError(
            f"{name} groups axes that examples of shape {tuple(d.shape[1:])} do not have",
            remedy="pass axes that an example has",
        )
    dims = sorted({axis % ndim + 1 for axis in axes})
    return dims, range(-len(dims), 0)
