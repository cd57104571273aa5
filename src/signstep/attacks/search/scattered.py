"""What sparse-RS moves about: in each row a set of changed coordinates (pixels), each at an end of the box."""

import torch
from torch import Tensor

from signstep.engine.norms import L0, first
from signstep.engine.region import BallRegion
from signstep.engine.tree import per_row
from signstep.errors import ThreatError


class Scattered:
    """The points of one input of the live rows, as `painted.Painted` says.

    A unit is what the threat counts: a coordinate, or a group of them. Units that the box and the mask let go nowhere
    are never chosen.
    """

    def __init__(
        self, norm: L0, most: Tensor, ends: tuple[Tensor, Tensor, Tensor], u: Tensor, held: Tensor, free: Tensor
    ) -> None:
        """From the norm, how many units may change (R,), the points (x, bottom, top), and the canvas itself.

        ``held`` (R, units) are the units that have been changed, ``free`` those that may be.
        """
        self._norm, self._most, self._ends, self._u, self._held, self._free = norm, most, ends, u, held, free
        self._undo: tuple[Tensor, Tensor] | None = None

    @classmethod
    def on(cls, region: BallRegion, begin: Tensor) -> "Scattered":
        """The canvas whose points start at ``begin``.

        Raises:
            ThreatError: the threat does not count changes.
        """
        norm = region.norm
        if not isinstance(norm, L0):
            raise ThreatError(
                f"norm {norm.name}: sparse-rs is defined for l0", remedy="pass a threat that counts, such as ss.l0(10)"
            )
        assert region.lower is not None
        assert region.upper is not None
        # Coordinates land one by one, so a point made of landed coordinates has landed.
        whole = region.resized(torch.full_like(region.radius, torch.inf))
        bottom, top = (whole.land(end.expand(begin.shape)) for end in (region.lower, region.upper))
        free = norm.parts((bottom != region.x) | (top != region.x)).any(2)
        held = norm.parts(begin != region.x).any(2)
        most = torch.minimum(region.radius, free.sum(1).to(region.radius.dtype)).floor()
        return cls(norm, most, (region.x, bottom, top), begin.detach().clone(), held, free)

    @property
    def numbers(self) -> int:
        """One for each unit, and one for each coordinate."""
        return self._free.shape[1] + self._u[0].numel()

    @property
    def stripes(self) -> int:
        """As many."""
        return self.numbers

    @property
    def point(self) -> Tensor:
        """The points (R, ...)."""
        return self._u

    def stripe(self, numbers: Tensor) -> None:
        """Start anew: as many units as may change, at random places."""
        noise, corners = self._drawn(numbers)
        self._held = first(noise, self._most, self._free)
        self._u = torch.where(self._norm.spread(self._held, corners), corners, self._ends[0])

    def propose(self, numbers: Tensor, share: float) -> None:
        """Move ``share`` of the units that may change, at least one; only so many leave as must to make room."""
        self._undo = self._u, self._held
        noise, corners = self._drawn(numbers)
        count = (self._most * share).floor().clamp_min(1.0)
        leaving = first(noise, (self._held.sum(1) + count - self._most).clamp_min(0), self._held)
        staying = self._held & ~leaving
        # Units that have just left may come again, at other ends. Those were the ones of largest noise: it is turned.
        coming = first((noise + 0.5) % 1, torch.minimum(count, self._most), self._free & ~staying)
        kept = torch.where(self._norm.spread(staying, corners), self._u, self._ends[0])
        self._u = torch.where(self._norm.spread(coming, corners), corners, kept)
        self._held = staying | coming

    def settle(self, keep: Tensor) -> None:
        """Undo the last proposal in the rows where ``keep`` (R,) is False."""
        assert self._undo is not None
        u, held = self._undo
        self._u = torch.where(per_row(keep, u), self._u, u)
        self._held = torch.where(keep[:, None], self._held, held)

    def take(self, index: Tensor) -> "Scattered":
        """The canvas of the rows at ``index``."""
        x, bottom, top = (end[index] for end in self._ends)
        return Scattered(
            self._norm, self._most[index], (x, bottom, top), self._u[index], self._held[index], self._free[index]
        )

    def _drawn(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """A number for each unit (R, units), and points with every coordinate at a random end of the box.

        A unit that would stay as it is goes to the other ends.
        """
        units = self._free.shape[1]
        noise, bits = numbers[:, :units], numbers[:, units:]
        x, bottom, top = self._ends
        up = (bits < 0.5).reshape(self._u.shape)
        same = self._norm.parts(torch.where(up, top, bottom) != x).any(2)
        up = up ^ self._norm.spread(~same, up)
        return noise, torch.where(up, top, bottom)
