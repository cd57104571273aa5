"""Points that fill an allowed set evenly, and the best of them for each row."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from signstep.engine.keys import RowDraws
from signstep.engine.norms import Linf
from signstep.engine.region import BallRegion, Region
from signstep.engine.tree import Tree, leaves, per_row, put, take, tree_map

MOST = 100  # free numbers: in more dimensions a sample of any size one can pay for fills nothing
_CORNERS = 4  # every so many points is a corner of the set instead: extremes often lie there


def filling(region: Region, draws: RowDraws, number: int, count: int) -> Tree:
    """The displacement (R, ...) of point ``number`` of ``count``, each row's sequence moved by its own random shift.

    In a box of up to `MOST` numbers a scrambled Sobol sequence (Owen 1998), shifted modulo 1 (Cranley & Patterson
    1976); in balls of another shape, and in more dimensions, uniform draws. Every fourth point is a random corner.
    """
    if number % _CORNERS == _CORNERS - 1:
        return region.vertex(draws.of("corner", number))
    box = _box(region)
    if box is None:
        return region.sample(draws.of("point", number))
    low, high = box
    size = low[0].numel()
    shift = draws.uniform("shift", (size,))
    # Of the points of the sequence none is left out: without every fourth one a quarter of the set would stay empty.
    even = (_sobol(size, count)[number - number // _CORNERS].to(shift.device) + shift) % 1
    return low + even.reshape(low.shape).to(low.dtype) * (high - low)


def _box(region: Region) -> tuple[Tensor, Tensor] | None:
    """The ends of the set as seen from the rows, where it is a box of few numbers."""
    if not isinstance(region, BallRegion) or region.x[0].numel() > MOST:
        return None
    if not isinstance(region.norm, Linf) and bool(torch.isfinite(region.radius).any()):
        return None
    reach = per_row(region.radius, region.x)
    low, high = -reach.expand(region.x.shape), reach.expand(region.x.shape)
    low = low if region.lower is None else torch.maximum(low, region.lower)
    high = high if region.upper is None else torch.minimum(high, region.upper)
    # An open side with no radius: `sample` says what is wrong.
    return (low, high) if bool((torch.isfinite(low) & torch.isfinite(high)).all()) else None


@lru_cache(maxsize=8)
def _sobol(size: int, count: int) -> Tensor:
    """Points of the unit cube (count, size), the same in every process; not to be written to."""
    engine = SobolEngine(size, scramble=True, seed=0)  # type: ignore[no-untyped-call]
    drawn: Tensor = engine.draw(1 << max(0, count - 1).bit_length(), dtype=torch.float32)  # whole: balanced
    return drawn[:count]


class Leaders:
    """The ``places`` best points (R, ...) of each row by the loss, the best first."""

    def __init__(self, clean: Tree, loss: Tensor, places: int) -> None:
        self.points = [tree_map(torch.clone, clean) for _ in range(places)]
        self.losses = [torch.full_like(loss, -torch.inf) for _ in range(places)]

    def meet(self, index: Tensor, point: Tree, loss: Tensor) -> None:
        """Let the points of the rows at ``index`` take their places; NaN takes none."""
        loss = torch.nan_to_num(loss, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        for place, kept in enumerate(self.losses):
            old, here = take(self.points[place], index), kept[index]
            better = loss > here
            put(self.points[place], index, either(better, point, old))
            kept[index] = torch.where(better, loss, here)
            point, loss = either(better, old, point), torch.where(better, here, loss)


def nudged(region: Region, d: Tree, step: Tensor, draws: RowDraws, *, together: bool) -> Tree:
    """``d`` moved the share ``step`` (R,) of the way to a random point of the set: in one coordinate, or in all."""
    there = region.sample(draws.of("to"))
    change = tree_map(lambda to, here: per_row(step, here).to(here.dtype) * (to.to(here.dtype) - here), there, d)
    if not together:
        flat = torch.cat([part.flatten(1) for part in leaves(change)], 1)
        noise = draws.uniform("coordinate", (flat.shape[1],))
        chosen = torch.where(flat != 0, noise, -1.0).argmax(1, keepdim=True)
        alone = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, value=True)
        masks = iter(torch.split(alone, [part[0].numel() for part in leaves(change)], 1))
        change = tree_map(lambda part: torch.where(next(masks).reshape(part.shape), part, 0.0), change)
    return region.project(tree_map(torch.add, d, change))


def either(rows: Tensor, one: Tree, other: Tree) -> Tree:
    """``one`` in the rows (R,) bool, elsewhere ``other``."""
    return tree_map(lambda a, b: torch.where(per_row(rows, b), a, b), one, other)
