"""Variance tuning: the gradient corrected by how it differed around the last point."""

import torch

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import Move, State, View, chain, momentum, steepest
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.region import Region
from signstep.engine.tree import Tree, tree_map
from signstep.errors import InputError
from signstep.messages import Arg


def variance_tuned(samples: int, reach: float) -> Move:
    """gradient + v_t, with v_(t+1) = mean over N neighbours of their gradients, minus the gradient at x_t.

    Wang & He 2021 (arXiv:2103.15571), equation 4 and algorithm 1. The neighbours are uniform in the region's ball of
    radius ``reach * eps`` around x_t (the paper's cube, for L-infinity), and kept in the box and the mask, which the
    paper leaves: no model is asked about an input that cannot exist. v_0 = 0, and the last step's own v is not
    computed, since nobody would use it.

    Args:
        samples: N; the paper takes 20.
        reach: of the neighbourhood, relative to eps; the paper takes 1.5.

    Raises:
        InputError: no samples, or a reach that is not above 0.
    """
    if samples < 1:
        raise InputError(Arg("samples", samples), remedy="pass the number of neighbours, at least 1; 20 is the paper's")
    if not reach > 0:
        raise InputError(Arg("reach", reach), remedy="pass the size of the neighbourhood relative to eps, above 0")

    def init(region: Region, d: Tree) -> State:  # noqa: ARG001
        return tree_map(torch.zeros_like, d)

    def update(gradient: Tree, state: State, view: View) -> tuple[Tree, State]:
        assert state is not None
        assert not isinstance(state, tuple)
        tuned = tree_map(torch.add, gradient, state)
        if view.probe is None or view.draws is None:
            return tuned, state
        near = view.region.resized(view.region.radius * reach)
        wide = view.region.resized(view.region.radius * (1 + reach))
        total = tree_map(torch.zeros_like, gradient)
        for number in range(samples):
            offset = near.sample(view.draws.of(number))
            point = wide.land(wide.project(tree_map(torch.add, view.d, offset)))
            total = tree_map(torch.add, total, view.probe(point, number))
        return tuned, tree_map(lambda whole, here: whole / samples - here, total, gradient)

    return Move(init, update, probes=samples)


def vmi_fgsm(
    *,
    steps: int = 10,
    step: float | None = None,
    decay: float = 1.0,
    samples: int = 20,
    reach: float = 1.5,
    oracle: Oracle | None = None,
) -> GradientAttack:
    """MI-FGSM with gradients corrected by their variance nearby (Wang & He 2021, algorithm 1)."""
    move = chain(variance_tuned(samples, reach), momentum(decay), steepest(step_length(step, 1.0, steps)))
    return GradientAttack("vmi-fgsm", move, steps, oracle=oracle or Autograd())


ROW = Recipe(
    "vmi-fgsm",
    vmi_fgsm,
    "MI-FGSM with variance tuning",
    "Wang & He 2021 (arXiv:2103.15571), algorithm 1",
    WHITE_BOX,
    "steps + (steps - 1) * samples backwards, one forward more",
)
