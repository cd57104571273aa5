"""Does a promise still hold? New clean rows against the rate that was promised, and against the scores it rests on."""

from dataclasses import dataclass

from torch import Tensor

from signstep.data.forms import Data
from signstep.detectors.calibration import Kept, check_rate, kept, two_samples
from signstep.detectors.detector import Detector, refuse_nan
from signstep.detectors.fitting import gathered
from signstep.detectors.seen import Seen
from signstep.engine.keys import content_ids
from signstep.errors import InputError
from signstep.messages import Arg

_ROWS = 256


@dataclass(frozen=True)
class Checked:
    """What new clean rows say of a detector.

    Attributes:
        name: of the detector.
        kept: the beta-binomial test of its rate; of a class-conditional detector that of the class which speaks
            loudest against it, its chance times the number of classes.
        alike: the chance of raw scores as different as these from the calibration's (Kolmogorov-Smirnov).
        level: below which chance something counts as broken or different.
    """

    name: str
    kept: Kept
    alike: float
    level: float

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the promise at this level."""
        return self.kept.holds

    def __str__(self) -> str:
        asked, seen = f"{100 * self.kept.asked:.3g} %", f"{self.kept.flagged} of {self.kept.rows} new clean rows"
        said = (
            f"{self.name}: {asked} promised, {seen} flagged ({100 * self.kept.measured:.2f} %); the chance of so many "
            f"or more is {self.kept.chance:.3g}: "
        )
        said += "nothing speaks against the promise." if self.holds else "the promise does not hold any more."
        if self.alike < self.level:
            return (
                f"{said} The raw scores differ from those of the calibration (chance {self.alike:.3g}): the clean data "
                "has moved, or one of the two sets is contaminated."
            )
        return (
            f"{said} The raw scores are like those of the calibration (chance {self.alike:.3g}). Whether both hold "
            "attacked rows cannot be known from them: p-values of a calibration are uniform whatever is in it."
        )


def check(detector: Detector, clean: Data, rate: float, *, level: float = 0.01) -> Checked:
    """Test a promise on clean rows that the detector has not seen.

    Args:
        detector: calibrated.
        clean: batches ``(x, y)``, or two tensors.
        rate: that was promised.
        level: below which chance a promise counts as broken.

    Raises:
        InputError: there are no rows, or the rate is one that the calibration rows never carried.
    """
    check_rate(rate, "rate")
    check_rate(level, "level")
    detector.need(rate)
    raw, _ = gathered(clean, detector.reader, "clean")
    if detector.guides is not None and bool(_shared(raw, detector.guides)):
        raise InputError(
            Arg("clean"), "holds rows that the detector was calibrated on", remedy="pass rows that it has not seen"
        )
    flags: list[bool] = []
    scores: list[float] = []
    classes: list[int] = []
    with detector.reader.quiet():
        for at in range(0, len(raw), _ROWS):
            seen = Seen(detector.reader, raw[at : at + _ROWS])
            scores += detector.of(seen).tolist()
            flags += (detector.p_values_of(seen) <= rate * (1 + 1e-9)).tolist()
            classes += [0] * len(seen) if detector.classes is None else seen.classes.tolist()
    made = detector.calibration.new_tensor(scores)
    refuse_nan(made, detector.name)
    groups = sorted(set(classes))
    tests = []
    for group in groups:
        here = [flag for flag, label in zip(flags, classes, strict=True) if label == group]
        rows = len(detector.calibration) if detector.classes is None else int((detector.classes == group).sum())
        tests.append(kept(rate, rows, sum(here), len(here), level))
    worst = min(tests, key=lambda test: test.chance)
    chance = min(1.0, worst.chance * len(groups))
    whole = Kept(rate, sum(flags), len(flags), chance, level)
    return Checked(detector.name, whole, two_samples(detector.calibration, made), level)


def _shared(raw: Tensor, guides: Tensor) -> Tensor:
    """Whether a row of the calibration is among these."""
    known = set(content_ids(guides).tolist())
    return raw.new_tensor([identity in known for identity in content_ids(raw).tolist()]).any()
