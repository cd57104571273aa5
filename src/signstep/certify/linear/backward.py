"""From lower bounds in terms of a step's outputs to lower bounds in terms of the inputs (CROWN, Zhang et al. 2018)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from signstep.certify.bounds.interval import Interval
from signstep.certify.linear.ball import Ball
from signstep.certify.linear.lines import Lines
from signstep.certify.linear.program import Program, Step
from signstep.certify.linear.rounding import Allowance
from signstep.certify.linear.watch import Watch
from signstep.certify.linear.windows import UNIT, Places, Rows, added, before_convolution, first_convolution, sums

Begun = tuple[dict[int, Rows], Tensor]

Slopes = Mapping[int, Tensor]
"""By step, slopes (S, ...) of the lines below, where they are free to be chosen."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What a pooling's two lines are, see `Pool.chosen`."""

    at: Tensor
    sure: Tensor
    most: Tensor


Relaxed = Lines | Choice


def relaxed(step: Step, inputs: Interval) -> Relaxed:
    """The lines of an activation or a pooling between the ends of its inputs (1, ...)."""
    low, high = inputs.low[0], inputs.high[0]
    if step.bend is not None:
        return step.bend.lines(low, high)
    assert step.pool is not None
    return Choice(*step.pool.chosen(low, high))


def least(
    steps: Sequence[Step],
    begun: Mapping[int, Rows],
    total: Tensor,
    lines: Mapping[int, Relaxed],
    intervals: Sequence[Interval],
    ball: Ball,
    slopes: Slopes | None = None,
    watch: Watch | None = None,
    allowance: Allowance | None = None,
) -> Tensor:
    """Lower bounds of sum_i a_i v_i + total over the allowed inputs, v being outputs of steps; (S,).

    Args:
        steps: of the network.
        begun: by step, the coefficients a over its outputs.
        total: (S,).
        lines: by step those of activations and poolings.
        intervals: of all steps; where a step stops the way back, its own is a box of new inputs.
        ball: the inputs.
        slopes: see `Slopes`.
        watch: sorts out functions of which enough is known on the way; the others' bounds are returned, if any.
        allowance: for coefficients in float32, see there.
    """
    back = _Back(steps, dict(begun), total, allowance)
    if allowance is not None:
        back.total = total - allowance.begun(steps, begun)
    # The first interval that is come to is what the bounds that are known already were taken from.
    first = max((place for place in lines if place <= max(begun)), default=-1)
    for place in range(max(begun), -1, -1):
        if place not in back.waiting:
            continue
        if watch is not None and not back.looked(intervals, watch, bounds=place in lines and place < first):
            return back.total
        here, step = back.taken(place), steps[place]
        if step.kind == "given":
            back.total = back.total + ball.least(here)
        elif step.kind == "stop":
            back.total = back.total + _ended(here, intervals[place])
        elif step.kind == "affine":
            back.spread(step, *_affine(step, here))
        else:
            back.spread(step, *_between(step, here, lines[place], None if slopes is None else slopes.get(place)))
    if watch is not None:
        watch.seen(back.total)
    return back.total


# The share of functions of which a look leaves so many open is not worth another one at the next step.
_FEW = 0.9


@dataclass(eq=False)
class _Back:
    """Coefficients over the outputs of steps that are still to be come to, and what has been added up."""

    steps: Sequence[Step]
    waiting: dict[int, Rows]
    total: Tensor
    allowance: Allowance | None
    rests: bool = False

    def looked(self, intervals: Sequence[Interval], watch: Watch, *, bounds: bool) -> bool:
        """Note how many coefficients there are and, if asked, take bounds here; whether any function goes on.

        A look costs about what it costs to go on: where one has ended few functions, the next is left out.
        """
        watch.widest = max(watch.widest, *(rows.values[0].numel() for rows in self.waiting.values()))
        if not bounds or self.rests:
            self.rests = self.rests and not bounds
            return True
        before = len(self.total)
        ended = sum(_ended(rows, intervals[at], rough=True) for at, rows in self.waiting.items())
        left = watch.seen(self.total + ended)
        if left is not None:
            self.waiting = {at: rows.take(left) for at, rows in self.waiting.items()}
            self.total = self.total[left]
        self.rests = watch.open > _FEW * before
        return len(self.total) > 0

    def taken(self, place: int) -> Rows:
        """The coefficients over a step's outputs, which go on from there."""
        here = self.waiting.pop(place)
        if self.allowance is not None:
            self.total = self.total - self.allowance.at(place, self.steps[place], here)
        return here

    def spread(self, step: Step, parts: Sequence[Rows], more: Tensor) -> None:
        """Coefficients over a step's inputs, beside those that wait there."""
        self.total = self.total + more
        for source, part in zip(step.sources, parts, strict=True):
            if source not in self.waiting:
                self.waiting[source] = part
                continue
            self.waiting[source] = added(self.waiting[source], part, self.steps[source].shape)
            if self.allowance is not None:
                self.total = self.total - self.allowance.joined(source, self.waiting[source])


# Sums in float32 are taken of so few numbers that their rounding, relative, stays below this.
_NARROW, _CASTS = 0.01, 8


def _ended(rows: Rows, box: Interval, *, rough: bool = False) -> Tensor:
    """The least that functions of a step's outputs are where these lie in an interval (1, ...), (S,).

    Where a ``rough`` bound will do, sums of coefficients in float32 are taken in it, and what rounding can make of them
    is added to the radius: of n products and two casts at most (n + 2) u of the sizes (see `Allowance`), here twice.
    """
    centre, radius, values = box.centre[0], box.radius[0], rows.values
    if rows.place is None and centre.dtype == torch.float64:
        values, centre, radius = values.flatten(1), centre.flatten(), radius.flatten()
        room = 2 * (len(centre) + _CASTS) * UNIT
        if rough and values.dtype == torch.float32 and room < _NARROW:
            radius = radius + room * (centre.abs() + radius)
            centre, radius = centre.float(), radius.float()
        else:
            values = values.double()
        return (values @ centre).double() - (values.abs() @ radius).double()
    if values.dtype == torch.float32:
        radius = radius + 8 * UNIT * (centre.abs() + radius)
    low, high = rows.of((centre - radius).to(values.dtype)), rows.of((centre + radius).to(values.dtype))
    return sums(values.clamp(min=0) * low + values.clamp(max=0) * high)


def _affine(step: Step, rows: Rows) -> tuple[list[Rows], Tensor]:
    """Coefficients over the inputs of an affine step, one for each, and what its offset adds."""
    dtype, none = rows.values.dtype, rows.values.new_zeros(len(rows), dtype=torch.float64)
    layer = None if step.layer is None else step.of_kind(dtype)
    if isinstance(layer, nn.Conv2d) and step.direct:
        shape, bias = step.inputs[0], layer.bias
        more = none if bias is None else rows.channels() @ bias.double()
        return [_seen(before_convolution(rows, layer, shape, step.tables.setdefault(dtype, {})), shape)], more
    if step.reshapes:  # in the order of the tensor, however its numbers lie in memory
        return [Rows(rows.whole(step.shape).values.reshape(len(rows), *step.inputs[0]))], none
    more = rows.dot(step.offset) if step.adds else none
    if step.diagonal:
        return [rows if scale is None else rows.scaled(scale) for scale in step.scales], more
    whole = rows.whole(step.shape)
    if step.dense:
        assert isinstance(layer, nn.Linear)
        return [Rows(whole.values @ layer.weight)], more
    assert step.like is not None
    return [Rows(part.squeeze(1).to(dtype)) for part in step.pull(whole.values.to(step.like.dtype).unsqueeze(1))], more


def _seen(rows: Rows, shape: tuple[int, ...]) -> Rows:
    """Windows as they are where they are small, else whole."""
    return rows if rows.small(shape) else rows.whole(shape)


def _between(step: Step, rows: Rows, lines: Relaxed, slopes: Tensor | None) -> tuple[list[Rows], Tensor]:
    """Below what has a coefficient of at least 0, above what has another."""
    if isinstance(lines, Choice):
        return _pooled(step, rows, lines)
    up, down = rows.values.clamp(min=0), rows.values.clamp(max=0)
    below = rows.of(lines.low_slope.to(up.dtype)) if slopes is None else slopes
    more = rows.like(down).dot(lines.high_offset)
    if bool(lines.low_offset.any()):
        more = more + rows.like(up).dot(lines.low_offset)
    return [rows.like(up * below + down * rows.of(lines.high_slope.to(up.dtype)))], more


def _pooled(step: Step, rows: Rows, lines: Choice) -> tuple[list[Rows], Tensor]:
    values = rows.whole(step.shape).values
    down = values.clamp(max=0)
    # Above a window that is not decided lies its largest end, below it any of its numbers.
    more = sums(down.to(lines.most.dtype) * torch.where(lines.sure, 0.0, lines.most))
    kept = torch.where(lines.sure, values, values.clamp(min=0))
    shape = step.inputs[0]
    at = lines.at.flatten(1).expand(len(values), -1, -1)
    found = values.new_zeros(len(values), shape[0], shape[1] * shape[2]).scatter_add(2, at, kept.flatten(2))
    return [Rows(found.view(len(values), *shape))], more


def single(steps: Sequence[Step], at: int, index: Tensor, signs: Tensor, dtype: torch.dtype) -> Begun:
    """The outputs at flat places ``index`` (S,) of the step at ``at`` times signs (S,), and what is to be added (S,).

    Of a convolution they are kernels over its inputs, of a linear layer of vectors rows of its weights. Coefficients
    are of the type that is asked for.
    """
    step = steps[at]
    count, shape, zero = len(index), step.shape, torch.zeros_like(signs)
    sign = signs.to(dtype)
    if step.direct:
        layer = step.of_kind(dtype)
        assert isinstance(layer, nn.Conv2d)
        assert isinstance(step.layer, nn.Conv2d)
        rows = _seen(first_convolution(layer, index, shape, step.inputs[0]), step.inputs[0])
        rows = rows.like(rows.values * sign.view(-1, *([1] * (rows.values.ndim - 1))))
        bias = step.layer.bias
        channel = index // (shape[1] * shape[2])
        return {step.sources[0]: rows}, zero if bias is None else signs * bias[channel]
    if step.dense:
        assert isinstance(step.layer, nn.Linear)
        rows = Rows(step.layer.weight[index].mul_(signs.unsqueeze(1)).to(dtype))
        bias = step.layer.bias
        return {step.sources[0]: rows}, zero if bias is None else signs * bias[index]
    if len(shape) != 3:
        size = _size(shape)
        values = sign.new_zeros(count, size).scatter(1, index.unsqueeze(1), sign.unsqueeze(1))
        return {at: Rows(values.view(count, *shape))}, zero
    channels, height, width = shape
    place = Places.of(index % (height * width), width)
    values = sign.new_zeros(count, channels).scatter(1, (index // (height * width)).unsqueeze(1), sign.unsqueeze(1))
    return {at: Rows(values.view(count, 1, 1, channels), place)}, zero


def widest_of(program: Program, start: int) -> int:
    """How many coefficients one function of a step's outputs has at most on its way back."""
    return max(_size(step.shape) for step in program.steps[: start + 1])


def _size(shape: tuple[int, ...]) -> int:
    return math.prod(shape)
