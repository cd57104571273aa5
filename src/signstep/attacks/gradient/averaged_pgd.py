"""Gradients averaged over a small ball: where the loss is rough, one gradient says little and the mean of many more.

Source: the gradient estimate by which Tramèr, Carlini, Brendel & Madry 2020 (arXiv:2002.08347), section 5, break k-WTA,
taken over the white-box gradients of the neighbours instead of their losses.
"""

import torch

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import Move, State, View, chain, steepest
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.region import Region
from signstep.engine.tree import Tree, tree_map, unit_l1
from signstep.errors import InputError
from signstep.messages import Arg


def averaged(samples: int, reach: float) -> Move:
    """The mean of unit gradients here and at ``samples`` points uniform in a ball of ``reach * eps``.

    The neighbours are kept in the box and the mask. The last step, after which nobody looks, takes the gradient alone.

    Raises:
        InputError: no samples, or a reach that is not above 0.
    """
    if samples < 1:
        raise InputError(Arg("samples", samples), remedy="pass the number of neighbours, at least 1")
    if not reach > 0:
        raise InputError(Arg("reach", reach), remedy="pass the size of the neighbourhood relative to eps, above 0")

    def init(region: Region, d: Tree) -> State:  # noqa: ARG001
        return None

    def update(gradient: Tree, state: State, view: View) -> tuple[Tree, State]:
        total = unit_l1(gradient)
        if view.probe is None or view.draws is None:
            return total, state
        near = view.region.resized(view.region.radius * reach)
        wide = view.region.resized(view.region.radius * (1 + reach))
        for number in range(samples):
            offset = near.sample(view.draws.of(number))
            point = wide.land(wide.project(tree_map(torch.add, view.d, offset)))
            total = tree_map(torch.add, total, unit_l1(view.probe(point, number)))
        return total, state

    return Move(init, update, probes=samples)


def averaged_pgd(
    *,
    steps: int = 20,
    step: float | None = None,
    restarts: int = 1,
    samples: int = 8,
    reach: float = 0.25,
    oracle: Oracle | None = None,
) -> GradientAttack:
    """PGD along gradients averaged over neighbours (Tramèr et al. 2020, section 5)."""
    move = chain(averaged(samples, reach), steepest(step_length(step, 2.5, steps)))
    return GradientAttack("averaged-pgd", move, steps, "uniform", restarts, oracle or Autograd())


ROW = Recipe(
    "averaged-pgd",
    averaged_pgd,
    "PGD along gradients averaged over a small ball",
    "Tramèr, Carlini, Brendel & Madry 2020 (arXiv:2002.08347), section 5",
    WHITE_BOX,
    "steps + (steps - 1) * samples backwards, one forward more",
)
