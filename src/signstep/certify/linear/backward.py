"""From lower bounds in terms of one step's outputs to lower bounds in terms of the inputs (Zhang et al. 2018, CROWN)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from signstep.certify.bounds.interval import Interval
from signstep.certify.linear.ball import Ball
from signstep.certify.linear.lines import Lines
from signstep.certify.linear.program import Program, Step
from signstep.certify.linear.windows import Rows, added, before_convolution

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
    start: int,
    rows: Rows,
    lines: Mapping[int, Relaxed],
    intervals: Sequence[Interval],
    ball: Ball,
    slopes: Slopes | None = None,
) -> Tensor:
    """Lower bounds of sum_i a_i v_i over the allowed inputs, v being the outputs of a step and a ``rows``; (S,).

    Args:
        steps: of the network.
        start: the place of the step whose outputs the coefficients are over.
        rows: coefficients.
        lines: by step those of activations and poolings.
        intervals: of all steps; where a step stops the way back, its own is a box of new inputs.
        ball: the inputs.
        slopes: see `Slopes`.
    """
    waiting: dict[int, Rows] = {start: rows}
    total = rows.values.new_zeros(len(rows))
    for place in range(start, -1, -1):
        here = waiting.pop(place, None)
        if here is None:
            continue
        step = steps[place]
        if step.kind == "given":
            total = total + ball.least(here.whole(step.shape).values)
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
    if isinstance(step.layer, nn.Conv2d) and step.layer.padding not in ("same",):
        part = rows if rows.small(step.shape) else Rows(rows.whole(step.shape).values)
        more = part.dot(step.offset) if step.layer.bias is not None else part.values.new_zeros(len(part))
        back = before_convolution(part, step.layer, step.layer.weight, step.inputs[0])
        return [back if back.small(step.inputs[0]) else Rows(back.whole(step.inputs[0]).values)], more
    if step.diagonal:
        return [rows.scaled(scale) for scale in step.scales], rows.dot(step.offset)
    whole = rows.whole(step.shape)
    more = whole.dot(step.offset)
    if isinstance(step.layer, nn.Linear) and whole.values.ndim == 2:
        return [Rows(whole.values @ step.layer.weight)], more
    return [Rows(part.squeeze(1)) for part in step.pull(whole.values.unsqueeze(1))], more


def _between(step: Step, rows: Rows, lines: Relaxed, slopes: Tensor | None) -> tuple[list[Rows], Tensor]:
    """Below what has a coefficient of at least 0, above what has another."""
    if isinstance(lines, Choice):
        return _pooled(step, rows, lines)
    below = rows.of(lines.low_slope) if slopes is None else slopes
    values = rows.values
    down, up = values.clamp(max=0), values.clamp(min=0)
    more = Rows(down, rows.place, rows.stride, rows.offset).dot(lines.high_offset)
    if bool(lines.low_offset.any()):
        more = more + Rows(up, rows.place, rows.stride, rows.offset).dot(lines.low_offset)
    moved = up * below + down * rows.of(lines.high_slope)
    return [Rows(moved, rows.place, rows.stride, rows.offset)], more


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


def one_hot(step: Step, index: Tensor, like: Tensor) -> Rows:
    """The outputs at flat places ``index`` (S,) of a step, one each."""
    count, shape = len(index), step.shape
    if len(shape) != 3:
        size = 1
        for length in shape:
            size *= length
        return Rows(like.new_zeros(count, size).scatter(1, index.unsqueeze(1), 1.0).view(count, *shape))
    channels, height, width = shape
    place = torch.stack([index % (height * width) // width, index % width], 1)
    values = like.new_zeros(count, channels).scatter(1, (index // (height * width)).unsqueeze(1), 1.0)
    return Rows(values.view(count, channels, 1, 1), place)


def in_chunks(
    bound: Callable[[Tensor], Tensor], index: Tensor, program: Program, start: int, at_once: int
) -> Tensor:
    """``bound`` of the numbers at ``index``, so many at a time that their coefficients fit into ``at_once`` numbers."""
    widest = max(_size(step.shape) for step in program.steps[: start + 1])
    parts = torch.split(index, max(1, at_once // widest))
    return torch.cat([bound(part) for part in parts])


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.tensor(shape, device="cpu").prod()) if shape else 1
