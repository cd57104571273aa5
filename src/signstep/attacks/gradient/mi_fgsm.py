"""Momentum iterative FGSM."""

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import chain, momentum, steepest
from signstep.engine.oracles import Autograd, Oracle


def mi_fgsm(
    *, steps: int = 10, step: float | None = None, decay: float = 1.0, oracle: Oracle | None = None
) -> GradientAttack:
    """BIM along a memory of gradients, each divided by its L1 length (Dong et al. 2018, algorithm 1)."""
    move = chain(momentum(decay), steepest(step_length(step, 1.0, steps)))
    return GradientAttack("mi-fgsm", move, steps, oracle=oracle or Autograd())


ROW = Recipe(
    "mi-fgsm",
    mi_fgsm,
    "momentum iterative FGSM",
    "Dong et al. 2018 (arXiv:1710.06081), algorithm 1",
    WHITE_BOX,
    "steps + 1 forwards, steps backwards",
)
