"""The shortest way onto a hyperplane inside a box, in each norm: DeepFool's step and FAB's projection."""

from collections.abc import Callable

import torch
from torch import Tensor

from signstep.engine.batch_invariant import row_sum
from signstep.engine.norms import Norm, largest
from signstep.engine.tree import per_row
from signstep.errors import ThreatError


def onto(norm: Norm, slope: Tensor, gain: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """argmin { length(d) : <slope, d> = gain, low <= d <= high }; where no such d is, the box's point nearest to it.

    Exact up to rounding. The shortest d is the steepest step of the smallest ball that gains enough, so every norm
    has a curve d(t) along which the gain grows, and one number t is sought (Croce & Hein 2020, arXiv:1907.02044,
    section 3.1 and appendix, which sort the coordinates instead). Without a box this is Hoelder's inequality.

    Args:
        norm: L-infinity, L2 or L1.
        slope: (R, ...).
        gain: (R,), of any sign.
        low: at most 0, broadcastable to ``slope``, or None.
        high: at least 0, likewise.

    Raises:
        ThreatError: the norm is another.
    """
    sign = slope.sign() * per_row(torch.where(gain < 0, -1.0, 1.0).to(slope.dtype), slope)
    size = slope.abs().flatten(1)
    peak = size.amax(1, keepdim=True)
    flat = peak == 0  # reached by nothing: no coordinate moves
    peak = torch.where(flat, 1.0, peak)
    size, most = size / peak, torch.finfo(slope.dtype).max
    wanted = torch.where(flat, 0.0, gain.abs().to(slope.dtype)[:, None] / peak).clamp_max(most)
    room = _room(sign, low, high)
    if norm.name not in _CURVES:
        raise ThreatError(
            f"norm {norm.name}: the point of a plane that is nearest is known for {', '.join(_CURVES)}",
            remedy="write down its curve in attacks/minimal/hyperplane.py",
        )
    return sign * _CURVES[norm.name](size, wanted, room).reshape(slope.shape)


def _room(sign: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor | None:
    """How far each coordinate may go in its direction, (R, D)."""
    if low is None and high is None:
        return None
    up = torch.full_like(sign, torch.inf) if high is None else high.expand_as(sign)
    down = torch.full_like(sign, torch.inf) if low is None else -low.expand_as(sign)
    # Rounding may have left a point a hair outside the box: it has no room, not a negative one.
    free = torch.where(sign > 0, up, down).clamp_min(0)
    return torch.where(sign == 0, 0.0, free).flatten(1)


def _total(values: Tensor) -> Tensor:
    return row_sum(values)[:, None]


def _level(size: Tensor, wanted: Tensor, room: Tensor | None) -> Tensor:
    """L-infinity: every coordinate goes as far as the others, or as the box lets it."""
    if room is None:
        return (wanted / _divisor(_total(size))).expand_as(size)
    t = largest(lambda t: _total(size * torch.minimum(t, room)) <= wanted, wanted)
    return torch.minimum(t, room)


def _proportional(size: Tensor, wanted: Tensor, room: Tensor | None) -> Tensor:
    """L2: every coordinate goes in proportion to its slope, or as far as the box lets it."""
    if room is None:
        return size * (wanted / _divisor(_total(size.square())))
    t = largest(lambda t: _total(size * torch.minimum(t * size, room)) <= wanted, wanted)
    return torch.minimum(t * size, room)


def _greedy(size: Tensor, wanted: Tensor, room: Tensor | None) -> Tensor:
    """L1: the steepest coordinate goes as far as the box lets it, then the next one; ties in index order."""
    if room is None:
        first = size.argmax(1, keepdim=True)
        return torch.zeros_like(size).scatter(1, first, wanted / _divisor(size.gather(1, first)))
    gains = torch.minimum(size * room.clamp_max(torch.finfo(size.dtype).max), wanted)
    level = largest(lambda t: _total(torch.where(size >= t, gains, 0.0)) >= wanted, wanted)
    full = torch.where(size > level, gains, 0.0)
    tied = torch.where(size == level, gains, 0.0)
    left = (wanted - _total(full) - (tied.cumsum(1) - tied)).clamp_min(0)
    gained = full + torch.minimum(tied, left)
    return torch.minimum(torch.where(size > 0, gained / _divisor(size), 0.0), room)


def _divisor(value: Tensor) -> Tensor:
    return value.clamp_min(torch.finfo(value.dtype).tiny)


_CURVES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "linf": _level,
    "l2": _proportional,
    "l1": _greedy,
}
