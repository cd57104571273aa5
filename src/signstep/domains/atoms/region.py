"""A ball of displacements in which some atoms keep to planes or lines.

An atom's displacement d obeys <n, d> = 0 for each of its normals n: a subspace of 0 to 3 dimensions. L2 balls do not
see a rotation, so there the exact step is the ball's own step along the projected gradient. The L-infinity ball does:
its section with a plane is a polygon, and the step goes to one of its corners.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from signstep.domains.atoms.freedom import Freedom
from signstep.engine.defaults import plain_tensor
from signstep.engine.keys import RowDraws
from signstep.engine.norms import Linf
from signstep.engine.region import BallRegion
from signstep.engine.tree import Tree

# Below this share of the largest a projected gradient is rounding, and its sign must not move an atom.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Spaces:
    """For each structure (S) and place (N) the subspace in which an atom may move.

    Attributes:
        projector: (S, N, 3, 3), onto the subspace.
        rank: (S, N), its dimensions.
        vector: (S, N, 3), the line's direction where the rank is 1, the plane's normal where it is 2, else zero.
        tags: (S,), what the last line of a row calls the structures.
    """

    projector: Tensor
    rank: Tensor
    vector: Tensor
    tags: Tensor

    @classmethod
    def of(cls, freedoms: Sequence[Freedom], tags: Sequence[int], places: int) -> "Spaces":
        """From what holds the structures; places beyond a structure's atoms cannot move."""
        projector = torch.zeros(len(freedoms), places, 3, 3, dtype=torch.float64, device="cpu")
        rank = torch.zeros(len(freedoms), places, dtype=torch.int64, device="cpu")
        vector = torch.zeros(len(freedoms), places, 3, dtype=torch.float64, device="cpu")
        for number, freedom in enumerate(freedoms):
            for atom, basis in enumerate(freedom.bases()):
                projector[number, atom] = plain_tensor(basis.T @ basis)
                rank[number, atom] = len(basis)
                if len(basis) == 1:
                    vector[number, atom] = plain_tensor(basis[0].copy())
                elif len(basis) == 2:
                    vector[number, atom] = plain_tensor(np.cross(basis[0], basis[1]))
        return cls(projector, rank, vector, torch.tensor(tags, dtype=torch.float64, device="cpu"))

    def around(self, x: Tensor) -> "Spaces":
        """Of the structures that the rows (R, N, 3) are, one for each."""
        numbers = (x[:, -1:, 0].double() == self.tags).long().argmax(1)
        return Spaces(self.projector[numbers], self.rank[numbers], self.vector[numbers], self.tags[numbers])


@dataclass(frozen=True)
class MaskedBall(BallRegion):
    """A ball without a box in which some coordinates stay: the ball's own closed forms along the free ones."""

    def steepest(self, gradient: Tree) -> Tensor:
        """The allowed displacement with the largest <gradient, d>."""
        return self.norm.steepest(self.restrict(gradient), self.radius)

    def step(self, d: Tree | None, gradient: Tree, length: Tensor) -> Tensor:
        """The step along what is free with the largest <gradient, s>, of at most ``length``."""
        if d is None:
            length = torch.minimum(length, self.radius)
        return self.norm.steepest(self.restrict(gradient), length)

    def project(self, d: Tree) -> Tensor:
        """The Euclidean projection of a displacement."""
        return self.norm.project(self.restrict(d), self.radius)


@dataclass(frozen=True)
class HeldRegion:
    """A masked ball around each row, cut with planes and lines for single atoms.

    Attributes:
        ball: norm, radius and what is fixed along the axes.
        spaces: of all structures; a row's last line says which one it is.
    """

    ball: BallRegion
    spaces: Spaces

    @property
    def radius(self) -> Tensor:
        """The radius (R,)."""
        return self.ball.radius

    def steepest(self, gradient: Tree) -> Tensor:
        """The allowed displacement with the largest <gradient, d>."""
        return self.step(None, gradient, self.ball.radius)

    def step(self, d: Tree | None, gradient: Tree, length: Tensor) -> Tensor:
        """The step along the subspaces with the largest <gradient, s>, of at most ``length``."""
        if d is None:
            length = torch.minimum(length, self.ball.radius)
        along = self.restrict(gradient)
        if not isinstance(self.ball.norm, Linf):
            return self.ball.norm.steepest(along, length)
        here = self._here()
        corner = along.sign()
        line = here.vector * (here.vector * along).sum(2, keepdim=True).sign() / _peak(here.vector)
        corner = torch.where((here.rank == 1)[:, :, None], line, corner)
        corner = torch.where((here.rank == 2)[:, :, None], _corner(along, here.vector), corner)
        return self._masked(corner * length[:, None, None])

    def project(self, d: Tree) -> Tensor:
        """The Euclidean projection of a displacement."""
        assert isinstance(d, Tensor)
        flat = self._flattened(d)
        if not isinstance(self.ball.norm, Linf):
            return self.ball.norm.project(flat, self.ball.radius)
        here, radius = self._here(), self.ball.radius[:, None, None]
        inside = flat.clamp(-radius, radius)
        reach = (here.vector * flat).sum(2, keepdim=True)
        most = radius / _peak(here.vector)
        inside = torch.where((here.rank == 1)[:, :, None], here.vector * reach.clamp(-most, most), inside)
        inside = torch.where((here.rank == 2)[:, :, None], _clipped(flat, here.vector, radius), inside)
        return self._masked(inside)

    def land(self, d: Tree) -> Tensor:
        """The positions at a displacement."""
        return self.ball.land(d)

    def sample(self, draws: RowDraws) -> Tensor:
        """A displacement uniform in the ball, then projected."""
        return self.project(self.ball.sample(draws))

    def vertex(self, draws: RowDraws) -> Tensor:
        """The steepest displacement in a random direction."""
        direction = draws.normal("vertex", tuple(self.ball.x.shape[1:])).to(self.ball.radius.dtype)
        return self.steepest(direction)

    def restrict(self, gradient: Tree) -> Tensor:
        """The part of the gradient along the subspaces, without what is only rounding."""
        assert isinstance(gradient, Tensor)
        along = self._flattened(gradient)
        least = _ROUNDING * along.abs().flatten(1).amax(1)
        return torch.where(along.abs() > least[:, None, None], along, 0.0)

    def frozen(self) -> Tensor:
        """Coordinates fixed along the axes, padding included, (R,)."""
        return self.ball.frozen()

    def zero(self) -> Tensor:
        """No displacement."""
        return self.ball.zero()

    def take(self, index: Tensor) -> "HeldRegion":
        """The region of the rows at ``index``."""
        return replace(self, ball=self.ball.take(index))

    def resized(self, radius: Tensor) -> "HeldRegion":
        """The same region with other radii (R,)."""
        return replace(self, ball=self.ball.resized(radius))

    def _here(self) -> Spaces:
        return self.spaces.around(self.ball.x)

    def _flattened(self, d: Tensor) -> Tensor:
        """The part of each atom's vector in its subspace."""
        return self._masked((self._here().projector @ d[..., None])[..., 0])

    def _masked(self, d: Tensor) -> Tensor:
        return self.ball.restrict(d)


def _peak(vector: Tensor) -> Tensor:
    """The largest component (R, N, 1), 1 where the vector is zero."""
    peak = vector.abs().amax(2, keepdim=True)
    return torch.where(peak > 0, peak, 1.0)


def _corner(gradient: Tensor, normal: Tensor) -> Tensor:
    """The corner c of the polygon |c_i| <= 1, <n, c> = 0 with the largest <g, c>, (R, N, 3).

    c_i = sign(g_i - t n_i) for the multiplier t of the plane (Karush, Kuhn and Tucker): t is the median of g_i / n_i
    weighted by |n_i|, and the coordinate at the median takes what the plane asks of it.
    """
    weight = normal.abs()
    free = weight == 0
    breaks = torch.where(free, torch.inf, gradient / torch.where(free, 1.0, normal))
    order = breaks.argsort(2)
    sorted_weight = weight.gather(2, order)
    total = sorted_weight.sum(2, keepdim=True)
    place = (2 * sorted_weight.cumsum(2) < total).sum(2, keepdim=True).clamp_max(2)
    middle = order.gather(2, place)
    multiplier = breaks.gather(2, middle)
    corner = torch.where(free, gradient, normal.sign() * (breaks - multiplier)).sign()
    corner = corner.scatter(2, middle, 0.0)
    rest = -(corner * normal).sum(2, keepdim=True)
    pivot = normal.gather(2, middle)
    corner = corner.scatter(2, middle, rest / torch.where(pivot == 0, 1.0, pivot))
    # Where the gradient has no part in the plane there is nothing to gain.
    return torch.where(gradient.abs().amax(2, keepdim=True) > 0, corner.clamp(-1, 1), 0.0)


def _clipped(d: Tensor, normal: Tensor, radius: Tensor) -> Tensor:
    """The point of |p_i| <= radius, <n, p> = 0 nearest to d, (R, N, 3): clip(d - t n) with the t that meets the plane.

    <n, clip(d - t n)> falls as t grows; t is halved in as far as float64 goes.
    """
    most = (d.abs().amax(2, keepdim=True) + radius) * 2 / _least(normal)
    low, high = -most, most
    for _ in range(120):
        middle = (low + high) / 2
        above = ((d - middle * normal).clamp(-radius, radius) * normal).sum(2, keepdim=True) > 0
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (d - high * normal).clamp(-radius, radius)


def _least(normal: Tensor) -> Tensor:
    """The smallest component that is not zero, (R, N, 1), 1 where there is none."""
    size = normal.abs()
    least = torch.where(size > 0, size, torch.inf).amin(2, keepdim=True)
    return torch.where(torch.isfinite(least), least, 1.0)
