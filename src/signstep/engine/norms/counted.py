"""L0: how many coordinates change, or how many groups of them, however far."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from signstep.engine.batch_invariant import line_sum, lines
from signstep.engine.norms.boxed import cut, scale_of
from signstep.engine.norms.groups import grouped, ungrouped
from signstep.engine.norms.norm import Draws, diameter_of
from signstep.engine.tree import per_row
from signstep.engine.verify import size_of
from signstep.errors import ThreatError
from signstep.messages import Arg, Blank


@dataclass(frozen=True)
class L0:
    """The number of coordinates that change; with ``axes`` the number of groups in which any does.

    Its ball {d : at most k change} has no end along a coordinate and is not convex: what can be reached in it is
    decided by the box, and a threat without one is refused. A radius that is no whole number counts as the next
    smaller one. Of equal coordinates the first in index order is taken.

    ``axes`` are those of `Grouped`: (0,) counts the pixels of images (C, H, W), (-1,) the atoms of (N, 3). ``called``
    is the name by which a threat is printed, where it was named so: "l0-pixel".

    Raises:
        ThreatError: (when used) the examples do not have the axes, or a step is asked for without a box.
    """

    axes: tuple[int, ...] = ()
    called: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """``l0``, ``l0(0)``, ``l0(0,1)`` ..."""
        return f"l0({','.join(map(str, self.axes))})" if self.axes else "l0"

    def length(self, d: Tensor) -> Tensor:
        """How many coordinates are not zero, or how many groups have one that is not, (R,)."""
        return self.parts(d != 0).any(2).sum(1).to(d.dtype)

    def dual_length(self, g: Tensor) -> Tensor:
        """max {<g, d> : one coordinate of d is not zero} of each row, (R,): inf, or 0 where g is zero."""
        return torch.where((g != 0).flatten(1).any(1), torch.inf, 0.0).to(g.dtype)

    def steepest(self, g: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """The k coordinates with the largest gain |g_i| * reach_i, each at the end of the box that g_i points to.

        reach_i is how far the box lets it go there; the gain of a group is the sum of its members'. This is the exact
        maximiser of <g, d> over {d : at most k change, low <= d <= high}.

        Raises:
            ThreatError: the box lacks a side.
        """
        end, gain, _ = self._gains(g, low, high)
        return self._kept(end, first(gain, radius, self.parts(end != 0).any(2)))

    def turned(
        self, d: Tensor, g: Tensor, count: Tensor, radius: Tensor, low: Tensor | None, high: Tensor | None
    ) -> Tensor:
        """Where a step from d leads, in S, when at most ``count`` coordinates are set anew.

        The ``count`` coordinates by which <g, d> grows most go to the end of the box that g_i points to; of all that
        then differ from zero, the k with the largest g_i d_i stay. One that did not differ grows at the cost of the
        least of those that do, once k do. A projection would keep the largest: in a box most
        values end at its sides, and which of them is larger says nothing about the loss.

        Args:
            d: a point of S, (R, ...).
            g: the gradient there, (R, ...).
            count: how many may be set anew, (R,); the next larger whole number counts.
            radius: k, (R,).
            low: the box as seen from zero.
            high: likewise.
        """
        end, gain, scaled = self._gains(g, low, high)
        now = self.totals(d * scaled)
        held = self.parts(d != 0).any(2)
        least = torch.where(held, now, torch.inf).amin(1, keepdim=True)
        cost = torch.where(held.sum(1, keepdim=True) >= radius[:, None], least, 0.0)
        grown = gain - torch.where(held, now, cost)
        fresh = first(grown, count.ceil(), (self.parts(end != 0).any(2) | held) & (grown > 0))
        moved = torch.where(self.spread(fresh, d), end, d)
        return self._kept(moved, first(torch.where(fresh, gain, now), radius, self.parts(moved != 0).any(2)))

    def project(self, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """The point of S nearest to d: clipped to the box, the k coordinates stay that are dearest to leave out.

        Leaving out coordinate i adds d_i^2 - (d_i - c_i)^2 = c_i (2 d_i - c_i) to the squared distance, c the clipped
        d; leaving out a group adds the sum of its members'.
        """
        clipped = cut(d, low, high)
        inside = self.length(clipped) <= radius.to(d.dtype)
        if bool(inside.all()):
            return clipped
        scale = per_row(scale_of(lines(d)), d)
        near, far = clipped.abs() / scale, d.abs() / scale
        cost = self.totals(near * (2 * far - near))
        return torch.where(per_row(inside, d), clipped, self._kept(clipped, first(cost, radius, cost > 0)))

    def sample(self, draws: Draws, shape: tuple[int, ...]) -> Tensor:
        """One coordinate (group) chosen uniformly, its values uniform in [-1, 1)."""
        values = 2 * draws.uniform("l0 values", shape) - 1
        count = self.parts(values).shape[1]
        place = (draws.uniform("l0 place", ()) * count).long().clamp_max_(count - 1)
        chosen = torch.arange(count, device=values.device, dtype=torch.int64) == place[:, None]
        return self._kept(values, chosen)

    def scattered(self, draws: Draws, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """k coordinates (groups) uniformly of those that may move, uniform in the box, its ends (R, ...)."""
        values = low + draws.uniform("l0 values", tuple(low.shape[1:])).to(low.dtype) * (high - low)
        free = self.parts((high > low).expand_as(values)).any(2)
        return self._kept(values, first(draws.uniform("l0 places", free.shape[1:]), radius, free))

    def diameter(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
        """How many coordinates (groups) the box lets move at all."""
        return diameter_of(self, low, high, shape)

    def check(self, before: Tensor, after: Tensor) -> Tensor:
        """The checker's own size of the change, (R,) float64."""
        return size_of(after.double() - before.double(), "l0", self.axes)

    def parts(self, d: Tensor) -> Tensor:
        """View ``d`` (R, ...) as (R, groups, members); a coordinate that counts alone is a group of one."""
        return grouped(d, self.axes, self.name)

    def totals(self, d: Tensor) -> Tensor:
        """The sum over the members of each group, (R, groups)."""
        return _sums(self.parts(d))

    def spread(self, values: Tensor, like: Tensor) -> Tensor:
        """What each group has (R, groups), for each of its coordinates, in the shape of ``like``."""
        return ungrouped(values[..., None].expand(self.parts(like).shape), like, self.axes, self.name)

    def _kept(self, d: Tensor, chosen: Tensor) -> Tensor:
        """``d`` where its group is chosen (R, groups) bool, else zero."""
        return torch.where(self.spread(chosen, d), d, 0.0)

    def _gains(self, g: Tensor, low: Tensor | None, high: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The ends of the box that g points to, the gain of each group (R, groups), and g in the gains' unit.

        The unit is the largest |g_i| and the widest side of the row, rounded to powers of two: no product overflows.
        """
        if low is None or high is None:
            raise ThreatError(
                f"{self.name} says how many coordinates change and not how far, so a step has no end without a box",
                remedy=("pass", Arg("box", Blank("low", "high"))),
            )
        info = torch.finfo(g.dtype)
        zero = torch.zeros((), dtype=g.dtype, device=g.device)
        end = torch.where(g > 0, high, torch.where(g < 0, low, zero)).clamp(info.min, info.max)
        widest = scale_of(lines(torch.maximum(high, -low).expand_as(g)).clamp(max=info.max))
        scaled = g / per_row(scale_of(lines(g)), g) / per_row(widest, g)
        return end, self.totals(end * scaled), scaled


def first(value: Tensor, count: Tensor, among: Tensor) -> Tensor:
    """Which ``count`` (R,) entries of each row of ``value`` (R, N) are largest ``among`` (R, N) bool; (R, N) bool.

    Of equal ones the first in index order; all of them where there are fewer. A count is rounded down.
    """
    ranked = torch.where(among, value, -torch.inf)
    most = count.floor().clamp(0, value.shape[1]).long()[:, None]
    # The values alone are asked for: which of equal ones a kernel picks is its own affair.
    best = ranked.topk(max(1, int(most.max())) if len(most) else 1, 1).values
    level = best.gather(1, (most - 1).clamp_min(0))
    above = among & (ranked > level)
    tied = among & (ranked == level)
    return (above | (tied & (tied.cumsum(1) <= most - above.sum(1, keepdim=True)))) & (most > 0)


def _sums(parts: Tensor) -> Tensor:
    """The sum over the members of each group, (R, groups), in an order that does not depend on R."""
    return line_sum(lines(parts.flatten(0, 1))).reshape(parts.shape[:2]) if parts.shape[2] > 1 else parts[..., 0]
