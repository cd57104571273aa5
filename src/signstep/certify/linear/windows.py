"""Coefficients of many bounds at once: over a whole tensor, or over the window of it that each bound can see.

A number behind a few convolutions depends on a small window of the image. Coefficients of it over the whole image would
be zeros for the most part, so each bound keeps its window, and where that is: at ``stride * place + offset``.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Pair = tuple[int, int]


@dataclass(frozen=True)
class Rows:
    """Coefficients (S, ...) of S linear functions of one tensor; with ``place`` over windows of it, (S, C, h, w).

    Attributes:
        values: the coefficients; 0 where a window leaves the image.
        place: (S, 2), where each began, in its own tensor's positions; None where the values cover the tensor.
        stride: from a position there to one here.
        offset: of the window's first position.
    """

    values: Tensor
    place: Tensor | None = None
    stride: Pair = (1, 1)
    offset: Pair = (0, 0)

    def __len__(self) -> int:
        return len(self.values)

    def of(self, part: Tensor) -> Tensor:
        """A tensor (C, H, W) as each bound sees it, (S, C, h, w), 0 beyond its edge; whole ones as they are."""
        if self.place is None:
            return part
        top, left = self._origin()
        height, width = self.values.shape[-2:]
        before_h, after_h = _beyond(top, height, part.shape[-2])
        before_w, after_w = _beyond(left, width, part.shape[-1])
        padded = F.pad(part, (before_w, after_w, before_h, after_h))
        seen = padded.unfold(-2, height, 1).unfold(-2, width, 1)  # (C, H', W', h, w)
        return seen[:, top + before_h, left + before_w].movedim(1, 0)

    def dot(self, part: Tensor) -> Tensor:
        """The sums of coefficients times the tensor's numbers, (S,)."""
        if self.place is None:
            return self.values.flatten(1) @ part.flatten()
        return (self.values * self.of(part)).flatten(1).sum(1)

    def scaled(self, part: Tensor) -> "Rows":
        """Times a tensor, number by number."""
        return replace(self, values=self.values * self.of(part))

    def cut(self, shape: tuple[int, ...]) -> "Rows":
        """The same with 0 where windows leave an image of this shape (C, H, W)."""
        if self.place is None:
            return self
        top, left = self._origin()
        height, width = self.values.shape[-2:]
        rows = _inside(top, height, shape[-2]).view(len(self), 1, height, 1)
        columns = _inside(left, width, shape[-1]).view(len(self), 1, 1, width)
        return self if bool(rows.all()) and bool(columns.all()) else replace(self, values=self.values * (rows & columns))

    def whole(self, shape: tuple[int, ...]) -> "Rows":
        """The same over the whole tensor, (S, C, H, W)."""
        if self.place is None:
            return self
        top, left = self._origin()
        count, channels, height, width = self.values.shape
        before_h, after_h = _beyond(top, height, shape[-2])
        before_w, after_w = _beyond(left, width, shape[-1])
        tall, broad = shape[-2] + before_h + after_h, shape[-1] + before_w + after_w
        rows = (top + before_h).view(-1, 1, 1) + torch.arange(height, device=top.device).view(1, -1, 1)
        columns = (left + before_w).view(-1, 1, 1) + torch.arange(width, device=top.device).view(1, 1, -1)
        at = (rows * broad + columns).reshape(count, 1, -1).expand(-1, channels, -1)
        found = self.values.new_zeros(count, channels, tall * broad).scatter(2, at, self.values.flatten(2))
        found = found.view(count, channels, tall, broad)
        return Rows(found[..., before_h : before_h + shape[-2], before_w : before_w + shape[-1]].contiguous())

    def small(self, shape: tuple[int, ...]) -> bool:
        """Whether windows are worth it in an image of this shape."""
        return self.place is not None and self.values[0, 0].numel() * 2 <= shape[-2] * shape[-1]

    def take(self, index: Tensor) -> "Rows":
        """The functions at ``index``."""
        return replace(self, values=self.values[index], place=None if self.place is None else self.place[index])

    def _origin(self) -> tuple[Tensor, Tensor]:
        assert self.place is not None
        return (
            self.place[:, 0] * self.stride[0] + self.offset[0],
            self.place[:, 1] * self.stride[1] + self.offset[1],
        )


def added(one: Rows, other: Rows, shape: tuple[int, ...]) -> Rows:
    """The sum of two sets of coefficients over the same tensor of this shape."""
    if one.place is None or other.place is None or one.stride != other.stride:
        return Rows(one.whole(shape).values + other.whole(shape).values)
    start = tuple(min(a, b) for a, b in zip(one.offset, other.offset, strict=True))
    ends = [
        tuple(begin + size for begin, size in zip(part.offset, part.values.shape[-2:], strict=True))
        for part in (one, other)
    ]
    end = tuple(max(a, b) for a, b in zip(*ends, strict=True))

    def stretched(part: Rows, its_end: tuple[int, ...]) -> Tensor:
        left, right = part.offset[1] - start[1], end[1] - its_end[1]
        return F.pad(part.values, (left, right, part.offset[0] - start[0], end[0] - its_end[0]))

    return replace(one, values=stretched(one, ends[0]) + stretched(other, ends[1]), offset=(start[0], start[1]))


def before_convolution(rows: Rows, layer: torch.nn.Conv2d, weight: Tensor, shape: tuple[int, ...]) -> Rows:
    """Coefficients over a convolution's outputs as those over its inputs of this shape (C, H, W)."""
    (step_h, step_w), (gap_h, gap_w) = layer.stride, layer.dilation
    pad_h, pad_w = layer.padding if isinstance(layer.padding, tuple) else (0, 0)
    if rows.place is not None:
        values = F.conv_transpose2d(
            rows.values, weight, None, layer.stride, 0, 0, layer.groups, layer.dilation
        )
        moved = replace(
            rows,
            values=values,
            stride=(rows.stride[0] * step_h, rows.stride[1] * step_w),
            offset=(rows.offset[0] * step_h - pad_h, rows.offset[1] * step_w - pad_w),
        )
        return moved.cut(shape)
    more = tuple(
        size - ((out - 1) * step - 2 * pad + gap * (kernel - 1) + 1)
        for size, out, step, pad, gap, kernel in zip(
            shape[-2:],
            rows.values.shape[-2:],
            (step_h, step_w),
            (pad_h, pad_w),
            (gap_h, gap_w),
            layer.kernel_size,
            strict=True,
        )
    )
    values = F.conv_transpose2d(
        rows.values, weight, None, layer.stride, (pad_h, pad_w), more, layer.groups, layer.dilation
    )
    return Rows(values)


def _beyond(start: Tensor, size: int, length: int) -> Pair:
    """By how much windows leave an axis at its two ends."""
    return max(0, -int(start.min())), max(0, int(start.max()) + size - length)


def _inside(start: Tensor, size: int, length: int) -> Tensor:
    at = start.unsqueeze(1) + torch.arange(size, device=start.device)
    return (at >= 0) & (at < length)
