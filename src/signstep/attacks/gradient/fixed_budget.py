"""Fixed-budget gradient attacks: each paper a few lines over the one loop."""

from signstep.attacks.gradient.apgd import adaptive
from signstep.attacks.gradient.smooth import Smooth
from signstep.attacks.recipe import WHITE_BOX, Recipe, step_length
from signstep.engine.attack import GradientAttack
from signstep.engine.moves import chain, momentum, shrinking, steepest
from signstep.engine.oracles import Autograd, Oracle
from signstep.errors import InputError
from signstep.messages import Arg

_JITTER = 0.3


def fgsm(*, oracle: Oracle | None = None) -> GradientAttack:
    """One steepest step of the whole radius from the clean input (Goodfellow, Shlens & Szegedy 2014, section 4)."""
    return GradientAttack("fgsm", steepest(1.0), steps=1, oracle=oracle or Autograd())


def fgsm_rs(*, step: float = 1.25, restarts: int = 1, oracle: Oracle | None = None) -> GradientAttack:
    """A uniform start, one step of ``step * eps``, projection (Wong, Rice & Kolter 2020, algorithm 3)."""
    return GradientAttack("fgsm-rs", steepest(step), 1, "uniform", restarts, oracle or Autograd())


def bim(*, steps: int = 10, step: float | None = None, oracle: Oracle | None = None) -> GradientAttack:
    """Iterated FGSM from the clean input, steps of ``eps / steps`` (Kurakin, Goodfellow & Bengio 2016, section 2.2)."""
    return GradientAttack("bim", steepest(step_length(step, 1.0, steps)), steps, oracle=oracle or Autograd())


def mi_fgsm(
    *, steps: int = 10, step: float | None = None, decay: float = 1.0, oracle: Oracle | None = None
) -> GradientAttack:
    """BIM along a memory of gradients, each divided by its L1 length (Dong et al. 2018, algorithm 1)."""
    move = chain(momentum(decay), steepest(step_length(step, 1.0, steps)))
    return GradientAttack("mi-fgsm", move, steps, oracle=oracle or Autograd())


def pgd(
    *, steps: int = 20, step: float | None = None, restarts: int = 1, oracle: Oracle | None = None
) -> GradientAttack:
    """Projected steepest ascent from uniform starts, steps of ``2.5 * eps / steps`` (Madry et al. 2018, sec. 2.1)."""
    return GradientAttack(
        "pgd", steepest(step_length(step, 2.5, steps)), steps, "uniform", restarts, oracle or Autograd()
    )


def random_sign(*, restarts: int = 1, oracle: Oracle | None = None) -> GradientAttack:  # noqa: ARG001
    """A random corner of the ball, no gradient: the control that every attack must beat."""
    return GradientAttack("random-sign", steepest(1.0), 0, "vertex", restarts)


def apgd(
    *, steps: int = 100, restarts: int = 1, loss: str = "own", targets: int = 0, oracle: Oracle | None = None
) -> GradientAttack:
    """Auto-PGD: no step size to choose, back to the best point when the loss stops rising (Croce & Hein 2020, sec. 3).

    ``loss``: "ce", "margin" or "dlr"; "own" climbs what the audit was asked to climb. ``targets=9`` leads each row
    towards the nine closest classes one after the other, as APGD-T does.
    """
    step_length(None, 1.0, steps)
    if loss not in ("own", "ce", "margin", "dlr"):
        raise InputError(
            Arg("loss", loss),
            remedy="pass 'ce', 'margin' or 'dlr', or 'own' for that of the audit",
            where="apgd",
        )
    climbed = None if loss == "own" else loss
    return GradientAttack(
        "apgd",
        adaptive(steps),
        steps,
        "uniform",
        restarts,
        oracle or Autograd(),
        loss=climbed,
        targets=targets,
        keep="best",
    )


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


def smooth_pgd(
    *,
    steps: int = 10,
    step: float = 1.0,
    restarts: int = 1,
    start: str = "clean",
    jitter: float = _JITTER,
    targets: int = 0,
    soft: float = 2.0,
    sharp: float = 40.0,
    oracle: Oracle | None = None,
) -> GradientAttack:
    """PGD on the margin with the rectifiers softened in the backward pass, and a step that shrinks to a twentieth.

    ``start``: "clean"; "uniform"; or "best", the best point of earlier attacks with uniform noise of ``jitter * eps``.
    Backward pass: Athalye, Carlini & Wagner 2018, section 4.1; see `attacks.gradient.smooth`.
    """
    step_length(None, 1.0, steps)
    if start not in ("clean", "uniform", "best"):
        raise InputError(Arg("start", start), remedy="pass 'clean', 'uniform' or 'best'", where="smooth-pgd")
    if not 0 < soft <= sharp:
        raise InputError(Arg("soft", soft), Arg("sharp", sharp), remedy="pass 0 < soft <= sharp", where="smooth-pgd")
    if jitter != _JITTER and start != "best":
        raise InputError(
            Arg("jitter", jitter),
            f"belongs to the start 'best', and the start is {start!r}",
            remedy="pass both, or no jitter",
            where="smooth-pgd",
        )
    return GradientAttack(
        "smooth-pgd",
        shrinking(step, step / 20),
        steps,
        start,  # type: ignore[arg-type]
        restarts,
        Smooth(soft, sharp, inner=oracle or Autograd()),
        loss="margin",
        targets=targets,
        keep="best",
        jitter=jitter if start == "best" else 0.0,
    )


ROWS = (
    Recipe("random-sign", random_sign, "random corner of the ball", "control", "none", "1 forward", needs="nothing"),
    Recipe(
        "fgsm",
        fgsm,
        "fast gradient sign method; FGM in other norms",
        "Goodfellow, Shlens & Szegedy 2014 (arXiv:1412.6572), section 4",
        WHITE_BOX,
        "2 forwards, 1 backward",
    ),
    Recipe(
        "fgsm-rs",
        fgsm_rs,
        "FGSM from a uniform random start",
        "Wong, Rice & Kolter 2020 (arXiv:2001.03994), algorithm 3",
        WHITE_BOX,
        "2 forwards, 1 backward",
    ),
    Recipe(
        "bim",
        bim,
        "basic iterative method (I-FGSM)",
        "Kurakin, Goodfellow & Bengio 2016 (arXiv:1607.02533), section 2.2",
        WHITE_BOX,
        "steps + 1 forwards, steps backwards",
    ),
    Recipe(
        "mi-fgsm",
        mi_fgsm,
        "momentum iterative FGSM",
        "Dong et al. 2018 (arXiv:1710.06081), algorithm 1",
        WHITE_BOX,
        "steps + 1 forwards, steps backwards",
    ),
    Recipe(
        "pgd",
        pgd,
        "projected gradient descent",
        "Madry et al. 2018 (arXiv:1706.06083), section 2.1",
        WHITE_BOX,
        "steps + 1 forwards, steps backwards",
    ),
    Recipe(
        "apgd",
        apgd,
        "auto-PGD: adaptive step, momentum, best point",
        "Croce & Hein 2020 (arXiv:2003.01690), section 3",
        WHITE_BOX,
        "steps + 2 forwards, steps backwards; with targets those of each, and 1 forward",
    ),
    Recipe(
        "odi-pgd",
        odi_pgd,
        "PGD from output-diversified starts, on the margin",
        "Tashiro, Song & Ermon 2020 (arXiv:2003.06878), section 3",
        WHITE_BOX,
        "steps + diverse + 2 forwards, steps + diverse backwards",
    ),
    Recipe(
        "mt-pgd",
        mt_pgd,
        "multi-targeted PGD on the margin",
        "Gowal et al. 2019 (arXiv:1910.09338), section 3",
        WHITE_BOX,
        "targets * (steps + 1) + 1 forwards, targets * steps backwards",
    ),
    Recipe(
        "smooth-pgd",
        smooth_pgd,
        "PGD through softened rectifiers, on the margin",
        "backward pass: Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 4.1",
        WHITE_BOX,
        "steps + 2 forwards, steps backwards; with targets those of each, and 1 forward",
    ),
)
