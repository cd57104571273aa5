"""The region of a table's threat: every displacement leads to a record that could have been written down."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from signstep.domains.tabular.climb import climbed
from signstep.domains.tabular.directions import Moves
from signstep.domains.tabular.encode import Layout
from signstep.domains.tabular.reach import Set, budgets
from signstep.engine.keys import RowDraws
from signstep.engine.tree import Tree
from signstep.errors import InputError, ThreatError
from signstep.messages import Arg


@dataclass(frozen=True, eq=False)
class TabularRegion:
    """The records within ``radius`` budgets of wide rows ``x`` (R, width) float64; see `signstep.engine.region.Region`.

    A displacement that the search holds is a feasible record minus x; one that it proposes is led back to one.
    """

    layout: Layout
    moves: Moves
    x: Tensor
    start: Tensor
    radius: Tensor

    @classmethod
    def around(cls, layout: Layout, moves: Moves, x: Tensor, radius: Tensor) -> "TabularRegion":
        """The region around wide rows.

        Raises:
            InputError: x is not float64, or no record: a mixed category, a value out of bounds, a broken relation.
            ThreatError: the radius does not fit.
        """
        if x.ndim != 2 or x.shape[1] != layout.width:
            raise ThreatError(
                Arg("x", tuple(x.shape), of="shape"),
                f", the schema's records have {layout.width} columns",
                remedy="pass Layout.widen()",
            )
        if x.dtype != torch.float64:
            raise InputError(
                Arg("x", x.dtype, of="dtype"), ", which cannot hold amounts to the last unit", remedy="pass x.double()"
            )
        if radius.shape != (len(x),):
            raise ThreatError(
                Arg("eps", tuple(radius.shape), of="shape"),
                f"for {len(x)} records",
                remedy="pass a number or one for each",
            )
        start = layout.narrow(x)
        region = cls(layout, moves, x, start, radius)
        whole = Set.around(layout, moves, start, None)
        low = x.new_tensor([feature.low for feature in layout.schema.features])
        high = x.new_tensor([feature.high for feature in layout.schema.features])
        inside = ((start >= low) & (start <= high)).all(1) & (layout.widen(start) == x).all(1)
        bad = (~(inside & whole.holds(start[:, layout.numeric]))).nonzero().squeeze(1)
        if len(bad):
            raise InputError(
                f"row {int(bad[0])} of the batch is no record of the schema (bounds, one category each, relations)",
                remedy=("leave such rows out, read_records() with", Arg("skip_bad", True)),
            )
        return region

    def steepest(self, gradient: Tree) -> Tensor:
        """The record with the largest linear gain within the budgets, minus x."""
        return self._minus(climbed(self._allowed(self.radius), self.start, _plain(gradient)))

    def step(self, d: Tree | None, gradient: Tree, length: Tensor) -> Tensor:
        """The step from d with the largest linear gain: numbers by at most ``length`` budgets, but one unit at least.

        Of whole numbers and categories, which can only jump, the best move: as large a share of them as ``length`` is
        of the radius. With a limit on changes a feature may also go back to x, so that a better one takes its place.
        """
        gain = _plain(gradient)
        share = torch.where(self.radius > 0, length / self.radius, 1.0).clamp_max(1.0)
        if d is None and bool((share >= 1).all()):
            return self.steepest(gain)
        here = self.start if d is None else self._record(_plain(d))
        allowed = self._allowed(self.radius)
        numeric = self.layout.numeric
        value = here[:, numeric]
        unit = value.new_tensor([feature.step for feature in self.layout.schema.features])[numeric]
        reach = budgets(self.layout, self.start)[:, numeric] * length.unsqueeze(1)
        safe = torch.where(unit > 0, unit, 1.0)
        reach = torch.where(unit > 0, torch.floor(reach / safe + 1e-9).clamp_min(1.0) * safe, reach)
        allowed = replace(
            allowed, low=torch.maximum(allowed.low, value - reach), high=torch.minimum(allowed.high, value + reach)
        )
        if allowed.changes:
            return self._minus(self._exchanged(allowed, here, gain)) - self._minus(here)
        jumping = int((unit > 0).sum()) + len(self.layout.groups)
        discrete = torch.ceil(share * jumping - 1e-9).long().clamp_min(1)
        return self._minus(climbed(allowed, here, gain, discrete)) - self._minus(here)

    def project(self, d: Tree) -> Tensor:
        """A record near x + d, minus x; what is a record already stays.

        Each number goes to the nearest allowed one, each group to its largest entry. Where that breaks a relation or
        the limit on changes, the search goes from x towards it as far as both allow.
        """
        return self._minus(self._record(_plain(d)))

    def land(self, d: Tree) -> Tensor:
        """The record at displacement d."""
        return self.layout.widen(self._record(_plain(d)))

    def sample(self, draws: RowDraws) -> Tensor:
        """A record drawn by setting each number uniformly and each group at random, then led into the set."""
        allowed = self._allowed(self.radius)
        value = draws.uniform("numbers", (len(self.layout.numeric),)).to(self.x)
        drawn = self.start.clone()
        drawn[:, self.layout.numeric] = allowed.low + value * (allowed.high - allowed.low)
        share = draws.uniform("categories", (len(self.layout.groups),)).to(self.x)
        for column, (number, _, width) in enumerate(self.layout.groups):
            level = (share[:, column] * width).floor().clamp_max(width - 1)
            drawn[:, number] = torch.where(allowed.open_groups[:, column], level, drawn[:, number])
        if allowed.changes:
            # Which features keep their draw: as many as may, at random.
            order = draws.uniform("which", (drawn.shape[1],)).to(self.x).argsort(1)
            rank = torch.empty_like(order).scatter_(
                1, order, torch.arange(drawn.shape[1], dtype=torch.int64, device="cpu").expand_as(order)
            )
            drawn = torch.where(rank < allowed.changes, drawn, self.start)
        return self._minus(self._led(allowed, self._snapped(allowed, drawn)))

    def vertex(self, draws: RowDraws) -> Tensor:
        """The steepest record in a random direction, in which each feature counts alike."""
        direction = draws.normal("vertex", (self.layout.width,)).to(self.x)
        size = budgets(self.layout, self.start)[:, self.layout.numeric]
        scale = torch.ones_like(self.x)
        scale[:, self.layout.numeric_columns] = torch.where(size > 0, 1 / size.clamp_min(1e-300), 0.0)
        return self.steepest(direction * scale)

    def restrict(self, gradient: Tree) -> Tensor:
        """The gradient with zeros in the columns of features that cannot change."""
        return torch.where(self._frozen_columns(), 0.0, _plain(gradient))

    def frozen(self) -> Tensor:
        """The number of frozen columns (1,)."""
        return self._frozen_columns().sum().reshape(1)

    def zero(self) -> Tensor:
        """The displacement of the record itself."""
        return torch.zeros_like(self.x)

    def take(self, index: Tensor) -> "TabularRegion":
        """The region of the rows at ``index``."""
        return replace(self, x=self.x[index], start=self.start[index], radius=self.radius[index])

    def resized(self, radius: Tensor) -> "TabularRegion":
        """The same region with other radii (R,)."""
        return replace(self, radius=radius.to(self.radius))

    def reachable(self) -> Set:
        """The set itself, for searches that move from record to record."""
        return self._allowed(self.radius)

    def _allowed(self, radius: Tensor) -> Set:
        return Set.around(self.layout, self.moves, self.start, radius)

    def _minus(self, decoded: Tensor) -> Tensor:
        return self.layout.widen(decoded) - self.x

    def _record(self, d: Tensor) -> Tensor:
        allowed = self._allowed(self.radius)
        return self._led(allowed, self._snapped(allowed, self.layout.narrow(self.x + d)))

    def _snapped(self, allowed: Set, decoded: Tensor) -> Tensor:
        """Numbers clamped and rounded to their steps, closed groups put back."""
        numeric = self.layout.numeric
        snapped = decoded.clone()
        value, start = decoded[:, numeric], self.start[:, numeric]
        unit = value.new_tensor([feature.step for feature in self.layout.schema.features])[numeric]
        safe = torch.where(unit > 0, unit, 1.0)
        value = torch.where(unit > 0, start + torch.round((value - start) / safe) * safe, value)
        snapped[:, numeric] = torch.minimum(torch.maximum(value, allowed.low), allowed.high)
        for column, (number, _, _) in enumerate(self.layout.groups):
            snapped[:, number] = torch.where(allowed.open_groups[:, column], snapped[:, number], self.start[:, number])
        return snapped

    def _led(self, allowed: Set, wanted: Tensor) -> Tensor:
        """What of ``wanted`` (R, F) relations and the limit on changes let through."""
        numeric = self.layout.numeric
        amiss = ~allowed.holds(wanted[:, numeric])
        if allowed.changes:
            amiss = amiss | (allowed.changed(wanted) > allowed.changes)
        if not bool(amiss.any()):
            return wanted
        index = amiss.nonzero().squeeze(1)
        here, goal = allowed.take(index), wanted[index]
        value, start = goal[:, numeric], here.start[:, numeric]
        size = budgets(self.layout, here.start)[:, numeric].clamp_min(1e-12)
        pull = goal.new_zeros((len(index), self.layout.width))
        pull[:, self.layout.numeric_columns] = (value - start).sign() / size
        for number, first, width in self.layout.groups:
            changed = (goal[:, number] != here.start[:, number]).to(pull)
            onto = torch.nn.functional.one_hot(goal[:, number].long(), width).to(pull)
            pull[:, first : first + width] = onto * changed.unsqueeze(1)
        between = replace(here, low=torch.minimum(value, start), high=torch.maximum(value, start))
        return wanted.index_copy(0, index, climbed(between, here.start, pull))

    def _exchanged(self, near: Set, here: Tensor, gain: Tensor) -> Tensor:
        """The best record whose features are each as in x or within ``near``, counted from x, not from ``here``."""
        numeric = self.layout.numeric
        slope, start = gain[:, self.layout.numeric_columns], self.start[:, numeric]
        target = torch.where(slope > 0, near.high, torch.where(slope < 0, near.low, here[:, numeric]))
        between = replace(near, low=torch.minimum(target, start), high=torch.maximum(target, start))
        return climbed(between, self.start, gain)

    def _frozen_columns(self) -> Tensor:
        frozen = torch.zeros(self.layout.width, dtype=torch.bool, device="cpu")
        for feature, start in zip(self.layout.schema.features, self.layout.starts, strict=True):
            if feature.change == "none" or feature.allowance.amount == 0:
                frozen[start : start + feature.width] = True
        return frozen


def _plain(tree: Tree) -> Tensor:
    if not isinstance(tree, Tensor):
        raise TypeError("expected one tensor, got a dict of inputs")
    return tree
