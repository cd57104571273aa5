"""What a square is painted on: the points of all live rows, changed in place window by window.

A canvas proposes a change of one window in every row, shows the changed points, and then keeps or undoes the change
row by row. Windows of L-infinity touch only their own positions, so that a query costs little beside the model's.
"""

from typing import Protocol

import torch
from torch import Tensor

from signstep.attacks.search.windows import Layout, bump
from signstep.engine.norms import L2, Linf
from signstep.engine.region import BallRegion, ProductRegion, Region, ball_of
from signstep.engine.tree import Tree, per_row, search_dtype
from signstep.errors import ThreatError

PLACES = 4  # numbers of a query beside the signs: two positions
TURN = 4  # and which way round a pattern lies


class Painted(Protocol):
    """The points of one input of the live rows."""

    @property
    def numbers(self) -> int:
        """Uniform numbers that a proposal needs for each row."""

    @property
    def point(self) -> Tensor:
        """The points (R, ...), allowed; changed in place by proposals."""

    def stripe(self, numbers: Tensor) -> None:
        """Start anew, from stripes; ``numbers`` (R, `stripes`) in [0, 1)."""

    @property
    def stripes(self) -> int:
        """Uniform numbers that `stripe` needs for each row."""

    def propose(self, numbers: Tensor, share: float) -> None:
        """Change a window that covers about ``share`` of each row; ``numbers`` (R, `numbers`) in [0, 1)."""

    def settle(self, keep: Tensor) -> None:
        """Undo the last proposal in the rows where ``keep`` (R,) is False."""

    def take(self, index: Tensor) -> "Painted":
        """The canvas of the rows at ``index``."""


def painted(region: Region, begin: Tree) -> dict[str, Painted]:
    """A canvas for each attacked input, under "" where there is one without a name.

    Raises:
        ThreatError: a norm other than L-infinity and L2.
    """
    if isinstance(region, ProductRegion):
        assert isinstance(begin, dict)
        return {name: _painted(ball_of(part, "square"), begin[name]) for name, part in region.parts.items()}
    assert isinstance(begin, torch.Tensor)
    return {"": _painted(ball_of(region, "square"), begin)}


def _painted(region: BallRegion, begin: Tensor) -> Painted:
    if isinstance(region.norm, Linf):
        return Corners.on(region, begin)
    if isinstance(region.norm, L2):
        return Bumps.on(region, begin)
    raise ThreatError(
        f"norm {region.norm.name}: square is defined for linf and l2", remedy="pass one of them, or another attack"
    )


class Corners:
    """L-infinity: every channel of a window goes to the upper or the lower end of what is allowed.

        u[window, c] = x + eps * rho_c, cut to box, mask and grid;  rho_c = -1 or +1

    A window that would change nothing is turned to the opposite signs, since asking again tells nothing. Source:
    Andriushchenko et al. 2020, algorithm 2 (which draws again until something changes).
    """

    def __init__(self, layout: Layout, u: Tensor, top: Tensor, bottom: Tensor) -> None:
        self._layout, self._u, self._top, self._bottom = layout, u, top, bottom
        self._flat, self._ends = self._planes(u), (self._planes(bottom), self._planes(top))
        self._undo: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    def on(cls, region: BallRegion, begin: Tensor) -> "Corners":
        """The canvas whose points start at ``begin``."""
        ones = torch.ones_like(begin, dtype=search_dtype(begin.dtype))
        # Coordinates land one by one, so a point made of landed coordinates has landed.
        top, bottom = region.land(region.steepest(ones)), region.land(region.steepest(-ones))
        return cls(Layout.of(tuple(begin.shape[1:])), _own(begin), top.contiguous(), bottom.contiguous())

    @property
    def numbers(self) -> int:
        """Two for the position, one for the sign of each channel."""
        return 2 + self._layout.channels

    @property
    def stripes(self) -> int:
        """One for each column of each channel."""
        return self._layout.channels * self._layout.width

    @property
    def point(self) -> Tensor:
        """The points (R, ...)."""
        return self._u

    def stripe(self, numbers: Tensor) -> None:
        """Vertical stripes one position wide."""
        rows, (channels, height, width) = len(numbers), self._layout
        up = (numbers < 0.5).reshape(rows, channels, 1, width).expand(-1, -1, height, -1).reshape(self._u.shape)
        self._u.copy_(torch.where(up, self._top, self._bottom))

    def propose(self, numbers: Tensor, share: float) -> None:
        """One window at one position, the same for all channels."""
        places = self._layout.places(numbers[:, :2], self._layout.side(share))
        places = places.expand(-1, self._layout.channels, -1)
        low, high = (end.gather(2, places) for end in self._ends)
        old = self._flat.gather(2, places)
        up = (numbers[:, 2:] < 0.5).unsqueeze(2)
        new = torch.where(up, high, low)
        idle = (new == old).flatten(1).all(1).reshape(-1, 1, 1)
        new = torch.where(up ^ idle, high, low)
        self._flat.scatter_(2, places, new)
        self._undo = places, old, new

    def settle(self, keep: Tensor) -> None:
        """Undo the last proposal in the rows where ``keep`` (R,) is False."""
        assert self._undo is not None
        places, old, new = self._undo
        self._flat.scatter_(2, places, torch.where(per_row(keep, new), new, old))

    def take(self, index: Tensor) -> "Corners":
        """The canvas of the rows at ``index``."""
        return Corners(self._layout, self._u[index], self._top[index], self._bottom[index])

    def _planes(self, u: Tensor) -> Tensor:
        return u.view(len(u), self._layout.channels, self._layout.height * self._layout.width)


class Bumps:
    """L2: the change in one window gives its length to a pattern in another, so that the whole length is used.

        d[W2] = 0;  d[W1] = (rho_c * eta + d[W1] / |d[W1]|), scaled channel by channel to the length that was
        in W1 and W2 together plus an equal part of what was unused;  then d goes to the length of the radius, and
        into the box.

    eta is `bump`. Source: Andriushchenko et al. 2020, algorithm 3. Differs: where eps is None the radius is the length
    to the farther corner of the box; a mask cuts the pattern before its length counts.
    """

    def __init__(self, region: BallRegion, layout: Layout, radius: Tensor, u: Tensor) -> None:
        self._region, self._layout, self._radius, self._u = region, layout, radius, u
        self._old: Tensor | None = None

    @classmethod
    def on(cls, region: BallRegion, begin: Tensor) -> "Bumps":
        """The canvas whose points start at ``begin``."""
        radius = region.radius
        if bool(torch.isinf(radius).any()):
            assert region.lower is not None
            assert region.upper is not None
            corner = torch.maximum(-region.lower, region.upper).expand(begin.shape)
            radius = torch.minimum(radius, region.norm.length(corner))
        return cls(region, Layout.of(tuple(begin.shape[1:])), radius, _own(begin))

    @property
    def numbers(self) -> int:
        """Four for two positions, one for the turn, one for the sign of each channel."""
        return PLACES + 1 + self._layout.channels

    @property
    def stripes(self) -> int:
        """As many tiles as five each way, each with a sign for each channel and a turn."""
        return 25 * (1 + self._layout.channels)

    @property
    def point(self) -> Tensor:
        """The points (R, ...)."""
        return self._u

    def stripe(self, numbers: Tensor) -> None:
        """Five by five tiles of patterns with random signs, scaled to the radius."""
        channels, height, width = self._layout
        d = torch.zeros(len(self._u), channels, height, width, dtype=self._radius.dtype, device=self._u.device)
        tall, wide = max(1, height // 5), max(1, width // 5)
        tile = numbers.reshape(len(numbers), 25, 1 + channels)
        for number in range(25):
            # What a division by five leaves over stays free around the tiles.
            top = (height - 5 * tall) // 2 * (height > 4) + number // 5 * tall
            left = (width - 5 * wide) // 2 * (width > 4) + number % 5 * wide
            if top + tall > height or left + wide > width:
                continue
            pattern = self._pattern(tall, wide, tile[:, number, 0], d)
            d[:, :, top : top + tall, left : left + wide] = pattern * _signs(tile[:, number, 1:], d)
        self._move(d.reshape(self._u.shape))

    def propose(self, numbers: Tensor, share: float) -> None:
        """Two windows, which may overlap."""
        region, (channels, height, width) = self._region, self._layout
        # At least three positions and an odd number of them, so that the pattern has a centre.
        tall, wide = self._layout.side(share)
        size = min(max(tall, 3) // 2 * 2 + 1, height), min(max(wide, 3) // 2 * 2 + 1, width)
        self._old = self._u
        d = (self._u.to(self._radius.dtype) - region.x.to(self._radius.dtype)).reshape(len(self._u), channels, -1)
        into = self._layout.places(numbers[:, 0:2], size).expand(-1, channels, -1)
        out_of = self._layout.places(numbers[:, 2:4], size).expand(-1, channels, -1)
        here = d.gather(2, into)
        squares = d.square().sum(2)
        d = d.scatter(2, into, 0.0).scatter(2, out_of, 0.0)
        freed = squares - d.square().sum(2)
        unused = (self._radius.square() - squares.sum(1)).clamp_min(0) / channels
        pattern = self._pattern(*size, numbers[:, TURN], d).reshape(len(d), 1, -1)
        new = pattern * _signs(numbers[:, TURN + 1 :], d).squeeze(3) + here / _length(here)
        new = new / _length(new) * (freed.clamp_min(0) + unused.unsqueeze(1)).sqrt().unsqueeze(2)
        self._move(d.scatter(2, into, new).reshape(self._u.shape))

    def settle(self, keep: Tensor) -> None:
        """Undo the last proposal in the rows where ``keep`` (R,) is False."""
        assert self._old is not None
        self._u = torch.where(per_row(keep, self._u), self._u, self._old)

    def take(self, index: Tensor) -> "Bumps":
        """The canvas of the rows at ``index``."""
        return Bumps(self._region.take(index), self._layout, self._radius[index], self._u[index])

    def _pattern(self, height: int, width: int, turn: Tensor, like: Tensor) -> Tensor:
        """The pattern (R, 1, height, width), in every other row turned by a quarter where the window is square."""
        pattern = bump(height, width).to(like)
        turned = pattern.T if height == width else pattern
        return torch.where((turn < 0.5).reshape(-1, 1, 1), pattern, turned).unsqueeze(1)

    def _move(self, d: Tensor) -> None:
        """To the radius, then into the box."""
        region = self._region
        d = region.restrict(d)
        length = region.norm.length(d)
        d = d * per_row(torch.where(length > 0, self._radius / length, 0.0), d)
        if region.lower is not None or region.upper is not None:
            d = d.clamp(region.lower, region.upper)
        self._u = region.land(d)


def _signs(numbers: Tensor, like: Tensor) -> Tensor:
    return torch.where(numbers < 0.5, 1.0, -1.0).to(like).reshape(*numbers.shape, 1, 1)


def _length(part: Tensor) -> Tensor:
    return part.square().sum(2, keepdim=True).sqrt().clamp_min(torch.finfo(part.dtype).tiny)


def _own(begin: Tensor) -> Tensor:
    """A copy to paint on, contiguous."""
    return begin.detach().clone(memory_format=torch.contiguous_format)
