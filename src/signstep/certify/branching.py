"""Branch and bound: an open rectifier is on or off, and each of the two is a smaller question with tighter lines."""

import heapq
import time
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor

from signstep.certify.bounds.interval import Interval
from signstep.certify.linear.alpha import tuned
from signstep.certify.linear.backward import relaxed
from signstep.certify.linear.crown import Bounded
from signstep.certify.linear.lines import Lines

# Questions that may wait at once, each with lines of its own; steps of the search for lines in each.
LARGEST = 2000
_STEPS = 4


@torch.no_grad()
def shown(bounded: Bounded, way: Tensor, shift: Tensor, enough: float, seconds: float) -> bool:
    """Whether way @ v + shift is shown to be above ``enough`` on the whole allowed set; it finds no input.

    Of the questions that wait the one with the lowest bound is cut in two where its lines lose most: the input of one
    rectifier is at least 0, or at most 0. What holds in both holds.

    Source: Wang et al. (2021), "Beta-CROWN", without multipliers for the cuts; the choice by what lines above add is
    that of Bunel et al. (2020), "Branch and bound for piecewise linear neural network verification", section 5.

    Args:
        bounded: the example.
        way: coefficients (1, D) over the last step's outputs.
        shift: (1,).
        enough: what is to be exceeded.
        seconds: for all of it.
    """
    until, number = time.monotonic() + seconds, count()
    waiting = [(-torch.inf, next(number), bounded)]
    while waiting:
        if time.monotonic() > until or len(waiting) > LARGEST:
            return False
        _, _, worst = heapq.heappop(waiting)
        place, unit = _widest(worst, way, shift)
        if place is None:
            return False
        for on in (True, False):
            part = _cut(worst, place, unit, on=on)
            bound = float(tuned(part, way, shift, enough, _STEPS))
            if not bound > enough:
                heapq.heappush(waiting, (bound, next(number), part))
    return True


def _widest(bounded: Bounded, way: Tensor, shift: Tensor) -> tuple[int | None, int]:
    """The open rectifier whose line above takes most off the bound: its step and flat place; None where none does."""
    offsets, lines = {}, dict(bounded.lines)
    for place, part in bounded.lines.items():
        if isinstance(part, Lines) and part.free is not None and bool(part.free.any()):
            offsets[place] = part.high_offset.clone().requires_grad_()
            lines[place] = replace(part, high_offset=offsets[place])
    if not offsets:
        return None, 0
    with torch.enable_grad():
        bound = replace(bounded, lines=lines).margins(way, shift, alone=True)
        # The bound is a sum in which each offset stands with its coefficient.
        shares = torch.autograd.grad(bound.sum(), list(offsets.values()))
    losses = {
        place: torch.where(bounded.lines[place].free, -share * offset.detach(), 0.0)  # type: ignore[union-attr, arg-type]
        for (place, offset), share in zip(offsets.items(), shares, strict=True)
    }
    chosen = max(losses, key=lambda place: float(losses[place].max()))
    loss = losses[chosen].flatten()
    unit = int(loss.argmax())
    return (chosen, unit) if float(loss[unit]) > 0 else (None, 0)


def _cut(bounded: Bounded, place: int, unit: int, *, on: bool) -> Bounded:
    """The same where the input of one rectifier is at least 0 (``on``), or at most 0."""
    step = bounded.program.steps[place]
    (source,) = step.sources
    box = bounded.intervals[source]
    low, high = box.low.clone(), box.high.clone()
    (low if on else high).view(-1)[unit] = 0.0
    intervals, lines = list(bounded.intervals), dict(bounded.lines)
    intervals[source] = Interval.between(low, high)
    lines[place] = relaxed(step, Interval.between(low, high))
    return replace(bounded, intervals=intervals, lines=lines)
