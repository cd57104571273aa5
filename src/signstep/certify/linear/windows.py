"""Coefficients of many bounds at once: over a whole tensor, or over the window of it that each bound can see.

A number behind a few convolutions depends on a small window of the image. Coefficients of it over the whole image would
be zeros for the most part, so each bound keeps its window, and where that is: at ``stride * place + offset``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Pair = tuple[int, int]
_Seats = tuple[Tensor, Pair, tuple[int, int, int, int]]


@dataclass(frozen=True)
class Places:
    """Where windows began, in their own tensor's positions: a few places, each of many bounds.

    Attributes:
        few: the different ones, (P, 2).
        which: of these, (S,).
    """

    few: Tensor
    which: Tensor

    @classmethod
    def of(cls, flat: Tensor, width: int) -> "Places":
        """Of flat positions (S,) in an image of this width."""
        few, which = torch.unique(flat, return_inverse=True)
        return cls(torch.stack([few // width, few % width], 1), which)

    def take(self, index: Tensor) -> "Places":
        """Some bounds' of them."""
        return Places(self.few, self.which[index])


# Half the distance from 1 to the next number of float32: what one rounding does, relative.
UNIT = 2.0**-24
_ROOM = 1.01  # more than sums of so many numbers of one sign lose by rounding
_IMAGES = 4


@dataclass(frozen=True)
class Rows:
    """Coefficients of S linear functions of one tensor: (S, ...), or with ``place`` over windows of it (S, h, w, C).

    Attributes:
        values: the coefficients; 0 where a window leaves the image.
        place: where each began; None where the values cover the tensor.
        stride: from a position there to one here.
        offset: of the window's first position.
        seen: where these windows lie in images of a shape, once that was asked for.
    """

    values: Tensor
    place: Places | None = None
    stride: Pair = (1, 1)
    offset: Pair = (0, 0)
    seen: "dict[tuple[int, ...], _Seats]" = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.values)

    def of(self, part: Tensor) -> Tensor:
        """A tensor (C, H, W) as each bound sees it, (S, h, w, C), 0 beyond its edge; whole ones as they are."""
        if self.place is None:
            return part
        at, size, (left, right, up, down) = self._at(tuple(part.shape))
        table = F.pad(part, (left, right, up, down)).flatten(1).T.contiguous()
        assert len(table) == size[0] * size[1]
        few = table.index_select(0, at.flatten()).view(len(at), -1)
        return few.index_select(0, self.place.which).view(-1, *at.shape[1:], len(part))

    def dot(self, part: Tensor) -> Tensor:
        """The sums of coefficients times the tensor's numbers, (S,), in float64.

        Of coefficients in float32 each product is rounded, by at most 4 `UNIT` of it, and the sum is not.
        """
        if self.place is None and part.dtype == torch.float64:
            return self.values.flatten(1).double() @ part.flatten()
        if self._by_channel and bool((part == part[:, :1, :1]).all()):
            return self.channels().to(part.dtype) @ part[:, 0, 0]
        return sums(self.values * self.of(part.to(self.values.dtype)))

    def channels(self) -> Tensor:
        """The sums over positions, (S, C), in float64."""
        return self.values.double().sum((1, 2) if self.place is not None else (2, 3))

    def sizes(self, part: Tensor) -> Tensor:
        """At least the sums of |coefficients| times numbers >= 0, (S,), in float64.

        In windows by the largest of each channel.
        """
        found = self.values.abs().flatten(1)
        if self.place is not None:
            part = part.flatten(1).amax(1).repeat(self.values[0, ..., 0].numel())
        # Of at most so many numbers the sum may be taken in their own type.
        dtype = found.dtype if found.shape[1] * 2 * UNIT < _ROOM - 1 else torch.float64
        return (found.to(dtype) @ part.flatten().to(dtype)).double() * _ROOM

    @property
    def _by_channel(self) -> bool:
        """Whether the tensor is an image."""
        return self.place is not None or self.values.ndim == _IMAGES

    def scaled(self, factor: Tensor) -> "Rows":
        """Times a tensor's numbers."""
        factor = factor.to(self.values.dtype)
        if self._by_channel and bool((factor == factor[:, :1, :1]).all()):
            one = factor[:, 0, 0]
            return self.like(self.values * (one if self.place is not None else one[:, None, None]))
        return self.like(self.values * self.of(factor))

    def like(self, values: Tensor) -> "Rows":
        """Other coefficients of the same windows."""
        return Rows(values, self.place, self.stride, self.offset, self.seen)

    def take(self, index: Tensor) -> "Rows":
        """Some of them."""
        place = None if self.place is None else self.place.take(index)
        return Rows(self.values[index], place, self.stride, self.offset)

    def cut(self, shape: tuple[int, ...]) -> "Rows":
        """The same with 0 where windows leave an image of this shape (C, H, W)."""
        if self.place is None:
            return self
        top, left = self._origin(self.place.few)
        height, width = self.values.shape[1:3]
        rows = _inside(top, height, shape[-2]).unsqueeze(2)
        columns = _inside(left, width, shape[-1]).unsqueeze(1)
        inside = (rows & columns).to(self.values)
        if bool(inside.all()):
            return self
        return self.like(self.values * inside.index_select(0, self.place.which).unsqueeze(3))

    def whole(self, shape: tuple[int, ...]) -> "Rows":
        """The same over the whole tensor, (S, C, H, W)."""
        if self.place is None:
            return self
        at, (tall, broad), (left, _, up, _) = self._at(shape)
        count, channels = len(self), self.values.shape[-1]
        at = at.index_select(0, self.place.which)
        at = at.view(count, -1) + torch.arange(count, dtype=torch.int64, device=at.device).unsqueeze(1) * (tall * broad)
        found = self.values.new_zeros(count * tall * broad, channels)
        found[at.flatten()] = self.values.reshape(-1, channels)
        found = found.view(count, tall, broad, channels)[:, up : up + shape[-2], left : left + shape[-1]]
        return Rows(found.permute(0, 3, 1, 2).contiguous())

    def small(self, shape: tuple[int, ...]) -> bool:
        """Whether windows are worth it in an image of this shape."""
        return self.place is not None and self.values[0, ..., 0].numel() * 2 <= shape[-2] * shape[-1]

    def _at(self, shape: tuple[int, ...]) -> "_Seats":
        """Where the window at each place lies in the image with a border, (P, h, w), its size, and the border."""
        assert self.place is not None
        if (known := self.seen.get(shape[-2:])) is not None:
            return known
        top, left = self._origin(self.place.few)
        height, width = self.values.shape[1:3]
        up, down = _beyond(top, height, shape[-2])
        before, after = _beyond(left, width, shape[-1])
        tall, broad = shape[-2] + up + down, shape[-1] + before + after
        rows = (top + up).view(-1, 1, 1) + torch.arange(height, dtype=torch.int64, device=top.device).view(1, -1, 1)
        columns = (left + before).view(-1, 1, 1) + torch.arange(width, dtype=torch.int64, device=top.device).view(
            1, 1, -1
        )
        self.seen[shape[-2:]] = rows * broad + columns, (tall, broad), (before, after, up, down)
        return self.seen[shape[-2:]]

    def _origin(self, places: Tensor) -> tuple[Tensor, Tensor]:
        return places[:, 0] * self.stride[0] + self.offset[0], places[:, 1] * self.stride[1] + self.offset[1]


def sums(values: Tensor) -> Tensor:
    """The sums of each function's numbers, (S,), in float64: cast first, which is faster than a sum that casts."""
    return values.double().sum(tuple(range(1, values.ndim)))


def added(one: Rows, other: Rows, shape: tuple[int, ...]) -> Rows:
    """The sum of two sets of coefficients over the same tensor of this shape."""
    if one.place is None or other.place is None or one.stride != other.stride:
        return Rows(one.whole(shape).values + other.whole(shape).values)
    start = (min(one.offset[0], other.offset[0]), min(one.offset[1], other.offset[1]))
    end = tuple(max(part.offset[axis] + part.values.shape[1 + axis] for part in (one, other)) for axis in (0, 1))

    def stretched(part: Rows) -> Tensor:
        up, left = part.offset[0] - start[0], part.offset[1] - start[1]
        down, right = end[0] - start[0] - up - part.values.shape[1], end[1] - start[1] - left - part.values.shape[2]
        return F.pad(part.values, (0, 0, left, right, up, down))

    return Rows(stretched(one) + stretched(other), one.place, one.stride, start)


Tables = dict[tuple[int, ...], Tensor]
"""Of one layer, by the size of windows of its outputs, the matrix from these to windows of its inputs."""

# Numbers that such a matrix may have, most of them zeros: beyond, the product would cost more than the sums do.
_TABLE = 2**16
# So few whole tensors in float64 take the library's transposed convolution, which goes from one to the next.
_FEW = 4


def before_convolution(rows: Rows, layer: nn.Conv2d, shape: tuple[int, ...], tables: Tables | None = None) -> Rows:
    """Coefficients over a convolution's outputs as those over its inputs of this shape (C, H, W).

    Each output's coefficient goes to the inputs that its kernel covers: one product of matrices, and a sum over shifts.
    Where windows are small, one product with a matrix that holds the kernel at each position does both; in float32 and
    to several channels, and of a few whole tensors, the library's transposed convolution.

    Args:
        rows: over the outputs.
        layer: the convolution, in the type of the coefficients.
        shape: of its inputs.
        tables: of the layer, to be filled and used again; of a layer whose weights stay.
    """
    if tables is not None and rows.place is not None and (table := _table(rows, layer, tables)) is not None:
        size = _covered(layer, rows.values.shape[1:3])
        found = (rows.values.flatten(1) @ table).view(len(rows), *size, layer.in_channels)
        return _moved(rows, layer, found).cut(shape)
    few = rows.place is None and len(rows) <= _FEW
    if few or (rows.values.dtype == torch.float32 and min(layer.weight.shape) > 1):
        return _transposed(rows, layer, shape)
    if rows.place is not None:
        size = _covered(layer, rows.values.shape[1:3])
        found = _added_up(rows.values, layer, size)
        return _moved(rows, layer, found[:, : size[0], : size[1]]).cut(shape)
    pad_h, pad_w = layer.padding if isinstance(layer.padding, tuple) else (0, 0)
    size = _covered(layer, rows.values.shape[2:])
    # The window may end before the image does, whose last rows no kernel meets.
    room = (max(size[0], shape[-2] + pad_h), max(size[1], shape[-1] + pad_w))
    found = _added_up(rows.values.permute(0, 2, 3, 1), layer, room)
    return Rows(found[:, pad_h : pad_h + shape[-2], pad_w : pad_w + shape[-1]].permute(0, 3, 1, 2))


def _covered(layer: nn.Conv2d, window: Sequence[int]) -> Pair:
    """The size of the window of inputs that a window of outputs is of."""
    tall, broad = (
        (length - 1) * step + gap * (kernel - 1) + 1
        for length, step, gap, kernel in zip(window, layer.stride, layer.dilation, layer.weight.shape[2:], strict=True)
    )
    return tall, broad


def _moved(rows: Rows, layer: nn.Conv2d, values: Tensor) -> Rows:
    """Windows (S, h, w, C) of the inputs, where they lie for windows of the outputs."""
    (down, right), (up, left) = layer.stride, layer.padding if isinstance(layer.padding, tuple) else (0, 0)
    stride = (rows.stride[0] * down, rows.stride[1] * right)
    return Rows(values, rows.place, stride, (rows.offset[0] * down - up, rows.offset[1] * right - left))


def _table(rows: Rows, layer: nn.Conv2d, tables: Tables) -> Tensor | None:
    """The matrix (h w O, H W C) from windows of the outputs to those of the inputs; None where it would be large."""
    tall, broad, channels = window = tuple(rows.values.shape[1:])
    size = _covered(layer, (tall, broad))
    outputs = tall * broad * channels
    if outputs * size[0] * size[1] * layer.in_channels > _TABLE:
        return None
    if window not in tables:
        units = torch.eye(outputs, dtype=rows.values.dtype, device=rows.values.device).view(-1, *window)
        tables[window] = _added_up(units, layer, size)[:, : size[0], : size[1]].flatten(1).contiguous()
    return tables[window]


def _added_up(values: Tensor, layer: nn.Conv2d, least: Pair) -> Tensor:
    """What windows (S, h, w, O) of a convolution's outputs are of its inputs, (S, H, W, C), of this size or more."""
    (down, right), (gap_h, gap_w) = layer.stride, layer.dilation
    count, tall, broad, _ = values.shape
    kernel_h, kernel_w = layer.weight.shape[2:]
    sent = _sent(values, layer)  # (S, h, w, kh, kw, C)
    step_h, step_w = _block(down, gap_h, kernel_h), _block(right, gap_w, kernel_w)
    room = (_up_to(least[0], step_h), _up_to(least[1], step_w))
    found = values.new_zeros(count, *room, layer.in_channels)
    # Neighbouring places of a kernel whose outputs lie a stride apart meet no other ones: they are added together.
    blocks = found.view(count, room[0] // step_h, step_h, room[1] // step_w, step_w, layer.in_channels)
    sent = sent.view(count, tall, broad, kernel_h // step_h, step_h, kernel_w // step_w, step_w, layer.in_channels)
    every_h, every_w = down // step_h, right // step_w
    for y in range(kernel_h // step_h):
        for x in range(kernel_w // step_w):
            top, left = y * gap_h, x * gap_w
            high, wide = top + (tall - 1) * every_h + 1, left + (broad - 1) * every_w + 1
            there = blocks[:, top:high:every_h, :, left:wide:every_w]
            there += sent[:, :, :, y, :, x].transpose(2, 3)
    return found


def _transposed(rows: Rows, layer: nn.Conv2d, shape: tuple[int, ...]) -> Rows:
    """`before_convolution` by the library's own, whose sums are direct: no transform of Winograd."""
    count, values = len(rows), rows.values
    if (more := _rounded(count) - count) > 0:  # each new size is compiled, which takes longer than a few rows
        values = torch.cat([values, torch.zeros_like(values[:more])])
    pads = layer.padding if isinstance(layer.padding, tuple) else (0, 0)
    steps, gaps, groups, weight = layer.stride, layer.dilation, layer.groups, layer.weight
    if rows.place is None:
        axes = zip(shape[1:], values.shape[2:], steps, gaps, weight.shape[2:], pads, strict=True)
        # The last numbers of an image may be met by no kernel.
        beyond = [
            length - ((outputs - 1) * step + gap * (kernel - 1) + 1 - 2 * pad)
            for length, outputs, step, gap, kernel, pad in axes
        ]
        return Rows(F.conv_transpose2d(values, weight, None, steps, pads, beyond, groups, gaps)[:count])
    found = F.conv_transpose2d(values.permute(0, 3, 1, 2), weight, None, steps, 0, 0, groups, gaps)[:count]
    return _moved(rows, layer, found.permute(0, 2, 3, 1)).cut(shape)


def _rounded(count: int) -> int:
    """The next of four sizes to each power of two."""
    step = max(1, 2 ** (count.bit_length() - 3))
    return _up_to(count, step)


def first_convolution(layer: nn.Conv2d, index: Tensor, output: tuple[int, ...], shape: tuple[int, ...]) -> Rows:
    """Of single outputs at flat places ``index`` (S,): their kernels, over the inputs of this shape (C, H, W)."""
    _, height, width = output
    channel = index // (height * width)
    place = Places.of(index % (height * width), width)
    pad_h, pad_w = layer.padding if isinstance(layer.padding, tuple) else (0, 0)
    kernels = _of_all_channels(layer).permute(0, 2, 3, 1).contiguous()[channel]
    return Rows(kernels, place, (layer.stride[0], layer.stride[1]), (-pad_h, -pad_w)).cut(shape)


def _of_all_channels(layer: nn.Conv2d) -> Tensor:
    """The kernels (O, C, kh, kw), 0 for channels of other groups."""
    weight = layer.weight
    if layer.groups == 1:
        return weight
    found = weight.new_zeros(layer.out_channels, layer.in_channels, *weight.shape[2:])
    each, seen = layer.out_channels // layer.groups, weight.shape[1]
    for group in range(layer.groups):
        outputs = slice(group * each, (group + 1) * each)
        found[outputs, group * seen : (group + 1) * seen] = weight[outputs]
    return found


def _sent(values: Tensor, layer: nn.Conv2d) -> Tensor:
    """What each output sends to each place of its kernel: (S, h, w, O) to (S, h, w, kh, kw, C)."""
    weight = layer.weight
    if layer.groups == 1:
        flat = values.reshape(-1, layer.out_channels) @ weight.permute(0, 2, 3, 1).reshape(layer.out_channels, -1)
        return flat.view(*values.shape[:3], *weight.shape[2:], layer.in_channels)
    grouped = values.reshape(-1, layer.groups, layer.out_channels // layer.groups).movedim(1, 0)
    kernels = weight.view(layer.groups, -1, *weight.shape[1:]).permute(0, 1, 3, 4, 2).flatten(2)
    flat = torch.bmm(grouped, kernels).movedim(0, 1)  # (S h w, groups, kh kw C/groups)
    shaped = flat.view(-1, layer.groups, *weight.shape[2:], weight.shape[1]).permute(0, 2, 3, 1, 4)
    return shaped.reshape(*values.shape[:3], *weight.shape[2:], layer.in_channels)


def _block(stride: int, gap: int, kernel: int) -> int:
    """How many neighbouring places of a kernel lie within one stride."""
    return stride if gap == 1 and kernel % stride == 0 else 1


def _up_to(size: int, step: int) -> int:
    """The next multiple."""
    return -(-size // step) * step


def _beyond(start: Tensor, size: int, length: int) -> Pair:
    """By how much windows leave an axis at its two ends."""
    return max(0, -int(start.min())), max(0, int(start.max()) + size - length)


def _inside(start: Tensor, size: int, length: int) -> Tensor:
    at = start.unsqueeze(1) + torch.arange(size, dtype=torch.int64, device=start.device)
    return (at >= 0) & (at < length)
