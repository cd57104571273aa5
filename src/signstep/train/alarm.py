"""Does the model learn the ball, or the one step it is trained on? A collapse is called from evidence, in words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from signstep.engine.statistics import wilson

# Wong et al. (2020, section 5.3) stop where PGD accuracy on one batch falls by 20 points. A share of FGSM accuracy says
# the same of models that are hardly robust yet, and asks for no earlier reading.
_PARTED = 0.5
_FAR = 0.25
_LEARNT = 0.5
_ALIGNED = 0.2


@dataclass(frozen=True)
class Reading:
    """What one look at a running model found, on held-out rows.

    Attributes:
        step: optimiser steps taken.
        epoch: passes over the data, fractional.
        attempt: how many times the run had gone back by then.
        recipe: trained with.
        examples: rows looked at.
        loss: of training, mean over the last steps.
        clean_loss: cross-entropy on the untouched rows.
        adversarial_loss: at FGSM's points.
        clean: rows answered rightly untouched.
        fgsm: at FGSM's points, from the clean point.
        pgd: at PGD's points, an attack that training does not use.
        weight_cosine: between the weight gradients that FGSM's and PGD's points give: how biased the step is that
            training follows.
        input_cosine: mean cosine of the input gradients at a point and at a random neighbour in the ball: how linear
            the loss is there, as one step assumes.
        speed: training rows in a second.
        checking: share of the time that looks have taken so far.
    """

    step: int
    epoch: float
    attempt: int
    recipe: str
    examples: int
    loss: float
    clean_loss: float
    adversarial_loss: float
    clean: int
    fgsm: int
    pgd: int
    weight_cosine: float
    input_cosine: float
    speed: float = 0.0
    checking: float = 0.0

    def share(self, count: int) -> float:
        """Of the rows."""
        return count / self.examples

    def plain(self) -> dict[str, Any]:
        """For JSON and for logs."""
        return asdict(self)


@dataclass(frozen=True)
class Call:
    """What a reading means.

    Attributes:
        collapsed: whether it is a collapse.
        healthy: whether a run may come back to this point; some readings are neither.
        reasons: sentences, the first what decides.
    """

    collapsed: bool
    healthy: bool
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(self.reasons)


def judge(reading: Reading, before: Sequence[Reading] = ()) -> Call:
    """Call a collapse, or not.

    It takes two things. First, PGD accuracy has parted from FGSM accuracy: it is below half of it, and not by the luck
    of a small sample (the 95 % Wilson intervals do not overlap). Second, that is no passing state of a model that is
    slowly becoming robust: FGSM accuracy is above clean accuracy; or PGD accuracy was more than twice as high before,
    when the model was not answering the same class to everything; or PGD accuracy is below a quarter of FGSM accuracy,
    and either half of FGSM's points are answered rightly or the reading before had parted too.

    Args:
        reading: the newest, of a run that trains against an attack.
        before: earlier ones of the same attempt and at the same eps.
    """
    n = reading.examples
    # Who answers everything alike is as right untouched as under any attack.
    peak = max((past.share(past.pgd) for past in before if past.pgd < past.clean), default=0.0)
    lost = reading.share(reading.pgd) < _PARTED * peak and wilson(reading.pgd, n)[1] < peak
    again = bool(before) and parted(before[-1])
    far = reading.pgd < _FAR * reading.fgsm and (reading.share(reading.fgsm) >= _LEARNT or again)
    settled = reading.fgsm > reading.clean or lost or far
    if not (parted(reading) and settled):
        return Call(False, reading.pgd >= _PARTED * reading.fgsm and not _alike(reading))
    first = (
        f"Collapse at step {reading.step}: of {n} held-out rows the model answers {reading.fgsm} rightly under FGSM "
        f"and {reading.pgd} under PGD, so it has learnt the one step and not the ball."
    )
    return Call(True, False, (first, *_corroboration(reading, peak, lost=lost)))


def _alike(reading: Reading) -> bool:
    """A model that answers everything alike: nothing that a run should come back to."""
    return reading.clean == reading.fgsm == reading.pgd and reading.share(reading.clean) < _LEARNT


def parted(reading: Reading) -> bool:
    """PGD accuracy below half of FGSM accuracy, by more than the sample can explain."""
    n = reading.examples
    clear = wilson(reading.pgd, n)[1] < wilson(reading.fgsm, n)[0]
    return reading.pgd < _PARTED * reading.fgsm and clear


def _corroboration(reading: Reading, peak: float, *, lost: bool) -> tuple[str, ...]:
    """Further signs; none of them calls a collapse alone."""
    lines = []
    if reading.adversarial_loss < reading.clean_loss:
        lines.append(
            f"FGSM's points have a loss of {reading.adversarial_loss:.3g}, below the {reading.clean_loss:.3g} of clean "
            "ones: the step carries the label."
        )
    if reading.fgsm > reading.clean:
        lines.append(f"FGSM accuracy is above clean accuracy ({reading.fgsm} and {reading.clean} rows).")
    if lost:
        lines.append(f"PGD accuracy was {100 * peak:.0f} % before.")
    if reading.input_cosine < _ALIGNED:
        lines.append(
            f"Input gradients at a point and at its neighbour have a cosine of {reading.input_cosine:.2f}: the loss is "
            "no longer nearly linear in the ball."
        )
    if reading.weight_cosine < _ALIGNED:
        lines.append(
            f"FGSM's and PGD's weight gradients have a cosine of {reading.weight_cosine:.2f}: training follows another "
            "direction than robustness would."
        )
    return tuple(lines)


@dataclass(frozen=True)
class Event:
    """A collapse, and what was done about it.

    Attributes:
        step: at which it was called.
        reasons: as in `Call`.
        action: "stop", "recover" or "ignore".
        back_to: the step of the healthy point gone back to; None without.
        before: the recipe that collapsed.
        after: the recipe that the run went on with.
    """

    step: int
    reasons: tuple[str, ...]
    action: str
    back_to: int | None
    before: str
    after: str

    def __str__(self) -> str:
        done = {
            "recover": f"Went back to step {self.back_to} and on with {self.after} instead of {self.before}.",
            "stop": "Training stopped there.",
            "ignore": "Training went on, as asked.",
        }[self.action]
        return " ".join((*self.reasons, done))
