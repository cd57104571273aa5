"""FGSM from a uniform random start."""

from signstep.attacks.recipe import WHITE_BOX, Recipe
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import steepest
from signstep.engine.oracles import Autograd, Oracle


def fgsm_rs(*, step: float = 1.25, restarts: int = 1, oracle: Oracle | None = None) -> GradientAttack:
    """A uniform start, one step of ``step * eps``, projection (Wong, Rice & Kolter 2020, algorithm 3)."""
    return GradientAttack("fgsm-rs", steepest(step), 1, "uniform", restarts, oracle or Autograd())


ROW = Recipe(
    "fgsm-rs",
    fgsm_rs,
    "FGSM from a uniform random start",
    "Wong, Rice & Kolter 2020 (arXiv:2001.03994), algorithm 3",
    WHITE_BOX,
    "2 forwards, 1 backward",
)
