"""L-infinity, L2 and L1: the norms that measure all coordinates alike."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from signstep.engine.batch_invariant import line_sum, lines, power
from signstep.engine.norms.boxed import cut, euclid, finite, flat_box, inner, largest, on_curve, reach
from signstep.engine.norms.norm import Draws, diameter_of
from signstep.engine.tree import per_row
from signstep.engine.verify import size_of


@dataclass(frozen=True)
class Linf:
    """The largest absolute coordinate: max_i |d_i|."""

    name: ClassVar[str] = "linf"

    def length(self, d: Tensor) -> Tensor:
        """max_i |d_i|, (R,)."""
        flat = lines(d)
        return torch.maximum(flat.amax(1), -flat.amin(1))

    def dual_length(self, g: Tensor) -> Tensor:
        """sum_i |g_i|, (R,)."""
        return line_sum(lines(g).abs())[:, 0]

    def steepest(self, g: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """clip(radius * sign(g), low, high), the step of FGSM (Goodfellow et al. 2015, section 4)."""
        return cut(g.sign().mul_(per_row(finite(radius, g), g)), low, high, own=True)

    def project(self, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """clip(clip(d, -radius, radius), low, high): the set is itself a box."""
        bound = per_row(radius.to(d.dtype), d)
        return cut(cut(d, -bound, bound), low, high, own=True)

    def sample(self, draws: Draws, shape: tuple[int, ...]) -> Tensor:
        """Each coordinate uniform in [-1, 1)."""
        return 2 * draws.uniform("linf ball", shape) - 1

    def diameter(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The longest edge of the box."""
        return diameter_of(self, low, high, shape)

    def check(self, before: Tensor, after: Tensor) -> Tensor:
        """The checker's own size of the change, (R,) float64."""
        return size_of(after.double() - before.double(), "linf")


@dataclass(frozen=True)
class L2:
    """The Euclidean length: sqrt(sum_i d_i^2).

    Both answers over a box lie on the curve clip(t v, low, high): the box stops single coordinates and the others go on
    in proportion. It is the condition of Karush, Kuhn and Tucker for <g, d> (v = g) and for |d - v|^2 (t <= 1) alike.
    """

    name: ClassVar[str] = "l2"

    def length(self, d: Tensor) -> Tensor:
        """sqrt(sum_i d_i^2) without overflow or underflow, (R,)."""
        return euclid(lines(d))[:, 0]

    def dual_length(self, g: Tensor) -> Tensor:
        """The length itself: L2 is its own dual."""
        return self.length(g)

    def steepest(self, g: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """clip(t g, low, high) with the t that makes its length the radius, or all of the box that g points to."""
        return on_curve(lines(g), finite(radius, g)[:, None], flat_box(low, g), flat_box(high, g)).reshape(g.shape)

    def project(self, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """clip(t d, low, high): t = 1 if that lies in the ball, else the t that makes its length the radius."""
        clipped = cut(d, low, high)
        inside = self.length(clipped) <= radius.to(d.dtype)
        return (
            clipped
            if bool(inside.all())
            else torch.where(per_row(inside, d), clipped, self.steepest(d, radius, low, high))
        )

    def sample(self, draws: Draws, shape: tuple[int, ...]) -> Tensor:
        """A normal direction and the radius u^(1/D): volume grows as radius^D."""
        radius = power(draws.uniform("l2 ball radius", ()), 1 / math.prod(shape))
        return self.steepest(draws.normal("l2 ball direction", shape), radius)

    def diameter(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The diagonal of the box."""
        return diameter_of(self, low, high, shape)

    def check(self, before: Tensor, after: Tensor) -> Tensor:
        """The checker's own size of the change, (R,) float64."""
        return size_of(after.double() - before.double(), "l2")


@dataclass(frozen=True)
class L1:
    """The sum of absolute coordinates: sum_i |d_i|."""

    name: ClassVar[str] = "l1"

    def length(self, d: Tensor) -> Tensor:
        """sum_i |d_i|, (R,)."""
        return line_sum(lines(d).abs())[:, 0]

    def dual_length(self, g: Tensor) -> Tensor:
        """max_i |g_i|, (R,)."""
        return lines(g).abs().amax(1)

    def steepest(self, g: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """Coordinates filled up to the box in falling order of |g| until the radius is spent; ties in index order.

        Without a box it is one vertex, radius * sign(g_i) at the first largest |g_i|. The box is that of Croce and Hein
        (2021), "Mind the box"; instead of sorting, a search finds the |g| at which the radius runs out.
        """
        flat, budget = lines(g), finite(radius, g)[:, None]
        size, sign = flat.abs(), flat.sign()
        if low is None and high is None:
            first = size.argmax(1, keepdim=True)
            return torch.zeros_like(flat).scatter(1, first, budget * sign.gather(1, first)).reshape(g.shape)
        budget = inner(budget)
        room = cut(budget * sign, flat_box(low, g), flat_box(high, g)).abs()
        # In-place comparison of floats yields 0.0 and 1.0, several times faster than a mask of bools.
        level = largest(lambda t: line_sum(size.clone().ge_(t).mul_(room)) >= budget, budget)
        full = room * size.clone().gt_(level)
        tied = room * size.eq_(level)
        before = tied.cumsum(1) - tied
        return (sign * (full + torch.minimum(tied, (budget - line_sum(full) - before).clamp_min_(0)))).reshape(g.shape)

    def project(self, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """sign(d) * min(max(|d| - mu, 0), cap) with the mu >= 0 that makes its length the radius.

        cap_i is how far the box lets coordinate i go in the direction of d_i. mu is sought as its distance from the
        largest |d_i|, a number of the size of the radius: so a d far outside loses no digits. Without a box this is
        Duchi et al. (2008), figure 1. Rounding: a few ulp of the largest |d_i|.
        """
        clipped = cut(d, low, high)
        inside = self.length(clipped) <= radius.to(d.dtype)
        if bool(inside.all()):
            return clipped
        flat, budget = lines(d), inner(finite(radius, d))[:, None]
        cap = reach(flat, flat_box(low, d), flat_box(high, d))
        behind = flat.abs().amax(1, keepdim=True) - flat.abs()

        def shrunk(t: Tensor) -> Tensor:
            return torch.minimum((t - behind).clamp_min_(0), cap)

        onto = flat.sign() * shrunk(largest(lambda t: line_sum(shrunk(t)) <= budget, budget))
        return torch.where(per_row(inside, d), clipped, onto.reshape(d.shape))

    def sample(self, draws: Draws, shape: tuple[int, ...]) -> Tensor:
        """Signed exponentials over their sum plus one more: D of the D + 1 shares of a uniform simplex."""
        share = -torch.log1p(-draws.uniform("l1 ball shares", shape))
        spare = -torch.log1p(-draws.uniform("l1 ball slack", ()))
        sign = torch.where(draws.uniform("l1 ball signs", shape) < 0.5, -1.0, 1.0).to(share.dtype)
        whole = (self.length(share) + spare).clamp_min(torch.finfo(share.dtype).tiny)
        return sign * inner(share / per_row(whole, share))

    def diameter(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The sum of the edges of the box."""
        return diameter_of(self, low, high, shape)

    def check(self, before: Tensor, after: Tensor) -> Tensor:
        """The checker's own size of the change, (R,) float64."""
        return size_of(after.double() - before.double(), "l1")
