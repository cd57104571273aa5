"""Gradient attacks made to carry over to other models: MI-FGSM with one idea more."""

from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.attacks.transfer.nesterov import nesterov
from signstep.attacks.transfer.smoothing import smoothed
from signstep.attacks.transfer.variance import variance_tuned
from signstep.engine.attack import GradientAttack
from signstep.engine.copies import DiverseInput, ScaledCopies
from signstep.engine.moves import chain, momentum, steepest
from signstep.engine.oracles import Autograd, Oracle


def ni_fgsm(
    *, steps: int = 10, step: float | None = None, decay: float = 1.0, oracle: Oracle | None = None
) -> GradientAttack:
    """MI-FGSM whose gradients are taken where the memory leads to (Lin et al. 2020, section 3.1)."""
    length = step_length(step, 1.0, steps)
    return GradientAttack(
        "ni-fgsm", chain(nesterov(decay, length), steepest(length)), steps, oracle=oracle or Autograd()
    )


def si_fgsm(
    *, steps: int = 10, step: float | None = None, decay: float = 1.0, copies: int = 5, oracle: Oracle | None = None
) -> GradientAttack:
    """NI-FGSM with the mean gradient over x, x/2, x/4, ...: SI-NI-FGSM (Lin et al. 2020, algorithm 1)."""
    length = step_length(step, 1.0, steps)
    move = chain(nesterov(decay, length), steepest(length))
    return GradientAttack("si-fgsm", move, steps, oracle=ScaledCopies(copies, inner=oracle or Autograd()))


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


def ti_fgsm(
    *, steps: int = 10, step: float | None = None, decay: float = 1.0, kernel: int = 0, oracle: Oracle | None = None
) -> GradientAttack:
    """MI-FGSM along smoothed gradients: TI-MI-FGSM (Dong et al. 2019, section 3.3)."""
    move = chain(smoothed(kernel), momentum(decay), steepest(step_length(step, 1.0, steps)))
    return GradientAttack("ti-fgsm", move, steps, oracle=oracle or Autograd())


def vmi_fgsm(
    *,
    steps: int = 10,
    step: float | None = None,
    decay: float = 1.0,
    samples: int = 20,
    reach: float = 1.5,
    oracle: Oracle | None = None,
) -> GradientAttack:
    """MI-FGSM with gradients corrected by their variance nearby (Wang & He 2021, algorithm 1)."""
    move = chain(variance_tuned(samples, reach), momentum(decay), steepest(step_length(step, 1.0, steps)))
    return GradientAttack("vmi-fgsm", move, steps, oracle=oracle or Autograd())


ROWS: tuple[Recipe, ...] = (
    Recipe(
        "ni-fgsm",
        ni_fgsm,
        "MI-FGSM with Nesterov's look-ahead",
        "Lin et al. 2020 (arXiv:1908.06281), section 3.1",
        WHITE_BOX,
        "steps + 1 forwards, steps backwards",
        balls=True,
    ),
    Recipe(
        "si-fgsm",
        si_fgsm,
        "NI-FGSM over scaled copies (SI-NI-FGSM)",
        "Lin et al. 2020 (arXiv:1908.06281), algorithm 1",
        WHITE_BOX,
        "copies * steps + 1 forwards, copies * steps backwards",
        balls=True,
    ),
    Recipe(
        "di-fgsm",
        di_fgsm,
        "MI-FGSM through random resizing and padding; images",
        "Xie et al. 2019 (arXiv:1803.06978), section 3.3",
        WHITE_BOX,
        "steps + 1 forwards and one for each step that looks fooled, steps backwards",
        images=True,
    ),
    Recipe(
        "ti-fgsm",
        ti_fgsm,
        "MI-FGSM along smoothed gradients; images",
        "Dong et al. 2019 (arXiv:1904.02884), section 3.3",
        WHITE_BOX,
        "steps + 1 forwards, steps backwards",
        images=True,
    ),
    Recipe(
        "vmi-fgsm",
        vmi_fgsm,
        "MI-FGSM with variance tuning",
        "Wang & He 2021 (arXiv:2103.15571), algorithm 1",
        WHITE_BOX,
        "steps + (steps - 1) * samples backwards, one forward more",
    ),
)
