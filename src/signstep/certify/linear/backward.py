"""From lower bounds in terms of a step's outputs to lower bounds in terms of the inputs (CROWN, Zhang et al. 2018)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from signstep.certify.bounds.interval import Interval
from signstep.certify.linear.ball import Ball
from signstep.certify.linear.lines import Lines
from signstep.certify.linear.program import Program, Step
from signstep.certify.linear.windows import Rows, added, before_convolution, first_convolution

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
    """
    waiting: dict[int, Rows] = dict(begun)
    for place in range(max(waiting), -1, -1):
        here = waiting.pop(place, None)
        if here is None:
            continue
        step = steps[place]
        if step.kind == "given":
            total = total + ball.least(here)
            continue
        if step.kind == "stop":
            box = intervals[place]
            flat = here.whole(step.shape).values.flatten(1)
            total = total + flat @ box.centre.flatten() - flat.abs() @ box.radius.flatten()
            continue
        if step.kind == "affine":
            parts, more = _affine(step, here)
        else:
            parts, more = _between(step, here, lines[place], None if slopes is None else slopes.get(place))
        total = total + more
        for source, part in zip(step.sources, parts, strict=True):
            waiting[source] = added(waiting[source], part, steps[source].shape) if source in waiting else part
    return total


def _affine(step: Step, rows: Rows) -> tuple[list[Rows], Tensor]:
    """Coefficients over the inputs of an affine step, one for each, and what its offset adds."""
    if step.direct:
        assert isinstance(step.layer, nn.Conv2d)
        more = _shifted(step, rows)
        return [_seen(before_convolution(rows, step.layer, step.inputs[0]), step.inputs[0])], more
    if step.diagonal:
        return [rows.like(rows.values * rows.of(scale)) for scale in step.scales], rows.dot(step.offset)
    whole = rows.whole(step.shape)
    more = whole.dot(step.offset)
    if isinstance(step.layer, nn.Linear) and whole.values.ndim == 2:
        return [Rows(whole.values @ step.layer.weight)], more
    return [Rows(part.squeeze(1)) for part in step.pull(whole.values.unsqueeze(1))], more


def _seen(rows: Rows, shape: tuple[int, ...]) -> Rows:
    """Windows as they are where they are small, else whole."""
    return rows if rows.small(shape) else rows.whole(shape)


def _shifted(step: Step, rows: Rows) -> Tensor:
    """What a convolution's bias adds."""
    assert isinstance(step.layer, nn.Conv2d)
    bias = step.layer.bias
    if bias is None:
        return rows.values.new_zeros(len(rows))
    return rows.values.sum((1, 2) if rows.place is not None else (2, 3)) @ bias


def _between(step: Step, rows: Rows, lines: Relaxed, slopes: Tensor | None) -> tuple[list[Rows], Tensor]:
    """Below what has a coefficient of at least 0, above what has another."""
    if isinstance(lines, Choice):
        return _pooled(step, rows, lines)
    below = rows.of(lines.low_slope) if slopes is None else slopes
    values = rows.values
    down = values.clamp(max=0)
    more = rows.like(down).dot(lines.high_offset)
    if bool(lines.low_offset.any()):
        more = more + rows.like(values.clamp(min=0)).dot(lines.low_offset)
    return [rows.like(torch.where(values > 0, below, rows.of(lines.high_slope)) * values)], more


def _pooled(step: Step, rows: Rows, lines: Choice) -> tuple[list[Rows], Tensor]:
    values = rows.whole(step.shape).values
    down = values.clamp(max=0)
    # Above a window that is not decided lies its largest end, below it any of its numbers.
    more = (down * torch.where(lines.sure, 0.0, lines.most)).flatten(1).sum(1)
    kept = torch.where(lines.sure, values, values.clamp(min=0))
    shape = step.inputs[0]
    at = lines.at.flatten(1).expand(len(values), -1, -1)
    found = values.new_zeros(len(values), shape[0], shape[1] * shape[2]).scatter_add(2, at, kept.flatten(2))
    return [Rows(found.view(len(values), *shape))], more


def single(steps: Sequence[Step], at: int, index: Tensor, like: Tensor) -> tuple[dict[int, Rows], Tensor]:
    """The outputs at flat places ``index`` (S,) of the step at ``at``, one each, and what is to be added to them (S,).

    Of a convolution they are kernels over its inputs.
    """
    step = steps[at]
    count, shape, zero = len(index), step.shape, like.new_zeros(len(index))
    if step.direct:
        assert isinstance(step.layer, nn.Conv2d)
        rows = _seen(first_convolution(step.layer, index, shape, step.inputs[0]), step.inputs[0])
        bias = step.layer.bias
        channel = index // (shape[1] * shape[2])
        return {step.sources[0]: rows}, zero if bias is None else bias[channel]
    if len(shape) != 3:
        size = _size(shape)
        values = like.new_zeros(count, size).scatter(1, index.unsqueeze(1), 1.0)
        return {at: Rows(values.view(count, *shape))}, zero
    channels, height, width = shape
    place = torch.stack([index % (height * width) // width, index % width], 1)
    values = like.new_zeros(count, channels).scatter(1, (index // (height * width)).unsqueeze(1), 1.0)
    return {at: Rows(values.view(count, 1, 1, channels), place)}, zero


def in_chunks(bound: Callable[[Tensor], Tensor], index: Tensor, program: Program, start: int, at_once: int) -> Tensor:
    """``bound`` of the numbers at ``index``, so many at a time that their coefficients fit into ``at_once`` numbers."""
    widest = max(_size(step.shape) for step in program.steps[: start + 1])
    parts = torch.split(index, max(1, at_once // widest))
    return torch.cat([bound(part) for part in parts])


def _size(shape: tuple[int, ...]) -> int:
    return math.prod(shape)
