"""PGD on the margin to one class at a time."""

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import steepest
from signstep.engine.oracles import Autograd, Oracle


def mt_pgd(
    *,
    steps: int = 20,
    step: float | None = None,
    restarts: int = 1,
    targets: int = 9,
    oracle: Oracle | None = None,
) -> GradientAttack:
    """PGD on the margin to one class at a time, the closest first (Gowal et al. 2019, section 3)."""
    move = steepest(step_length(step, 2.5, steps))
    return GradientAttack(
        "mt-pgd", move, steps, "uniform", restarts, oracle or Autograd(), loss="margin", targets=targets
    )


ROW = Recipe(
    "mt-pgd",
    mt_pgd,
    "multi-targeted PGD on the margin",
    "Gowal et al. 2019 (arXiv:1910.09338), section 3",
    WHITE_BOX,
    "targets * (steps + 1) + 1 forwards, targets * steps backwards",
)
