"""APGD's step for L1: signs of the largest gradients alone, of as many coordinates as the best point needs."""

import torch
from torch import Tensor

from signstep.engine.batch_invariant import lines
from signstep.engine.moves import Move, State, View
from signstep.engine.norms import L1, first
from signstep.engine.region import ProductRegion, Region, ball_of
from signstep.engine.tree import Tree, leaves, per_row, tree_map
from signstep.errors import ThreatError

_EVERY = 0.04  # of the steps: how often k and eta are set anew
_FEWER = 1.5  # k is the best point's number of changes over this
_FALLEN = 0.95  # that number has fallen where it is below this share of the last one
_SLOWER, _SLOWEST = 1.5, 10.0


def sparse(steps: int, share: float) -> Move:
    """Croce & Hein 2021 (arXiv:2103.01208), section 4 and algorithm 1: sparse steps of adaptive size in L1.

    d <- P(d + eta sign(g_k) / k), g_k the k largest |g_i|; k = ``share`` of the coordinates and eta = eps at first.
    Every 4 % of the steps k becomes the number of coordinates that differ at the best point, over 1.5. Where that
    number has fallen by more than 5 % the row goes back to its best point with eta = eps; elsewhere eta falls by 1.5,
    to eps / 10 at the least. P is the exact projection onto ball and box.
    """
    every = max(int(_EVERY * steps), 1)

    def init(region: Region, d: Tree) -> State:
        _refuse(region)
        size = torch.full_like(region.radius, sum(part[0].numel() for part in leaves(d)))
        return region.radius, size * share, size

    def update(gradient: Tree, state: State, view: View) -> tuple[Tree, State]:
        eta, count, before = _parts(state)
        assert view.best is not None
        here = view.d
        if view.step and view.step % every == 0:
            now = torch.stack([(lines(part) != 0).sum(1) for part in leaves(view.best.d)]).sum(0).to(eta.dtype)
            fallen = now < _FALLEN * before
            slower = torch.maximum(eta / _SLOWER, view.region.radius / _SLOWEST)
            eta, count, before = torch.where(fallen, view.region.radius, slower), now / _FEWER, now
            here = _chosen(fallen, view.best.d, here)
            gradient = _chosen(fallen, view.best.gradient, gradient)
        step = _signs(gradient, count, eta)
        arrived = view.region.project(tree_map(torch.add, here, step))
        return tree_map(torch.sub, arrived, view.d), (eta, count, before)

    return Move(init, update, remembers=True)


def _signs(gradient: Tree, count: Tensor, eta: Tensor) -> Tree:
    """eta sign(g_k) / k, over the coordinates of all inputs together; at least one coordinate moves."""
    parts = [lines(part) for part in leaves(gradient)]
    flat = torch.cat([part.abs() for part in parts], 1)
    most = first(flat, count.clamp_min(1.0), flat > 0)
    length = eta / most.sum(1).clamp_min(1).to(eta.dtype)
    shares = torch.split(most, [part.shape[1] for part in parts], 1)
    masks = dict(zip(map(id, leaves(gradient)), shares, strict=True))

    def moved(part: Tensor) -> Tensor:
        return torch.where(masks[id(part)].reshape(part.shape), part.sign() * per_row(length, part), 0.0)

    return tree_map(moved, gradient)


def _refuse(region: Region) -> None:
    """See that every input is measured in L1.

    Raises:
        ThreatError: one is not.
    """
    for part in region.parts.values() if isinstance(region, ProductRegion) else (region,):
        ball = ball_of(part, "apgd:sparse")
        if not isinstance(ball.norm, L1):
            raise ThreatError(
                f"norm {ball.norm.name}: sparse steps of apgd are defined for l1",
                remedy="pass a threat in l1, or leave sparse at 0",
            )


def _chosen(rows: Tensor, one: Tree, other: Tree) -> Tree:
    return tree_map(lambda a, b: torch.where(per_row(rows, b), a, b), one, other)


def _parts(state: State) -> tuple[Tensor, Tensor, Tensor]:
    if not isinstance(state, tuple) or len(state) != 3:
        raise TypeError("the state of a sparse move has three parts")
    return state  # type: ignore[return-value]
