"""Projected gradient descent: projected steepest ascent from uniform starts."""

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import steepest
from signstep.engine.oracles import Autograd, Oracle


def pgd(
    *, steps: int = 20, step: float | None = None, restarts: int = 1, oracle: Oracle | None = None
) -> GradientAttack:
    """Projected steepest ascent from uniform starts, steps of ``2.5 * eps / steps`` (Madry et al. 2018, sec. 2.1)."""
    return GradientAttack(
        "pgd", steepest(step_length(step, 2.5, steps)), steps, "uniform", restarts, oracle or Autograd()
    )


ROW = Recipe(
    "pgd",
    pgd,
    "projected gradient descent",
    "Madry et al. 2018 (arXiv:1706.06083), section 2.1",
    WHITE_BOX,
    "steps + 1 forwards, steps backwards",
)
