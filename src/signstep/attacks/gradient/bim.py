"""The basic iterative method: FGSM in small steps."""

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import steepest
from signstep.engine.oracles import Autograd, Oracle


def bim(*, steps: int = 10, step: float | None = None, oracle: Oracle | None = None) -> GradientAttack:
    """Iterated FGSM from the clean input, steps of ``eps / steps`` (Kurakin, Goodfellow & Bengio 2016, section 2.2)."""
    return GradientAttack("bim", steepest(step_length(step, 1.0, steps)), steps, oracle=oracle or Autograd())


ROW = Recipe(
    "bim",
    bim,
    "basic iterative method (I-FGSM)",
    "Kurakin, Goodfellow & Bengio 2016 (arXiv:1607.02533), section 2.2",
    WHITE_BOX,
    "steps + 1 forwards, steps backwards",
)
