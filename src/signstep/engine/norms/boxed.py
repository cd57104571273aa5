"""The arithmetic that the norms share: boxes, lengths without overflow, and equations solved row by row."""

from collections.abc import Callable

import torch
from torch import Tensor

from signstep.engine.batch_invariant import line_sum, lines


def flat_box(bound: Tensor | None, like: Tensor) -> Tensor | None:
    """A side of the box, (R, D)."""
    return None if bound is None else lines(bound.expand_as(like))


def cut(d: Tensor, low: Tensor | None, high: Tensor | None, *, own: bool = False) -> Tensor:
    """Clamp to a box whose sides may be missing; in place if ``own``: nobody else holds d.

    Fresh memory costs more than the arithmetic, and clamp is slow where a side broadcasts.
    """
    if low is not None and high is not None and low.shape == d.shape == high.shape:
        return d.clamp_(low, high) if own else d.clamp(low, high)
    for rule, side in ((torch.maximum, low), (torch.minimum, high)):
        if side is not None:
            d, own = rule(d, side, out=d if own else None), True
    return d


def finite(radius: Tensor, like: Tensor) -> Tensor:
    """The radius in the dtype of ``like``, with inf as its largest number: inf * 0 would be NaN."""
    return radius.to(like.dtype).clamp(max=torch.finfo(like.dtype).max)


def inner(radius: Tensor) -> Tensor:
    """The radius less four ulp, so that rounding leaves a point that aims for it inside."""
    return radius * (1 - 4 * torch.finfo(radius.dtype).eps)


def scale_of(flat: Tensor) -> Tensor:
    """The largest |entry| of each row rounded down to a power of two, (R, 1): dividing by it loses no digit.

    Clearing the digits of a float leaves its exponent. Zeros and subnormals get the smallest normal number, infinities
    the largest finite one.
    """
    peak, info = flat.abs().amax(1, keepdim=True), torch.finfo(flat.dtype)
    integer, exponent = (torch.int64, 0x7FF << 52) if info.bits == 64 else (torch.int32, 0xFF << 23)
    return (peak.view(integer) & exponent).view(flat.dtype).clamp(info.tiny, info.max)


def euclid(flat: Tensor) -> Tensor:
    """The L2 length of each row, (R, 1), scaled so that no square leaves the range of the dtype."""
    scale = scale_of(flat)
    return scale * line_sum((flat / scale).square_()).sqrt()


def reach(flat: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """How far the box lets each coordinate go in its own direction, (R, D); a zero coordinate goes nowhere."""
    return cut(flat.sign() * torch.finfo(flat.dtype).max, low, high).abs()


def on_curve(flat: Tensor, radius: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """The longest clip(t v, low, high), t >= 0, that the L2 ball holds; v is (R, D), radius (R, 1) and finite.

    Solved in units of the largest |v_i| and of the radius: neither the scale of the loss nor that of the input matters.
    """
    unit = flat / scale_of(flat)
    if low is None and high is None:
        t = inner(1 / line_sum(unit.square()).sqrt_().clamp_min_(torch.finfo(flat.dtype).tiny))
    else:
        # 0 / 0 and 0 * inf are NaN, which nothing holds: t is 0 if the radius is, and never infinite next to a zero.
        size, cap = unit.abs(), reach(flat, low, high) / radius
        one = inner(torch.ones_like(radius)).square()
        t = largest(lambda t: line_sum(torch.minimum(size * t, cap).square_()) <= one, radius)
    return cut(unit * t * radius, low, high)


def largest(holds: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """The largest float t >= 0 for which ``holds(t)``, row by row, (R, 1); 0 if there is none.

    ``holds``, once false, stays false as t grows, and is false at NaN. Floats from zero on are ordered as their bits
    read as integers, so t is found exactly, bit by bit from the highest: 31 tests in float32, 63 in float64, whatever
    the data. A fixed count needs no word from the device and leaves no row waiting for another.
    """
    integer, bits = (torch.int64, 63) if like.dtype == torch.float64 else (torch.int32, 31)
    found = torch.zeros_like(like, dtype=integer)
    for bit in reversed(range(bits)):
        found.add_(holds((found + (1 << bit)).view(like.dtype)), alpha=1 << bit)
    return found.view(like.dtype)
