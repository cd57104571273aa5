"""PGD from starts that spread in the space of outputs."""

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import steepest
from signstep.engine.oracles import Autograd, Oracle


def odi_pgd(
    *,
    steps: int = 20,
    step: float | None = None,
    restarts: int = 1,
    diverse: int = 2,
    oracle: Oracle | None = None,
) -> GradientAttack:
    """PGD from starts that spread in the space of outputs, not of inputs (Tashiro, Song & Ermon 2020, section 3)."""
    move = steepest(step_length(step, 2.5, steps))
    return GradientAttack(
        "odi-pgd", move, steps, "uniform", restarts, oracle or Autograd(), loss="margin", diverse=diverse
    )


ROW = Recipe(
    "odi-pgd",
    odi_pgd,
    "PGD from output-diversified starts, on the margin",
    "Tashiro, Song & Ermon 2020 (arXiv:2003.06878), section 3",
    WHITE_BOX,
    "steps + diverse + 2 forwards, steps + diverse backwards",
)
