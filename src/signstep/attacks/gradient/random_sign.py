"""The control: a random corner of the ball, no gradient."""

from signstep.attacks.recipe import Recipe
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import steepest
from signstep.engine.oracles import Oracle


def random_sign(*, restarts: int = 1, oracle: Oracle | None = None) -> GradientAttack:  # noqa: ARG001
    """A random corner of the ball, no gradient: the control that every attack must beat."""
    return GradientAttack("random-sign", steepest(1.0), 0, "vertex", restarts)


ROW = Recipe("random-sign", random_sign, "random corner of the ball", "control", "none", "1 forward", needs="nothing")
