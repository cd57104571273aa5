"""Where first order promises nothing: the steepest direction of the curvature."""

import torch

from signstep.attacks.recipe import WHITE_BOX, Recipe
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import Move, State, View
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.region import Region
from signstep.engine.tree import Tree, tree_map


def second_order(*, steps: int = 12, restarts: int = 3, oracle: Oracle | None = None) -> GradientAttack:
    """Power iteration over the whole allowed set: d <- argmax {<gradient(x + d), d'> : d' in S} from random corners.

    At a minimum the gradient at x + d is H d to first order in d, the finite difference of the forces, so that this is
    the power method d <- argmax <H d, d'>: in L2 it turns towards the stiffest mode, in other norms it is the
    generalised method for a convex quadratic (Journée, Nesterov, Richtárik & Sepulchre 2010, algorithm 1). Where the
    energy is convex every step gains; the best point of a run is kept in any case.

    Args:
        steps: iterations of each run.
        restarts: random corners to begin at.
        oracle: where gradients come from.
    """
    return GradientAttack("second-order", _onto(), steps, "vertex", restarts, oracle or Autograd(), keep="best")


def _onto() -> Move:
    """From wherever the run is to the steepest point of the whole set."""

    def init(region: Region, d: Tree) -> State:  # noqa: ARG001
        return None

    def update(gradient: Tree, state: State, view: View) -> tuple[Tree, State]:
        return tree_map(torch.sub, view.region.steepest(gradient), view.d), state

    return Move(init, update)


RECIPES = {
    "second-order": Recipe(
        "second-order",
        second_order,
        "power iteration on the curvature: where forces vanish, the steepest direction all the same",
        "Journée, Nesterov, Richtárik & Sepulchre 2010",
        WHITE_BOX,
        "steps + 1 forward, steps backward",
    )
}
"""Attacks of structures alone."""
