"""NES and SPSA: the gradient estimated from scores, for the moves that gradient attacks are made of."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from signstep.attacks.recipe import step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.keys import Key, RowDraws
from signstep.engine.moves import steepest
from signstep.engine.oracles import Oracle
from signstep.engine.problem import Problem
from signstep.engine.region import BallRegion, ProductRegion, Region, ball_of
from signstep.engine.tasks import Score
from signstep.engine.tree import Tree, leaves, per_row, search_dtype, tree_map
from signstep.errors import InputError
from signstep.messages import Arg

_ROOM = 2**22  # coordinates of queries that are asked at once


@dataclass(frozen=True)
class Differences:
    """Antithetic differences of the loss along random directions.

        g = 1/n * sum over n directions v of (f(u + sigma v) - f(u - sigma v)) / (2 sigma) * v

    Sources: Ilyas et al. 2018 (arXiv:1804.08598), section 2.2, for normal directions (NES); Uesato et al. 2018
    (arXiv:1802.05666), section 4, for directions of random signs (SPSA). Differs: queries stay inside box and mask,
    where an outside model may refuse them; sums run over both queries of a direction, also where the box cuts one off.
    At the bottom of a valley, where no query of a row is worse than its point, both sides of a direction cancel
    (a regression whose label is the model's own answer begins there); the best query is then the estimate.

    Attributes:
        samples: queries of an estimate, two for each direction; one more scores the point itself.
        sigma: length of the probe in input units, in each coordinate.
        directions: "normal" (NES) or "signs" (SPSA).
        region: where queries may lie, set by the attack.
    """

    samples: int = 50
    sigma: float = 0.001
    directions: Literal["normal", "signs"] = "normal"
    region: Region | None = None
    sees_victim: bool = True
    exact: bool = True
    warms: bool = False
    draws: bool = True
    looks: int = 1

    def __post_init__(self) -> None:
        if self.samples < 2 or self.samples % 2:
            raise InputError(
                Arg("samples", self.samples), remedy="pass an even number of queries for each estimate, at least 2"
            )
        if not self.sigma > 0:
            raise InputError(Arg("sigma", self.sigma), remedy="pass the length of a probe in input units, above 0")

    @property
    def gradients(self) -> int:
        """Forward passes of an estimate and the score of its point; there are no backward passes."""
        return self.samples + 1

    def at(self, progress: float) -> "Differences":  # noqa: ARG002
        """Always itself."""
        return self

    def around(self, region: Region) -> "Differences":
        """The same estimate inside the region's box and mask."""
        return replace(self, region=region)

    @torch.no_grad()
    def look(self, problem: Problem, point: Tree, key: Key) -> Score:
        """One forward pass."""
        return problem(point, key)

    @torch.no_grad()
    def __call__(self, problem: Problem, point: Tree, key: Key, cotangent: Tensor | None = None) -> tuple[Score, Tree]:
        """The score at ``point``, and the estimate, in the precision of the search."""
        score = problem(point, key.fold("centre"))
        count, pairs = len(problem.ids), self.samples // 2
        size = sum(leaf.numel() for leaf in leaves(point))
        group = max(1, min(pairs, _ROOM // max(1, size)))
        draws = key.draws(problem.ids, leaves(point)[0].device)
        total = tree_map(lambda leaf: torch.zeros_like(leaf, dtype=search_dtype(leaf.dtype)), point)
        valley = _Valley(_value(score, cotangent, 1)[0], total)
        for start in range(0, pairs, group):
            along = [self._direction(draws, point, number) for number in range(start, min(pairs, start + group))]
            asked = [self._probe(point, v, sign) for v in along for sign in (1.0, -1.0)]
            everyone = torch.arange(count, device=problem.ids.device, dtype=torch.int64).repeat(len(asked))
            value = _value(problem.take(everyone)(_stacked(asked), key.fold("probe", start)), cotangent, len(asked))
            slope = (value[0::2] - value[1::2]) / (2 * self.sigma * pairs)
            # Added one by one: the order of a sum must not depend on how many are asked at once.
            for v, own in zip(along, slope, strict=True):
                total = tree_map(lambda sum_, part, own=own: sum_ + per_row(own.to(part.dtype), part) * part, total, v)
            for number, v in enumerate(along):
                valley.add(v, value[2 * number], value[2 * number + 1])
        return score, valley.instead_of(total)

    def _direction(self, draws: RowDraws, point: Tree, number: int) -> Tree:
        def drawn(leaf: Tensor, purpose: str) -> Tensor:
            shape = tuple(leaf.shape[1:])
            if self.directions == "normal":
                return draws.normal(purpose, shape).to(search_dtype(leaf.dtype))
            return torch.where(draws.uniform(purpose, shape) < 0.5, 1.0, -1.0).to(search_dtype(leaf.dtype))

        if isinstance(point, Tensor):
            direction: Tree = drawn(point, f"direction {number}")
        else:
            direction = {name: drawn(leaf, f"direction {number} of {name}") for name, leaf in point.items()}
        return direction if self.region is None else self.region.restrict(direction)

    def _probe(self, point: Tree, v: Tree, sign: float) -> Tree:
        asked = tree_map(lambda leaf, part: leaf.to(part.dtype) + sign * self.sigma * part, point, v)
        if self.region is not None:
            asked = _boxed(self.region, asked)
        return tree_map(lambda leaf, like: leaf.to(like.dtype), asked, point)


class _Valley:
    """Of each row the best query so far, and whether none of them was worse than the point they surround."""

    def __init__(self, centre: Tensor, zero: Tree) -> None:
        self._centre, self._best, self._along = centre, centre, zero
        self._all = torch.ones_like(centre, dtype=torch.bool)

    def add(self, v: Tree, ahead: Tensor, behind: Tensor) -> None:
        """The values (R,) on both sides of the point in the direction v."""
        self._all = self._all & (torch.minimum(ahead, behind) >= self._centre)
        value = torch.maximum(ahead, behind)
        better = value > self._best
        side = torch.where(ahead >= behind, 1.0, -1.0).to(self._centre.dtype)
        self._best = torch.where(better, value, self._best)

        def newer(part: Tensor, kept: Tensor) -> Tensor:
            return torch.where(per_row(better, part), per_row(side.to(part.dtype), part) * part, kept)

        self._along = tree_map(newer, v, self._along)

    def instead_of(self, estimate: Tree) -> Tree:
        """The estimate, in valleys the direction of the best query."""
        return tree_map(lambda part, along: torch.where(per_row(self._all, part), along, part), estimate, self._along)


def _value(score: Score, cotangent: Tensor | None, asked: int) -> Tensor:
    """What is differentiated, (asked, R)."""
    if cotangent is None:
        return score.loss.reshape(asked, -1)
    weights = cotangent.repeat(asked, 1)
    return (torch.where(weights != 0, score.ways, 0.0) * weights).sum(1).reshape(asked, -1)


def _stacked(points: list[Tree]) -> Tree:
    return tree_map(lambda *parts: torch.cat(parts), points[0], *points[1:])


def _boxed(region: Region, point: Tree) -> Tree:
    if isinstance(region, ProductRegion):
        assert isinstance(point, dict)
        return {
            name: _clamped(ball_of(region.parts[name], "a gradient estimated from differences"), part)
            for name, part in point.items()
        }
    assert isinstance(point, Tensor)
    return _clamped(ball_of(region, "a gradient estimated from differences"), point)


def _clamped(region: BallRegion, point: Tensor) -> Tensor:
    return point if region.low is None and region.high is None else torch.clamp(point, region.low, region.high)


def nes(
    *,
    queries: int = 5000,
    samples: int = 50,
    sigma: float = 0.001,
    step: float | None = None,
    oracle: Oracle | None = None,  # noqa: ARG001
) -> GradientAttack:
    """Sign steps along a gradient estimated in normal directions (Ilyas et al. 2018), steps of ``2.5 * eps / steps``.

    As many steps as ``queries`` pays for, each of ``samples`` queries and one more.
    """
    return _estimated("nes", "normal", queries, samples, sigma, step)


def spsa(
    *,
    queries: int = 5000,
    samples: int = 50,
    sigma: float = 0.01,
    step: float | None = None,
    oracle: Oracle | None = None,  # noqa: ARG001
) -> GradientAttack:
    """Sign steps along a gradient estimated in directions of random signs (Uesato et al. 2018); else as `nes`."""
    return _estimated("spsa", "signs", queries, samples, sigma, step)


def _estimated(
    name: str, directions: Literal["normal", "signs"], queries: int, samples: int, sigma: float, step: float | None
) -> GradientAttack:
    if queries < 3:
        raise InputError(
            Arg("queries", queries), remedy="pass at least 3, one for the point and two for a direction", where=name
        )
    source = Differences(min(samples, (queries - 1) // 2 * 2), sigma, directions)
    steps = queries // source.gradients
    return GradientAttack(name, steepest(step_length(step, 2.5, steps)), steps, oracle=source)
