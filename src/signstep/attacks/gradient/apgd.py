"""APGD's step: momentum towards the sign step, and a step size that halves when the loss stops rising."""

import torch
from torch import Tensor

from signstep.attacks.gradient.sparse_step import sparse as sparse_steps
from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import Move, State, View, rose
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.region import Region
from signstep.engine.tree import Tree, per_row, tree_map
from signstep.errors import InputError
from signstep.messages import Arg

_MOMENTUM = 0.75
_RISES = 0.75


def adaptive(steps: int) -> Move:
    """Croce & Hein 2020 (arXiv:2003.01690), algorithm 1: halve the step and return to the best point, or go on.

    z = P(x_k + eta s(g)), x_(k+1) = P(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_(k-1))), s the region's steepest step of
    length 1 and eta = 2 eps at first. At checkpoints (22 % of the steps, then in windows that shrink by 3 % to 6 %) a
    row halves eta and returns to its best point if less than 75 % of the window's steps raised the loss, or if neither
    eta nor the best loss changed since the last checkpoint.
    """
    windows = _windows(steps)

    def init(region: Region, d: Tree) -> State:
        nothing = torch.zeros_like(region.radius)
        # eta; rises in this window; loss before; best loss at the last checkpoint; whether eta was halved there.
        return (2 * region.radius, nothing, nothing - torch.inf, nothing - torch.inf, nothing, d)

    def update(gradient: Tree, state: State, view: View) -> tuple[Tree, State]:
        eta, rises, before, best_then, halved, previous = _parts(state)
        assert view.best is not None
        if view.step > 0:
            rises = rises + rose(view.loss, before).to(rises.dtype)
        here = view.d
        if view.step in windows:
            stuck = (halved == 0) & ~rose(view.best.loss, best_then)
            halve = (rises <= _RISES * windows[view.step]) | stuck
            eta = torch.where(halve, eta / 2, eta)
            halved, best_then, rises = halve.to(rises.dtype), view.best.loss, torch.zeros_like(rises)
            here = _choose(halve, view.best.d, here)
            gradient = _choose(halve, view.best.gradient, gradient)
        ahead = view.region.project(tree_map(torch.add, here, view.region.step(here, gradient, eta)))
        arrived = ahead if view.step == 0 else view.region.project(tree_map(_drifted, here, ahead, previous))
        change = tree_map(torch.sub, arrived, view.d)
        return change, (eta, rises, view.loss, best_then, halved, here)

    return Move(init, update, remembers=True)


def _windows(steps: int) -> dict[int, int]:
    """Steps at which a row may halve its step size, with the number of steps since the one before."""
    window, shortest, shrink = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    found, step = {}, window
    while step < steps:
        found[step] = window
        window = max(window - shrink, shortest)
        step += window
    return found


def _drifted(here: Tensor, ahead: Tensor, previous: Tensor) -> Tensor:
    return here + _MOMENTUM * (ahead - here) + (1 - _MOMENTUM) * (here - previous)


def _choose(rows_: Tensor, chosen: Tree, other: Tree) -> Tree:
    return tree_map(lambda a, b: torch.where(per_row(rows_, b), a, b), chosen, other)


def _parts(state: State) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tree]:
    if not isinstance(state, tuple) or len(state) != 6:
        raise TypeError("the state of an adaptive move has six parts")
    return state  # type: ignore[return-value]


def apgd(
    *,
    steps: int = 100,
    restarts: int = 1,
    loss: str = "own",
    targets: int = 0,
    sparse: float = 0.0,
    oracle: Oracle | None = None,
) -> GradientAttack:
    """Auto-PGD: no step size to choose, back to the best point when the loss stops rising (Croce & Hein 2020, sec. 3).

    ``loss``: "ce", "margin" or "dlr"; "own" climbs what the audit was asked to climb. ``targets=9`` leads each row
    towards the nine closest classes one after the other, as APGD-T does. ``sparse=0.2`` takes the steps of L1-APGD
    instead (Croce & Hein 2021), which move a fifth of the coordinates at first; for threats in L1 alone.
    """
    step_length(None, 1.0, steps)
    if not 0 <= sparse <= 1:
        raise InputError(
            Arg("sparse", sparse),
            remedy="pass the share of the coordinates that the first steps move, at most 1, or 0 for ordinary steps",
            where="apgd",
        )
    if loss not in ("own", "ce", "margin", "dlr"):
        raise InputError(
            Arg("loss", loss),
            remedy="pass 'ce', 'margin' or 'dlr', or 'own' for that of the audit",
            where="apgd",
        )
    climbed = None if loss == "own" else loss
    return GradientAttack(
        "apgd",
        sparse_steps(steps, sparse) if sparse else adaptive(steps),
        steps,
        "uniform",
        restarts,
        oracle or Autograd(),
        loss=climbed,
        targets=targets,
        keep="best",
    )


ROW = Recipe(
    "apgd",
    apgd,
    "auto-PGD: adaptive step, momentum, best point",
    "Croce & Hein 2020 (arXiv:2003.01690), section 3",
    WHITE_BOX,
    "steps + 2 forwards, steps backwards; with targets those of each, and 1 forward",
)
