"""Margins of one example by CROWN: lines around every activation, each from bounds that were found the same way."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.certify.bounds.interval import Interval
from signstep.certify.linear.backward import Relaxed, Slopes, least, relaxed, single, widest_of
from signstep.certify.linear.ball import Ball
from signstep.certify.linear.program import Program, Step
from signstep.certify.linear.rounding import Allowance, single_is_exact
from signstep.certify.linear.watch import Watch
from signstep.certify.linear.windows import Rows

# Numbers in the coefficients that are held at once: 8 or 16 MB of them, some six times over. More would be slower: each
# part of a step goes over all of them, and they would no longer lie near the processor in between.
AT_ONCE = 2**21


@dataclass(eq=False)
class Bounded:
    """What is known of one example: an interval for each step, and lines for activations and poolings.

    Attributes:
        program: the network.
        ball: the allowed inputs.
        intervals: by step.
        lines: of activations and poolings, by step.
        middle: what each step says of the middle of the box, flat, once that was asked for.
        allowance: the last that was made.
        final: whether all has been refined.
    """

    program: Program
    ball: Ball
    intervals: list[Interval]
    lines: dict[int, Relaxed]
    middle: list[Tensor] | None = None
    allowance: Allowance | None = None
    final: bool = False

    @classmethod
    def of(cls, program: Program, ball: Ball) -> "Bounded":
        """By intervals alone."""
        found = cls(program, ball, program.intervals(ball.box), {})
        found._relax()
        return found

    def refined(self) -> "Bounded":
        """With the bounds of what activations and poolings take found by CROWN, from the first to the last."""
        found = self
        for better in self.refinements():
            found = better
        return found

    def refinements(self) -> "Iterator[Bounded]":
        """The same layer by layer, for whoever has enough before the last.

        Only numbers that the interval leaves open are asked for: of a rectifier those that may have either sign.
        """
        needed = {place for step in self.program.steps if step.kind in ("bend", "pool") for place in step.sources}
        loose, found = _looseness(self.program, self.ball), self
        places = [
            place for place in sorted(needed) if loose[place] > _EXACT and self.program.steps[place].kind != "stop"
        ]
        for place in places:
            found = found._refined_at(place)
            found.final = place == places[-1]
            yield found

    def margins(self, ways: Tensor, shift: Tensor, slopes: Slopes | None = None, *, alone: bool = False) -> Tensor:
        """Lower bounds of ways @ v + shift, v (D,) being the last step's outputs, for ways (S, D); (S,).

        The better of what the lines say and what the interval of v says; of the lines ``alone`` for whoever climbs it.
        """
        last = len(self.program.steps) - 1
        rows = Rows(ways.view(len(ways), *self.program.steps[last].shape))
        bound = least(self.program.steps, {last: rows}, shift, self.lines, self.intervals, self.ball, slopes)
        return bound if alone else torch.maximum(bound, self.plain(ways, shift))

    def nearest(self, ways: Tensor, shift: Tensor) -> Tensor:
        """The margin, (1,), of the one that is least in the middle: where it is not enough, the rest need no asking."""
        at = (ways @ self._middle(-1) + shift).argmin()
        return self.margins(ways[at : at + 1], shift[at : at + 1])

    def plain(self, ways: Tensor, shift: Tensor) -> Tensor:
        """The same of the interval of the last step's outputs alone."""
        box = self.intervals[-1]
        return ways @ box.centre.flatten() - ways.abs() @ box.radius.flatten() + shift

    def _relax(self) -> None:
        for place, step in enumerate(self.program.steps):
            if step.kind in ("bend", "pool"):
                self.lines[place] = relaxed(step, self.intervals[step.sources[0]])

    def _refined_at(self, place: int) -> "Bounded":
        """With the interval of one step tightened, and those of all that follow from it."""
        found = Bounded(self.program, self.ball, list(self.intervals), dict(self.lines), self.middle, self.allowance)
        found._refine(place)
        for later, step in enumerate(self.program.steps):
            if step.kind in ("bend", "pool") and step.sources[0] >= place:
                found.lines[later] = relaxed(step, found.intervals[step.sources[0]])
            if later > place:
                here = step.through(*(found.intervals[source] for source in step.sources))
                before = self.intervals[later]
                found.intervals[later] = _narrower(here, before.low, before.high)
        return found

    def _refine(self, place: int) -> None:
        """Tighten the interval of a step that an activation or a pooling takes."""
        here, steps = self.intervals[place], self.program.steps
        low, high = here.low.flatten(), here.high.flatten()
        bends = [step.bend for step in steps if place in step.sources and step.bend is not None]
        pooled = any(place in step.sources and step.pool is not None for step in steps)

        # Where only signs count, the end that has that of the middle is tried first; the other one where that fails.
        signs = not pooled and all(bend.signs for bend in bends)
        up = (self._middle(place) >= 0) if signs else torch.ones_like(low, dtype=torch.bool)
        allowance = None
        if _single(here):
            allowance = Allowance.of(steps[: place + 1], self.lines, self.intervals, self.allowance)
            self.allowance = allowance
        for first in (True, False):
            index = _open(steps, place, low, high)
            if not len(index):
                break
            rising = up[index] if first else ~up[index]
            known = torch.where(rising, low[index], -high[index])
            found = self._best(place, index, rising, Watch(known, 0.0 if first and signs else torch.inf), allowance)
            low = low.index_copy(0, index, torch.where(rising, found, low[index]))
            high = high.index_copy(0, index, torch.where(rising, high[index], -found))
        shape = here.centre.shape
        self.intervals[place] = _narrower(here, low.view(shape), high.view(shape))
        self._before(place)

    def _best(self, place: int, index: Tensor, rising: Tensor, watch: Watch, allowance: Allowance | None) -> Tensor:
        """Lower bounds of a step's outputs at ``index``, or of their opposites where not ``rising``; (S,).

        Args:
            place: of the step.
            index: flat.
            rising: which end.
            watch: over all of them.
            allowance: see `least`.
        """
        steps, start, widest = self.program.steps, 0, widest_of(self.program, place)
        signs = torch.where(rising, 1.0, -1.0).to(watch.best)
        while start < len(index):
            part = slice(start, start + max(1, AT_ONCE // widest))
            here = watch.part(part)
            begun, total = single(
                steps, place, index[part], signs[part], torch.float64 if allowance is None else torch.float32
            )
            least(steps, begun, total, self.lines, self.intervals, self.ball, watch=here, allowance=allowance)
            watch.best[part] = here.best
            start, widest = part.stop, here.widest
        return watch.best

    def _middle(self, place: int) -> Tensor:
        """What a step says of the middle of the box, flat."""
        if self.middle is None:
            centre = self.ball.box.centre
            self.middle = [part.flatten() for part in self.program.values(centre)]
        return self.middle[place]

    def _before(self, place: int) -> None:
        """What number by number is made into a step's outputs is known as well as these."""
        step = self.program.steps[place]
        while step.kind == "affine" and step.diagonal and len(step.sources) == 1:
            (source,), (scaled,) = step.sources, step.scales
            here, offset = self.intervals[place], step.offset
            scale = torch.ones_like(offset) if scaled is None else scaled
            low, high = (here.low[0] - offset) / scale, (here.high[0] - offset) / scale
            low, high = torch.minimum(low, high), torch.maximum(low, high)
            room = _ROUNDING * (1 + low.abs() + high.abs() + (offset / scale).abs())
            free = ~(torch.isfinite(low) & torch.isfinite(high))
            low, high = torch.where(free, -torch.inf, low - room), torch.where(free, torch.inf, high + room)
            before = self.intervals[source]
            self.intervals[source] = _narrower(before, low.unsqueeze(0), high.unsqueeze(0))
            place, step = source, self.program.steps[source]


_ROUNDING = 1e-12  # float64, relative, a thousand times


def _open(steps: Sequence[Step], place: int, low: Tensor, high: Tensor) -> Tensor:
    """Flat places of a step's outputs, between two ends, that whatever takes them is not decided about."""
    takers = [step for step in steps if place in step.sources]
    pooled = any(step.pool is not None for step in takers)
    found = low != high if pooled else torch.zeros_like(low, dtype=torch.bool)
    for bend in (step.bend for step in takers if step.bend is not None):
        found = found | ~bend.decided(low, high)
    return found.nonzero().squeeze(1)


def _single(part: Interval) -> bool:
    """Whether coefficients may be kept in float32."""
    return part.centre.dtype == torch.float64 and single_is_exact(part.centre.device)


# Whether an interval is exact: number by number what may stand beside any other, exact, or more than there is.
_FREE, _EXACT, _LOOSE = 0, 1, 2


def _looseness(program: Program, ball: Ball) -> list[int]:
    """Of each step: the interval of one linear map of a box is what CROWN gives of it."""
    found: list[int] = []
    for step in program.steps:
        if step.kind == "given":
            found.append(_FREE if ball.norm is None else _LOOSE)
            continue
        worst = max((found[source] for source in step.sources), default=_FREE)
        alone = len(step.sources) == 1
        if step.diagonal or step.kind in ("bend", "stop"):
            found.append(worst if alone else _LOOSE)
        elif step.kind == "affine":
            found.append(_EXACT if alone and worst == _FREE else _LOOSE)
        else:
            found.append(_LOOSE)
    return found


def _narrower(part: Interval, low: Tensor, high: Tensor) -> Interval:
    """What lies in both; where rounding leaves nothing, what was there."""
    low, high = torch.maximum(part.low, low), torch.minimum(part.high, high)
    empty = low > high
    return Interval.between(torch.where(empty, part.low, low), torch.where(empty, part.high, high))


def ways_of(program: Program, y: int, classes: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Of the last step's outputs: what z_y - z_k is, for each k of ``classes``: coefficients (S, D) and shifts (S,)."""
    others = torch.tensor(list(classes), dtype=torch.int64, device=like.device)
    if program.head is None:
        size = math.prod(program.steps[-1].shape)
        eye = torch.eye(size, dtype=like.dtype, device=like.device)
        return eye[y] - eye[others], like.new_zeros(len(others))
    weight, bias = program.head.weight, program.head.bias
    return weight[y] - weight[others], like.new_zeros(len(others)) if bias is None else bias[y] - bias[others]
