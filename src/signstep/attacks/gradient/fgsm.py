"""FGSM: one steepest step of the whole radius."""

from signstep.attacks.recipe import WHITE_BOX, Recipe
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import steepest
from signstep.engine.oracles import Autograd, Oracle


def fgsm(*, oracle: Oracle | None = None) -> GradientAttack:
    """One steepest step of the whole radius from the clean input (Goodfellow, Shlens & Szegedy 2014, section 4)."""
    return GradientAttack("fgsm", steepest(1.0), steps=1, oracle=oracle or Autograd())


ROW = Recipe(
    "fgsm",
    fgsm,
    "fast gradient sign method; FGM in other norms",
    "Goodfellow, Shlens & Szegedy 2014 (arXiv:1412.6572), section 4",
    WHITE_BOX,
    "2 forwards, 1 backward",
)
