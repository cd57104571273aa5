"""Margins of one example by CROWN: lines around every activation, each from bounds that were found the same way."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from signstep.certify.bounds.interval import Interval
from signstep.certify.linear.backward import Relaxed, Slopes, in_chunks, least, relaxed, single
from signstep.certify.linear.ball import Ball
from signstep.certify.linear.program import Program
from signstep.certify.linear.windows import Rows

# Numbers in the coefficients that are held at once: 64 MB of them, some six times over.
AT_ONCE = 2**23


@dataclass(eq=False)
class Bounded:
    """What is known of one example: an interval for each step, and lines for activations and poolings."""

    program: Program
    ball: Ball
    intervals: list[Interval]
    lines: dict[int, Relaxed]

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
        for place in sorted(needed):
            if loose[place] > _EXACT and self.program.steps[place].kind != "stop":
                found = found._refined_at(place)
                yield found

    def margins(self, ways: Tensor, shift: Tensor, slopes: Slopes | None = None, *, alone: bool = False) -> Tensor:
        """Lower bounds of ways @ v + shift, v (D,) being the last step's outputs, for ways (S, D); (S,).

        The better of what the lines say and what the interval of v says; of the lines ``alone`` for whoever climbs it.
        """
        last = len(self.program.steps) - 1
        rows = Rows(ways.view(len(ways), *self.program.steps[last].shape))
        bound = least(self.program.steps, {last: rows}, shift, self.lines, self.intervals, self.ball, slopes)
        return bound if alone else torch.maximum(bound, self.plain(ways, shift))

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
        found = Bounded(self.program, self.ball, list(self.intervals), dict(self.lines))
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
        here = self.intervals[place]
        low, high = here.low.flatten(), here.high.flatten()
        bends = [step.bend for step in self.program.steps if place in step.sources and step.bend is not None]
        pooled = any(place in step.sources and step.pool is not None for step in self.program.steps)
        decided = low == high if pooled else torch.ones_like(low, dtype=torch.bool)
        for bend in bends:
            decided = decided & bend.decided(low, high)
        index = (~decided).nonzero().squeeze(1)
        if not len(index):
            return
        steps = self.program.steps

        def both(part: Tensor) -> Tensor:
            begun, total = single(steps, place, part, low)
            begun = {source: _twice(rows) for source, rows in begun.items()}
            bound = least(steps, begun, torch.cat([total, -total]), self.lines, self.intervals, self.ball)
            return bound.view(2, -1).T

        ends = in_chunks(both, index, self.program, place, AT_ONCE // 2)
        shape = here.centre.shape
        self.intervals[place] = _narrower(
            here,
            low.index_copy(0, index, ends[:, 0]).view(shape),
            high.index_copy(0, index, -ends[:, 1]).view(shape),
        )


def _twice(rows: Rows) -> Rows:
    """The functions and what is opposite to them, whose lower bounds are the upper ones."""
    place = None if rows.place is None else rows.place.repeat(2, 1)
    return replace(rows, values=torch.cat([rows.values, -rows.values]), place=place)


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
