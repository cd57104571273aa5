"""Two lines around an activation: below and above it between two ends, as near as a few slopes allow.

Whatever the slopes, the lines hold: their offsets are taken from the function's values at points between the ends, and
from how far it can bend away between these. So a slope that is chosen badly costs tightness and never truth.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Slopes that are tried for each line, and pieces that the way between the ends is cut into.
_SLOPES, _PIECES = 8, 32


@dataclass(frozen=True)
class Lines:
    """``low_slope x + low_offset <= f(x) <= high_slope x + high_offset`` for each number, all of one shape.

    Attributes:
        low_slope: of the line below.
        low_offset: of the line below.
        high_slope: of the line above.
        high_offset: of the line above.
        free: where the slope below may be any number between ``least`` and ``most`` with the same offset; None where
            nowhere.
        least: see ``free``.
        most: see ``free``.
    """

    low_slope: Tensor
    low_offset: Tensor
    high_slope: Tensor
    high_offset: Tensor
    free: Tensor | None = None
    least: float = 0.0
    most: float = 1.0


@dataclass(frozen=True)
class Bend:
    """An activation: a function of one number.

    Attributes:
        function: the activation on tensors.
        lines: from the ends (low, high) of its inputs to lines that hold between them.
        decided: where it is a line of itself between the ends, so that tighter ends would not help.
        signs: whether that is where the ends have the same sign.
    """

    function: Callable[[Tensor], Tensor]
    lines: Callable[[Tensor, Tensor], Lines]
    decided: Callable[[Tensor, Tensor], Tensor]
    signs: bool = False


def rectifier(slope: float = 0.0) -> Bend:
    """max(x, slope x), for a slope from 0 to 1: ReLU and LeakyReLU.

    Above lies the chord; below any line through the kink, the one of less area unless somebody knows better
    (Zhang et al. 2018, "Efficient neural network robustness certification with general activation functions", table 2).
    """

    def function(x: Tensor) -> Tensor:
        return torch.nn.functional.leaky_relu(x, slope)

    def lines(low: Tensor, high: Tensor) -> Lines:
        down, up = (-low).clamp_(min=0), high.clamp(min=0)
        # The share of what lies between the ends that is above 0; 1 or 0 exactly where they have one sign.
        share = up / (down + up).clamp_(min=torch.finfo(low.dtype).tiny)
        above, open_ = (low + high > 0).to(low), (low < 0) & (high > 0)
        offset, zero = down * share, torch.zeros_like(low)
        if slope == 0:
            return Lines(above, zero, share, offset, open_, slope, 1.0)
        one, flat = torch.ones_like(low), torch.full_like(low, slope)  # two plain numbers would meet in float32
        return Lines(
            torch.lerp(flat, one, above), zero, torch.lerp(flat, one, share), offset * (1 - slope), open_, slope, 1.0
        )

    return Bend(function, lines, lambda low, high: (low >= 0) | (high <= 0), signs=True)


def cornered(function: Callable[[Tensor], Tensor], *corners: float) -> Bend:
    """A function that is a line between its corners, such as Hardtanh."""

    def points(low: Tensor, high: Tensor) -> Tensor:
        return torch.stack([low, *(torch.full_like(low, corner).clamp(low, high) for corner in corners), high])

    return _bend(function, points, lambda low, _: torch.zeros_like(low))


def curved(function: Callable[[Tensor], Tensor], curvature: float, jump: float = 0.0) -> Bend:
    """A smooth function whose second derivative is at most ``curvature`` in size, and that may skip by ``jump``.

    Between two points that lie h apart it leaves their chord by at most curvature h^2 / 8.
    """
    shares = torch.linspace(0, 1, _PIECES + 1, dtype=torch.float64, device="cpu")

    def points(low: Tensor, high: Tensor) -> Tensor:
        share = shares.to(low).view(-1, *([1] * low.ndim))
        return torch.lerp(low.unsqueeze(0), high.unsqueeze(0), share)

    def beyond(low: Tensor, high: Tensor) -> Tensor:
        return curvature * ((high - low) / _PIECES).square() / 8 + jump

    return _bend(function, points, beyond)


def _bend(
    function: Callable[[Tensor], Tensor],
    points: Callable[[Tensor, Tensor], Tensor],
    beyond: Callable[[Tensor, Tensor], Tensor],
) -> Bend:
    def lines(low: Tensor, high: Tensor) -> Lines:
        at = points(low, high)
        values, more = function(at), beyond(low, high)
        slopes = _slopes(at, values)
        low_slope, low_offset = _best(at, values, slopes, below=True)
        high_slope, high_offset = _best(at, values, slopes, below=False)
        return Lines(low_slope, low_offset - more, high_slope, high_offset + more)

    return Bend(function, lines, lambda low, high: low == high)


def _slopes(at: Tensor, values: Tensor) -> list[Tensor]:
    """The chord's, those at both ends and in the middle, and some from the least to the largest between points."""
    steps = at.diff(dim=0)
    pieces = torch.where(steps > 0, values.diff(dim=0) / torch.where(steps > 0, steps, 1.0), 0.0)
    whole = at[-1] - at[0]
    chord = torch.where(whole > 0, (values[-1] - values[0]) / torch.where(whole > 0, whole, 1.0), 0.0)
    least, most = pieces.amin(0), pieces.amax(0)
    between = [least + (most - least) * (part / (_SLOPES - 1)) for part in range(_SLOPES)]
    return [chord, pieces[len(pieces) // 2], *between]


def _best(at: Tensor, values: Tensor, slopes: list[Tensor], *, below: bool) -> tuple[Tensor, Tensor]:
    """The slope whose line leaves the least area, and its offset."""
    middle = (at[0] + at[-1]) / 2
    best = height = offset = None
    for slope in slopes:
        rest = values - slope * at
        here = rest.amin(0) if below else rest.amax(0)
        there = slope * middle + here
        if best is None or height is None or offset is None:
            best, height, offset = slope, there, here
            continue
        better = there > height if below else there < height
        best, height = torch.where(better, slope, best), torch.where(better, there, height)
        offset = torch.where(better, here, offset)
    assert best is not None
    assert offset is not None
    return best, offset
