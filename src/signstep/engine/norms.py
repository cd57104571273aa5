"""Norms: the geometry of the sets that a perturbation may not leave, and of nothing else.

A row is one example; tensors are (R, ...), float32 or float64, and every result has the dtype of its input. What is
feasible for a row is a ball around zero cut by a box,

    S = {d : length(d) <= radius, low <= d <= high},

with ``radius`` (R,) >= 0, perhaps +inf, and ``low`` <= 0 <= ``high`` None or broadcastable to d, perhaps infinite (a
frozen coordinate has low = high = 0). All three are in units of d.

Three rules hold everywhere. An infinite radius counts as the largest finite number of the dtype, so that it never meets
a zero. Sums of a row do not depend on the other rows, so a batch gives what its rows give alone. Results of rounded
formulas aim a few ulp inside the ball (`_inner`), so that rounding does not carry them out of it.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from signstep.engine.batch_invariant import line_sum, lines, power
from signstep.engine.norm_rows import FAMILY, SPELLING, family_of, norm_of, refuse_norm, with_arguments
from signstep.engine.origin import foreign
from signstep.engine.tree import per_row
from signstep.engine.verify import size_of
from signstep.errors import ThreatError
from signstep.messages import Arg
from signstep.registry import NotTypedError, Registry, UnknownNameError, nearest


class Draws(Protocol):
    """Independent random numbers for each row; equal purposes give equal numbers, so every draw has its own."""

    def uniform(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Numbers in [0, 1), (R, *shape)."""
        ...

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers, (R, *shape)."""
        ...


@runtime_checkable
class Norm(Protocol):
    """A way to measure perturbations, with the exact answers that attacks ask of its ball."""

    @property
    def name(self) -> str:
        """The name that `norm` reads back."""
        ...

    def length(self, d: Tensor) -> Tensor:
        """The norm of each row, (R,)."""
        ...

    def dual_length(self, g: Tensor) -> Tensor:
        """The dual norm max {<g, d> : length(d) <= 1} of each row, (R,)."""
        ...

    def steepest(self, g: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """The d in S with the largest <g, d>; coordinates with zero gradient stay at zero. Shaped as g."""
        ...

    def project(self, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """The point of S nearest to d in Euclidean distance; d itself, bit for bit, where it lies in S."""
        ...

    def sample(self, draws: Draws, shape: tuple[int, ...]) -> Tensor:
        """Points uniform by volume in the unit ball, (R, *shape)."""
        ...

    def diameter(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The length of high - low over one example of this shape, a scalar; inf where the box is open."""
        ...


@runtime_checkable
class CheckedNorm(Norm, Protocol):
    """A norm by which a verdict can be given: it can also say how far apart two inputs are, without its geometry."""

    def check(self, before: Tensor, after: Tensor) -> Tensor:
        """The size of each row's change, (R,) float64, from two inputs (R, ...) in float64.

        In plain arithmetic on the two, sharing no code with the methods that search: a mistake there would approve
        itself.
        """
        ...


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
        return _clip(g.sign().mul_(per_row(_finite(radius, g), g)), low, high, own=True)

    def project(self, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """clip(clip(d, -radius, radius), low, high): the set is itself a box."""
        bound = per_row(radius.to(d.dtype), d)
        return _clip(_clip(d, -bound, bound), low, high, own=True)

    def sample(self, draws: Draws, shape: tuple[int, ...]) -> Tensor:
        """Each coordinate uniform in [-1, 1)."""
        return 2 * draws.uniform("linf ball", shape) - 1

    def diameter(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The longest edge of the box."""
        return _diameter(self, low, high, shape)

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
        return _euclid(lines(d))[:, 0]

    def dual_length(self, g: Tensor) -> Tensor:
        """The length itself: L2 is its own dual."""
        return self.length(g)

    def steepest(self, g: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """clip(t g, low, high) with the t that makes its length the radius, or all of the box that g points to."""
        return _on_curve(lines(g), _finite(radius, g)[:, None], _flat_box(low, g), _flat_box(high, g)).reshape(g.shape)

    def project(self, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """clip(t d, low, high): t = 1 if that lies in the ball, else the t that makes its length the radius."""
        clipped = _clip(d, low, high)
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
        return _diameter(self, low, high, shape)

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
        flat, budget = lines(g), _finite(radius, g)[:, None]
        size, sign = flat.abs(), flat.sign()
        if low is None and high is None:
            first = size.argmax(1, keepdim=True)
            return torch.zeros_like(flat).scatter(1, first, budget * sign.gather(1, first)).reshape(g.shape)
        budget = _inner(budget)
        room = _clip(budget * sign, _flat_box(low, g), _flat_box(high, g)).abs()
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
        clipped = _clip(d, low, high)
        inside = self.length(clipped) <= radius.to(d.dtype)
        if bool(inside.all()):
            return clipped
        flat, budget = lines(d), _inner(_finite(radius, d))[:, None]
        cap = _reach(flat, _flat_box(low, d), _flat_box(high, d))
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
        return sign * _inner(share / per_row(whole, share))

    def diameter(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The sum of the edges of the box."""
        return _diameter(self, low, high, shape)

    def check(self, before: Tensor, after: Tensor) -> Tensor:
        """The checker's own size of the change, (R,) float64."""
        return size_of(after.double() - before.double(), "l1")


@dataclass(frozen=True)
class Grouped:
    """The longest group, each measured in L2: max_G sqrt(sum_{i in G} d_i^2). Its ball is a product of L2 balls.

    ``axes`` are the axes of an example (rows not counted, negative ones from the end) that make up one group: (0,) on
    images (C, H, W) is a pixel over its channels, (-1,) on (N, 3) is an atom, on (T, E) a token. ``called`` is the name
    by which a threat is printed, where it was named so: "token".

    Raises:
        ThreatError: there are no axes, or (when used) the examples do not have them.
    """

    axes: tuple[int, ...]
    called: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.axes:
            raise ThreatError(
                Arg("axes", self.axes),
                "names none, and a group has at least one axis",
                remedy="use Linf() for groups of one coordinate",
                where="Grouped",
            )

    @property
    def name(self) -> str:
        """``grouped(0)``, ``grouped(0,1)`` ..."""
        return f"grouped({','.join(map(str, self.axes))})"

    def length(self, d: Tensor) -> Tensor:
        """The largest L2 length of a group, (R,)."""
        return self._lengths(d).amax(1)

    def dual_length(self, g: Tensor) -> Tensor:
        """The sum of the L2 lengths of the groups, (R,)."""
        return line_sum(self._lengths(g))[:, 0]

    def steepest(self, g: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """The steepest step of L2 in every group, each with the whole radius."""
        return self._each(L2().steepest, g, radius, low, high)

    def project(self, d: Tensor, radius: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """The projection of L2 in every group, each with the whole radius."""
        return self._each(L2().project, d, radius, low, high)

    def sample(self, draws: Draws, shape: tuple[int, ...]) -> Tensor:
        """Every group uniform in its own L2 ball."""
        direction = draws.normal("grouped ball direction", shape)
        grouped = self._grouped(direction)
        radius = power(draws.uniform("grouped ball radius", (grouped.shape[1],)), 1 / grouped.shape[2])
        return self._ungrouped(L2().steepest(grouped.flatten(0, 1), radius.flatten()), direction)

    def diameter(self, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The longest diagonal that the box has in a group."""
        return _diameter(self, low, high, shape)

    def check(self, before: Tensor, after: Tensor) -> Tensor:
        """The checker's own size of the change, (R,) float64."""
        return size_of(after.double() - before.double(), "grouped", self.axes)

    def _each(
        self,
        rule: Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor],
        d: Tensor,
        radius: Tensor,
        low: Tensor | None,
        high: Tensor | None,
    ) -> Tensor:
        """Apply a rule of L2 to all groups at once, as its rows."""
        grouped = self._grouped(d)
        box = (None if bound is None else self._grouped(bound.expand_as(d)).flatten(0, 1) for bound in (low, high))
        return self._ungrouped(rule(grouped.flatten(0, 1), radius.repeat_interleave(grouped.shape[1]), *box), d)

    def _lengths(self, d: Tensor) -> Tensor:
        """The L2 length of every group, (R, groups)."""
        grouped = self._grouped(d)
        return L2().length(grouped.flatten(0, 1)).reshape(grouped.shape[:2])

    def _dims(self, d: Tensor) -> tuple[list[int], range]:
        """Where the group axes are in ``d`` and where `_grouped` moves them: to the end."""
        ndim = d.ndim - 1
        if not all(-ndim <= axis < ndim for axis in self.axes):
            raise ThreatError(
                f"{self.name} groups axes that examples of shape {tuple(d.shape[1:])} do not have",
                remedy="pass axes that an example has",
            )
        dims = sorted({axis % ndim + 1 for axis in self.axes})
        return dims, range(-len(dims), 0)

    def _grouped(self, d: Tensor) -> Tensor:
        """View ``d`` (R, ...) as (R, groups, members)."""
        dims, last = self._dims(d)
        members = math.prod(d.shape[dim] for dim in dims)
        return d.movedim(dims, tuple(last)).reshape(len(d), math.prod(d.shape[1:]) // members, members)

    def _ungrouped(self, rows: Tensor, like: Tensor) -> Tensor:
        """Undo `_grouped`: rows (R * groups, members) back in the shape of ``like``."""
        dims, last = self._dims(like)
        return rows.reshape(like.movedim(dims, tuple(last)).shape).movedim(tuple(last), dims).contiguous()


BUILT_IN = (Linf, L2, L1, Grouped)

NORMS: Registry[Norm] = Registry(
    "signstep.norms", SPELLING, norm_of, {"linf": Linf(), "l2": L2(), "l1": L1()}, argument="norm"
)


FAMILIES: Registry[Callable[..., Norm]] = Registry("signstep.norm_families", FAMILY, family_of, argument="norm")
"""Classes and functions that make norms of arguments, by the name before the bracket."""

BY_NAME: dict[str, Norm] = {
    **NORMS.own,
    "inf": NORMS["linf"],
    "2": NORMS["l2"],
    "1": NORMS["l1"],
    "pixel": Grouped((0,), "pixel"),
    "atom": Grouped((-1,), "atom"),
    "token": Grouped((-1,), "token"),
}


def norm(name: str | Norm) -> Norm:
    """The norm of this name, in any case of letters; a norm is returned as it is.

    Names: linf or inf, l2 or 2, l1 or 1, pixel = grouped(0), atom = token = grouped(-1), and grouped(axis,...). One of
    somebody's own is "package.module:name", with its arguments behind it where it has some: "my_norms:Weighted(0.5)".

    Raises:
        ThreatError: no norm has this name, or what has it is none.
    """
    given: object = name
    if isinstance(given, Norm):
        return given
    if not isinstance(given, (str, int, float)):
        refuse_norm(given)
    key = str(given).strip()
    if key.lower() in BY_NAME:
        return BY_NAME[key.lower()]
    if axes := re.fullmatch(r"grouped\((-?\d+(?:,-?\d+)*)\)", key.lower()):
        return Grouped(tuple(int(axis) for axis in axes[1].split(",")))
    try:
        return _brought(key)
    except NotTypedError:
        raise
    except UnknownNameError as error:
        near = nearest(key, BY_NAME)
        every = f"use one of {', '.join(BY_NAME)} or grouped(axis,...), or your own, as module:name"
        remedy = f"did you mean {near!r}?" if near else every
        raise ThreatError(Arg("norm", name), "is not known", remedy=remedy) from error


def _brought(key: str) -> Norm:
    """A norm that is none of Signstep's.

    Raises:
        InputError: there is none of this name, or it cannot be made.
    """
    if key.lower().startswith("grouped("):
        raise UnknownNameError(Arg("norm", key), remedy="write grouped(1,2), say, with whole numbers for the axes")
    called = with_arguments(key)
    if called is None:
        return NORMS.find(key)
    name, values, named = called
    make = FAMILIES.find(name)
    with foreign(f"the norm {name}"):
        made = make(*values, **named)
    refuse_norm(made)
    return made


def _flat_box(bound: Tensor | None, like: Tensor) -> Tensor | None:
    """A side of the box, (R, D)."""
    return None if bound is None else lines(bound.expand_as(like))


def _clip(d: Tensor, low: Tensor | None, high: Tensor | None, *, own: bool = False) -> Tensor:
    """Clamp to a box whose sides may be missing; in place if ``own``: nobody else holds d.

    Fresh memory costs more than the arithmetic, and clamp is slow where a side broadcasts.
    """
    if low is not None and high is not None and low.shape == d.shape == high.shape:
        return d.clamp_(low, high) if own else d.clamp(low, high)
    for rule, side in ((torch.maximum, low), (torch.minimum, high)):
        if side is not None:
            d, own = rule(d, side, out=d if own else None), True
    return d


def _finite(radius: Tensor, like: Tensor) -> Tensor:
    """The radius in the dtype of ``like``, with inf as its largest number: inf * 0 would be NaN."""
    return radius.to(like.dtype).clamp(max=torch.finfo(like.dtype).max)


def _inner(radius: Tensor) -> Tensor:
    """The radius less four ulp, so that rounding leaves a point that aims for it inside."""
    return radius * (1 - 4 * torch.finfo(radius.dtype).eps)


def _scale(flat: Tensor) -> Tensor:
    """The largest |entry| of each row rounded down to a power of two, (R, 1): dividing by it loses no digit.

    Clearing the digits of a float leaves its exponent. Zeros and subnormals get the smallest normal number, infinities
    the largest finite one.
    """
    peak, info = flat.abs().amax(1, keepdim=True), torch.finfo(flat.dtype)
    integer, exponent = (torch.int64, 0x7FF << 52) if info.bits == 64 else (torch.int32, 0xFF << 23)
    return (peak.view(integer) & exponent).view(flat.dtype).clamp(info.tiny, info.max)


def _euclid(flat: Tensor) -> Tensor:
    """The L2 length of each row, (R, 1), scaled so that no square leaves the range of the dtype."""
    scale = _scale(flat)
    return scale * line_sum((flat / scale).square_()).sqrt()


def _reach(flat: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """How far the box lets each coordinate go in its own direction, (R, D); a zero coordinate goes nowhere."""
    return _clip(flat.sign() * torch.finfo(flat.dtype).max, low, high).abs()


def _on_curve(flat: Tensor, radius: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """The longest clip(t v, low, high), t >= 0, that the L2 ball holds; v is (R, D), radius (R, 1) and finite.

    Solved in units of the largest |v_i| and of the radius: neither the scale of the loss nor that of the input matters.
    """
    unit = flat / _scale(flat)
    if low is None and high is None:
        t = _inner(1 / line_sum(unit.square()).sqrt_().clamp_min_(torch.finfo(flat.dtype).tiny))
    else:
        # 0 / 0 and 0 * inf are NaN, which nothing holds: t is 0 if the radius is, and never infinite next to a zero.
        size, cap = unit.abs(), _reach(flat, low, high) / radius
        one = _inner(torch.ones_like(radius)).square()
        t = largest(lambda t: line_sum(torch.minimum(size * t, cap).square_()) <= one, radius)
    return _clip(unit * t * radius, low, high)


def largest(holds: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """The largest float t >= 0 for which ``holds(t)``, row by row, (R, 1); 0 if there is none.

    ``holds``, once false, stays false as t grows, and is false at NaN. Floats from zero on are ordered as their bits
    read as integers, so t is found exactly, bit by bit from the highest: 31 tests in float32, 63 in float64, whatever
    the data. A fixed count needs no word from the device and leaves no row waiting for another.
    """
    integer, bits = (torch.int64, 63) if like.dtype == torch.float64 else (torch.int32, 31)
    found = torch.zeros_like(like, dtype=integer)
    for bit in reversed(range(bits)):
        found.add_(holds((found + (1 << bit)).view(like.dtype)), alpha=1 << bit)
    return found.view(like.dtype)


def _diameter(norm: Norm, low: Tensor, high: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The length of high - low over one example of this shape, a scalar."""
    return norm.length(torch.broadcast_to(high - low, (1, *shape)))[0]
