"""MI-FGSM through random resizing and padding."""

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.copies import DiverseInput
from signstep.engine.moves import chain, momentum, steepest
from signstep.engine.oracles import Autograd, Oracle


def di_fgsm(
    *,
    steps: int = 10,
    step: float | None = None,
    decay: float = 1.0,
    prob: float = 0.5,
    resize: float = 0.9,
    oracle: Oracle | None = None,
) -> GradientAttack:
    """MI-FGSM through random resizing and padding: M-DI2-FGSM (Xie et al. 2019, section 3.3)."""
    move = chain(momentum(decay), steepest(step_length(step, 1.0, steps)))
    return GradientAttack("di-fgsm", move, steps, oracle=DiverseInput(prob, resize, inner=oracle or Autograd()))


ROW = Recipe(
    "di-fgsm",
    di_fgsm,
    "MI-FGSM through random resizing and padding; images",
    "Xie et al. 2019 (arXiv:1803.06978), section 3.3",
    WHITE_BOX,
    "steps + 1 forwards and one for each step that looks fooled, steps backwards",
    images=True,
)
