"""The set of allowed inputs around a batch: ball, box and mask together, and the grid the answer must lie on.

The search moves a displacement ``d`` (float32 at least) inside the region; ``land`` turns it into the point that is
scored and returned: in the input's own dtype, inside ball, box and mask as float64 sees them, on the grid. The step is
therefore exact where step-then-clip is not: clipping an L2 step to the box wastes the length that the clipped
coordinates could not use, while `Norm.steepest` hands it to the others.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from signstep.engine.keys import RowDraws
from signstep.engine.norms import L0, Linf, Norm
from signstep.engine.threat import ThreatModel
from signstep.engine.tree import Tree, per_row, search_dtype, wide
from signstep.errors import InputError, ScaleError, ThreatError
from signstep.messages import Arg, Blank, Part


class Region(Protocol):
    """What the search needs to know about the allowed set; every method treats rows independently."""

    @property
    def radius(self) -> Tensor:
        """The radius (R,) of each row's ball; inf where only the box limits."""

    def steepest(self, gradient: Tree) -> Tree:
        """The displacement that maximises <gradient, d> over ball, box and mask: FGSM's step in this geometry."""

    def step(self, d: Tree | None, gradient: Tree, length: Tensor) -> Tree:
        """The step s from d (None: the clean input) that maximises <gradient, s>.

        Over a ball of radius ``length`` (R,), box and mask.
        """

    def project(self, d: Tree) -> Tree:
        """The Euclidean projection of a displacement onto ball, box and mask."""

    def land(self, d: Tree) -> Tree:
        """The allowed input at displacement d, in the input's dtype, truncated towards the clean input."""

    def sample(self, draws: RowDraws) -> Tree:
        """A displacement uniform in the ball (in the box when eps is None), then projected."""

    def vertex(self, draws: RowDraws) -> Tree:
        """The steepest displacement in a random direction: random signs for L-infinity."""

    def restrict(self, gradient: Tree) -> Tree:
        """The gradient with zeros where the mask freezes the input, before any normalisation sees it."""

    def frozen(self) -> Tensor:
        """The number of frozen coordinates, (R,) or (1,) int64."""

    def zero(self) -> Tree:
        """The displacement of the clean input."""

    def take(self, index: Tensor) -> "Region":
        """The region of the rows at ``index``; repeats allowed."""

    def resized(self, radius: Tensor) -> "Region":
        """The same region with other radii (R,)."""


class Grid(NamedTuple):
    """Levels low + (k / steps) * (high - low), k = 0..steps: written so, k / 255 comes out to the last bit."""

    steps: int
    low: float
    high: float

    def level(self, u: Tensor) -> Tensor:
        """Where on the grid a value lies, in steps from the lower end; float64, not rounded."""
        return (wide(u) - self.low) * (self.steps / (self.high - self.low))

    def value(self, level: Tensor) -> Tensor:
        """The value of a whole level, float64."""
        return self.low + (level / self.steps) * (self.high - self.low)


@dataclass(frozen=True)
class BallRegion:
    """A norm ball around each row of ``x``, cut with box and mask.

    ``radius`` (R,). The box seen from x (``lower`` <= 0 <= ``upper``) is made when it is first asked for: a single
    L-infinity step needs only the box itself.
    """

    norm: Norm
    x: Tensor
    radius: Tensor
    low: Tensor | None
    high: Tensor | None
    mask: Tensor | None
    grid: Grid | None

    @classmethod
    def around(cls, x: Tensor, threat: ThreatModel) -> "BallRegion":
        """The region that ``threat`` allows around a batch ``x`` (R, ...).

        Raises:
            ScaleError: x leaves the box.
            InputError: x is not floating point, has NaN, or is off the grid.
            ThreatError: mask, box or eps do not fit the shape of x.
        """
        if not x.is_floating_point():
            raise InputError(
                Arg("x", x.dtype, of="dtype"),
                remedy="pass floating point values inside the box, for images x.float() / 255",
            )
        dtype = search_dtype(x.dtype)
        start = x.to(dtype)
        low, high = _end(threat.low, x, dtype, "low"), _end(threat.high, x, dtype, "high")
        _check_inside(start, low, high)
        mask = None if threat.mask is None else _fit(threat.mask.to(x.device), x, "mask")
        if not isinstance(threat.norm, Linf):
            threat.check_diameter(tuple(x.shape[1:]))
        grid = None
        if threat.grid is not None and isinstance(threat.low, float) and isinstance(threat.high, float):
            grid = Grid(threat.grid, threat.low, threat.high)
        region = cls(threat.norm, x, _radius(threat, x, dtype), low, high, mask, grid)
        region._check_grid()
        return region

    @cached_property
    def lower(self) -> Tensor | None:
        """The box's low end seen from x, zero where the mask freezes; None where nothing limits."""
        return self._seen_from_x(self.low, -torch.inf)

    @cached_property
    def upper(self) -> Tensor | None:
        """The box's high end seen from x, likewise."""
        return self._seen_from_x(self.high, torch.inf)

    def steepest(self, gradient: Tree) -> Tensor:
        """The displacement that maximises <gradient, d> over ball, box and mask."""
        return self.norm.steepest(_tensor(gradient), self.radius, self.lower, self.upper)

    def step(self, d: Tree | None, gradient: Tree, length: Tensor) -> Tensor:
        """The step from d that maximises <gradient, s> over a ball of radius ``length``, box and mask.

        From the clean input (d None) in L-infinity the box is left to `project` or `land`, which cut the step exactly
        as the maximiser over both is cut. In L0 ``length`` is how many coordinates are set anew, and the step stays in
        the region (`L0.turned`).
        """
        if isinstance(self.norm, L0):
            here, count = self.zero() if d is None else _tensor(d), torch.minimum(length, self.radius)
            return self.norm.turned(here, _tensor(gradient), count, self.radius, self.lower, self.upper) - here
        if d is None:
            length = torch.minimum(length, self.radius)
            if isinstance(self.norm, Linf) and self.grid is None:
                return self.norm.steepest(self.restrict(gradient), length)
            return self.norm.steepest(_tensor(gradient), length, self.lower, self.upper)
        here = _tensor(d)
        lower = None if self.lower is None else self.lower - here
        upper = None if self.upper is None else self.upper - here
        return self.norm.steepest(_tensor(gradient), length, lower, upper)

    def project(self, d: Tree) -> Tensor:
        """The Euclidean projection of a displacement onto ball, box and mask."""
        return self.norm.project(_tensor(d), self.radius, self.lower, self.upper)

    def land(self, d: Tree) -> Tensor:
        """The allowed input at displacement d, truncated towards the clean input.

        For L-infinity in float32 and float64 this is x + d, clamped to the box: rounding may leave the ball by half a
        unit in the last place. Sums over coordinates would collect such errors, and bfloat16 would leave the ball by
        several per cent, so there every coordinate is rounded towards x after the length was checked in float64.
        """
        d = _tensor(d)
        if self.grid is not None:
            return self._on_grid(d)
        if isinstance(self.norm, Linf) and self.x.dtype == d.dtype:
            return self._boxed(self.x + d)
        return self._towards_x(d)

    def sample(self, draws: RowDraws) -> Tensor:
        """A displacement uniform in the ball, then projected; uniform in the box when eps is None."""
        shape = tuple(self.x.shape[1:])
        dtype = search_dtype(self.x.dtype)
        if bool(torch.isinf(self.radius).any()):
            share = draws.uniform("box", shape).to(dtype)
            if self.lower is None or self.upper is None:
                raise ThreatError(
                    "a uniform start needs a finite eps or a box with two ends", remedy="pass one of them"
                )
            return self.lower + share * (self.upper - self.lower)
        if isinstance(self.norm, L0):
            assert self.lower is not None
            assert self.upper is not None
            low, high = (end.expand(self.x.shape) for end in (self.lower, self.upper))
            return self.norm.scattered(draws, self.radius, low, high)
        unit = self.norm.sample(draws, shape).to(dtype)
        return self.project(unit * per_row(self.radius, unit))

    def vertex(self, draws: RowDraws) -> Tensor:
        """The steepest displacement in a random direction."""
        direction = draws.normal("vertex", tuple(self.x.shape[1:])).to(search_dtype(self.x.dtype))
        return self.steepest(self.restrict(direction))

    def restrict(self, gradient: Tree) -> Tensor:
        """The gradient with zeros where the mask freezes the input."""
        gradient = _tensor(gradient)
        return gradient if self.mask is None else torch.where(self.mask, gradient, 0.0)

    def frozen(self) -> Tensor:
        """The number of frozen coordinates, (R,) or (1,) int64."""
        if self.mask is None:
            return torch.zeros(1, dtype=torch.int64, device=self.x.device)
        return (~self.mask.expand(-1, *self.x.shape[1:])).flatten(1).sum(1)

    def zero(self) -> Tensor:
        """The displacement of the clean input."""
        return torch.zeros((), dtype=search_dtype(self.x.dtype), device=self.x.device).expand(self.x.shape)

    def take(self, index: Tensor) -> "BallRegion":
        """The region of the rows at ``index``."""
        count = len(self.x)

        def pick(part: Tensor | None) -> Tensor | None:
            return part if part is None or part.shape[:1] != (count,) or part.ndim != self.x.ndim else part[index]

        return replace(
            self,
            x=self.x[index],
            radius=self.radius[index],
            low=pick(self.low),
            high=pick(self.high),
            mask=pick(self.mask),
        )

    def resized(self, radius: Tensor) -> "BallRegion":
        """The same region with other radii (R,)."""
        return replace(self, radius=radius.to(self.radius))

    def _seen_from_x(self, end: Tensor | None, open_end: float) -> Tensor | None:
        seen = None if end is None else end - self.x.to(search_dtype(self.x.dtype))
        if self.mask is None:
            return seen
        free = torch.tensor(open_end, dtype=self.radius.dtype, device=self.x.device) if seen is None else seen
        return torch.where(self.mask, free, 0.0)

    def _boxed(self, u: Tensor) -> Tensor:
        """Clamped to the box, in place."""
        if self.low is not None:
            torch.maximum(u, self.low, out=u)
        if self.high is not None:
            torch.minimum(u, self.high, out=u)
        return u

    def _towards_x(self, d: Tensor) -> Tensor:
        # A count does not shrink with the change.
        x, d = wide(self.x), wide(self.project(d) if isinstance(self.norm, L0) else d)
        radius = wide(self.radius)
        length = self.norm.length(d)
        # Only rows that exceed the radius shrink, by a hair more than needed, to cover float64's own rounding.
        shrink = torch.where(length > radius, radius / length * (1 - 1e-14), torch.ones_like(radius))
        d = torch.where(per_row(length > 0, d), d * per_row(shrink, d), d)
        u = (x + d).to(self.x.dtype)
        beyond = (u.double() - x).abs() > d.abs()
        u = torch.where(beyond, torch.nextafter(u, self.x.to(u.device)), u).to(self.x.device)
        if self.low is None and self.high is None:
            return u
        # The box is held in the search dtype; a bound that half precision cannot hold must not round outwards.
        inside = torch.clamp(u.to(search_dtype(u.dtype)), self.low, self.high)
        moved = inside.to(u.dtype)
        outside = (moved.to(inside.dtype) - inside) * torch.sign(inside - self.x.to(inside.dtype)) > 0
        return torch.where(outside, torch.nextafter(moved, self.x), moved)

    def _on_grid(self, d: Tensor) -> Tensor:
        assert self.grid is not None
        ulp = torch.finfo(d.dtype).eps
        change = wide(d) * (self.grid.steps / (self.grid.high - self.grid.low))
        nearest = change.round()
        # A hair short of a line counts as on it: rounding of eps (8/255 may come out as 7.9999995 steps), and of x
        # where the box stops the step.
        slack = ulp * (nearest.abs() + 0.5 * self.grid.steps * self._largest_bound())
        moved = torch.where((change - nearest).abs() <= slack, nearest, change.trunc())
        u = self.grid.value(self.grid.level(self.x).round() + moved).to(device=self.x.device, dtype=self.x.dtype)
        return torch.where(moved.to(self.x.device) == 0, self.x, u)

    def _largest_bound(self) -> float:
        """The largest |value| in the box, in units of the box's width: by how much its rounding counts on the grid."""
        assert self.grid is not None
        return max(abs(self.grid.low), abs(self.grid.high)) / (self.grid.high - self.grid.low)

    def _check_grid(self) -> None:
        if self.grid is None:
            return
        if self.x.dtype not in (torch.float32, torch.float64):
            raise InputError(
                Arg("x", self.x.dtype, of="dtype"),
                f", which cannot hold the {self.grid.steps} steps of the grid",
                remedy=("pass x.float() (and cast inside the model), or drop", Arg("grid")),
            )
        levels = self.grid.level(self.x)
        off = (
            (levels - levels.round()).abs().amax()
            if levels.numel()
            else torch.zeros((), dtype=torch.float32, device="cpu")
        )
        # One unit in the last place, which is also what the checker tolerates: the answer lies on the grid itself.
        last_place = torch.finfo(self.x.dtype).eps * self.grid.steps * self._largest_bound()
        allowed = min(0.5, last_place)
        if float(off) > allowed:
            raise InputError(
                Arg("x"),
                f"is off the grid of {self.grid.steps} steps by up to {float(off):.3g} of a step; with",
                Arg("grid"),
                "the input itself must lie on it",
                remedy=("round it first, or drop", Arg("grid")),
            )


@dataclass(frozen=True)
class ProductRegion:
    """Several inputs, each with a region of its own; a step is taken in all of them at once."""

    parts: Mapping[str, Region]

    @property
    def radius(self) -> Tensor:
        """The largest finite radius (R,) over the inputs; inf where every input is limited by its box alone."""
        radii = torch.stack([part.radius for part in self.parts.values()])
        finite = torch.where(torch.isinf(radii), -torch.inf, radii).amax(0)
        return torch.where(torch.isinf(finite), torch.inf, finite)

    def steepest(self, gradient: Tree) -> Tree:
        """Each input's own exact step: the maximiser over a product of sets is the product of the maximisers."""
        return {name: _tensor(part.steepest(_named(gradient, name))) for name, part in self.parts.items()}

    def step(self, d: Tree | None, gradient: Tree, length: Tensor) -> Tree:
        """Each input's own step; ``length`` is taken relative to the largest radius and scaled to each input's own."""
        share = torch.where(self.radius > 0, length / self.radius, torch.zeros_like(length))
        share = torch.where(torch.isfinite(share), share, torch.ones_like(share))
        return {
            name: _tensor(
                part.step(None if d is None else _named(d, name), _named(gradient, name), share * part.radius)
            )
            for name, part in self.parts.items()
        }

    def project(self, d: Tree) -> Tree:
        """Each input's own projection."""
        return {name: _tensor(part.project(_named(d, name))) for name, part in self.parts.items()}

    def land(self, d: Tree) -> Tree:
        """Each input's own point."""
        return {name: _tensor(part.land(_named(d, name))) for name, part in self.parts.items()}

    def sample(self, draws: RowDraws) -> Tree:
        """Each input's own draw, from a key of its own."""
        return {
            name: _tensor(part.sample(replace(draws, key=draws.key.fold("input", name))))
            for name, part in self.parts.items()
        }

    def vertex(self, draws: RowDraws) -> Tree:
        """Each input's own draw, from a key of its own."""
        return {
            name: _tensor(part.vertex(replace(draws, key=draws.key.fold("input", name))))
            for name, part in self.parts.items()
        }

    def restrict(self, gradient: Tree) -> Tree:
        """Each input's own mask."""
        return {name: _tensor(part.restrict(_named(gradient, name))) for name, part in self.parts.items()}

    def frozen(self) -> Tensor:
        """Frozen coordinates of all inputs together."""
        return torch.stack([part.frozen().expand(len(self.radius)) for part in self.parts.values()]).sum(0)

    def zero(self) -> Tree:
        """The displacement of the clean input."""
        return {name: _tensor(part.zero()) for name, part in self.parts.items()}

    def take(self, index: Tensor) -> "ProductRegion":
        """The region of the rows at ``index``."""
        return ProductRegion({name: part.take(index) for name, part in self.parts.items()})

    def resized(self, radius: Tensor) -> "ProductRegion":
        """All radii scaled so that the largest becomes ``radius``."""
        share = torch.where(self.radius > 0, radius / self.radius, torch.zeros_like(radius))
        return ProductRegion(
            {
                name: part.resized(torch.where(torch.isinf(part.radius), part.radius, share * part.radius))
                for name, part in self.parts.items()
            }
        )


def ball_of(region: Region, name: str) -> BallRegion:
    """The region as a ball, for attacks that are defined for balls alone.

    Raises:
        ThreatError: it has another shape.
    """
    if not isinstance(region, BallRegion):
        raise ThreatError(
            f"{name} is defined for balls around one input, and this threat has a shape of its own",
            remedy="pass a recipe that only takes steepest steps: fgsm, bim, pgd, mi-fgsm, apgd",
        )
    return region


def _tensor(tree: Tree) -> Tensor:
    if not isinstance(tree, Tensor):
        raise TypeError("expected one tensor, got a dict of inputs")
    return tree


def _named(tree: Mapping[str, Tensor] | Tensor, name: str) -> Tensor:
    if isinstance(tree, Tensor):
        raise TypeError("expected a dict of inputs, got one tensor")
    return tree[name]


def _fit(part: Tensor, x: Tensor, name: str, of: str = "shape") -> Tensor:
    """View ``part`` so that it broadcasts over the batch: it may be given for one example or for the whole batch."""
    shaped = part if part.ndim == x.ndim else part.reshape(1, *([1] * (x.ndim - 1 - part.ndim)), *part.shape)
    try:
        if np.broadcast_shapes(tuple(shaped.shape), tuple(x.shape)) == tuple(x.shape):
            return shaped
    except ValueError:
        pass
    raise ThreatError(
        Arg(name, tuple(part.shape), of=of),
        f", which does not fit examples of shape {tuple(x.shape[1:])}",
        remedy="pass one that broadcasts to an example or to the batch",
    )


def _end(end: float | Tensor | None, x: Tensor, dtype: torch.dtype, name: str) -> Tensor | None:
    if end is None:
        return None
    tensor = torch.as_tensor(end, dtype=dtype, device=x.device)
    return tensor if tensor.ndim == 0 else _fit(tensor, x, "box", f"a {name} end of shape")


def _radius(threat: ThreatModel, x: Tensor, dtype: torch.dtype) -> Tensor:
    if threat.eps is None:
        return torch.full((len(x),), torch.inf, dtype=dtype, device=x.device)
    radius = torch.as_tensor(threat.eps, dtype=dtype, device=x.device)
    if radius.ndim and len(radius) != len(x):
        raise ThreatError(
            Arg("eps"),
            f"has {len(radius)} entries for a batch of {len(x)}",
            remedy="pass one number or one for each example",
        )
    return radius.expand(len(x))


def _check_inside(x: Tensor, low: Tensor | None, high: Tensor | None) -> None:
    if x.numel() == 0:
        raise InputError(Arg("x"), f"is empty, shape {tuple(x.shape)}", remedy="pass at least one example")
    smallest, largest = (float(value) for value in torch.aminmax(x.detach()))
    if math.isnan(smallest) or math.isnan(largest):
        raise InputError(
            Arg("x"), "has NaN values", remedy="remove those examples, a model's answer to them says nothing"
        )
    if math.isinf(smallest) or math.isinf(largest):
        raise InputError(Arg("x"), "has infinite values", remedy="remove those examples")
    below = low is not None and (smallest < float(low) if low.ndim == 0 else bool((x < low).any()))
    above = high is not None and (largest > float(high) if high.ndim == 0 else bool((x > high).any()))
    if below or above:
        raise _out_of_scale(smallest, largest, low, high)


def _out_of_scale(smallest: float, largest: float, low: Tensor | None, high: Tensor | None) -> ScaleError:
    """The error about an x that leaves the box; the question in it is the mistake that such values mostly are."""
    text, where = f"runs from {smallest:.4g} to {largest:.4g}", f"outside the box [{_text(low)}, {_text(high)}]"
    remedy: tuple[Part, ...]
    if largest > 4 and largest <= 255 and smallest >= 0:
        question = "is x on the 0..255 scale?"
        remedy = ("pass x / 255, or", Arg("box", (0, 255)), "with eps on that scale")
    elif smallest < 0 and largest <= 1.0001 and smallest >= -1.0001:
        question = "is x scaled to [-1, 1]?"
        remedy = ("pass", Arg("box", (-1, 1)), ", or declare", Arg("mean", 0.5), Arg("std", 0.5), "with")
        remedy = (*remedy, Arg("inputs", "normalised"))
    elif smallest < 0:
        question = f"values reach {largest:.4g}: normalised?"
        remedy = ("pass", Arg("mean", Blank("...")), Arg("std", Blank("...")), "with", Arg("inputs", "normalised"))
        remedy = (*remedy, "if the loader yields normalised batches (threat models speak raw units), or")
        remedy = (*remedy, Arg("box", None), "if the input has no bounds")
    else:
        question = ""
        remedy = ("pass the box that the inputs live in,", Arg("box", Blank("low", "high")), ", or")
        remedy = (*remedy, Arg("box", None), "if they have no bounds")
    return ScaleError(Arg("x"), f"{text}, {where}{': ' if question else ''}{question}", remedy=remedy)


def _text(end: Tensor | None) -> str:
    if end is None:
        return "open"
    return "per feature" if end.ndim else f"{float(end):.6g}"
