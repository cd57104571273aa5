"""NI-FGSM over scaled copies: SI-NI-FGSM."""

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.attacks.transfer.ni_fgsm import nesterov
from signstep.engine.attack import GradientAttack
from signstep.engine.copies import ScaledCopies
from signstep.engine.moves import chain, steepest
from signstep.engine.oracles import Autograd, Oracle


def si_fgsm(
    *, steps: int = 10, step: float | None = None, decay: float = 1.0, copies: int = 5, oracle: Oracle | None = None
) -> GradientAttack:
    """NI-FGSM with the mean gradient over x, x/2, x/4, ...: SI-NI-FGSM (Lin et al. 2020, algorithm 1)."""
    length = step_length(step, 1.0, steps)
    move = chain(nesterov(decay, length), steepest(length))
    return GradientAttack("si-fgsm", move, steps, oracle=ScaledCopies(copies, inner=oracle or Autograd()))


ROW = Recipe(
    "si-fgsm",
    si_fgsm,
    "NI-FGSM over scaled copies (SI-NI-FGSM)",
    "Lin et al. 2020 (arXiv:1908.06281), algorithm 1",
    WHITE_BOX,
    "copies * steps + 1 forwards, copies * steps backwards",
    balls=True,
)
