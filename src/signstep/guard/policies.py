"""What the guard asks of a policy; `signstep.Policy` answers so, and anything else that does will do.

A policy is kept as a file for each detector in the folder of a calibration. Where the model is no longer the one that
they were calibrated with, `signstep.detectors.load` refuses; the guard reads them all the same, and begins in shadow.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from signstep.detectors.detector import Detector
from signstep.detectors.rule import checked_options
from signstep.detectors.seen import Reader
from signstep.detectors.storage import read_detector
from signstep.detectors.table import DETECTORS
from signstep.errors import InputError, LoadError
from signstep.guard.band import Band
from signstep.guard.calibration import Calibration
from signstep.model.declaration import Model
from signstep.registry import typed_only


class Decisions(Protocol):
    """What a policy says of inputs (R, ...)."""

    @property
    def action(self) -> Any:
        """(R,): 0 accept, 1 review, 2 reject."""

    @property
    def p_value(self) -> Any:
        """(R,): of all detectors together."""

    @property
    def by(self) -> Any:
        """(R,): the detector that gave it, by its place."""

    @property
    def answers(self) -> Any:
        """(R, K): the scores of the model, from the same passes; None where no detector asked it."""


@runtime_checkable
class Policy(Protocol):
    """Decides about inputs."""

    @property
    def reject(self) -> float:
        """The rate at which clean inputs are rejected."""

    @property
    def review(self) -> float:
        """The rate at which they are sent to a person."""

    @property
    def detectors(self) -> Sequence[Any]:
        """Those that it asks."""

    def decide(self, x: Tensor) -> Decisions:
        """About inputs (R, ...)."""


def policy_band(policy: Policy, calibration: Calibration | None, level: float = 0.9) -> Band | None:
    """Between which shares of clean inputs the policy flags; None where nothing is known of its detectors.

    The detectors each have a band of their own at their part of the rate; together they flag at most the sum of the
    upper ends, at least the largest of the lower ones.
    """
    rate, detectors = policy.reject + policy.review, list(policy.detectors)
    known = [one for one in detectors if isinstance(one, Detector)]
    if len(known) < len(detectors) or not known:
        return None if calibration is None else calibration.flags(rate)
    part = rate / len(known)
    ends = [one.band(part, 1 - (1 - level) / len(known)) for one in known]
    rows = min(count for one in known for count in one.groups().values())
    return Band(rate, rows, max(low for low, _ in ends), min(1.0, sum(high for _, high in ends)), level)


def opened(folder: Path, names: Sequence[str], model: Model) -> list[Detector]:
    """Detectors from their files, beside the model that is deployed, whether or not they were calibrated with it.

    Raises:
        LoadError: a file is missing, damaged, or of no detector that can be read by itself.
    """
    reader = Reader.of(model)
    found = []
    for name in names:
        kept = read_detector(folder / name)
        with typed_only():  # the name is the file's
            row = DETECTORS[kept.name]
        if row.second:
            raise LoadError(
                f"the detector {kept.name!r} asks a second model, which no folder names",
                remedy="guard with other detectors, or make the policy in Python",
            )
        try:
            rule = row.restore(kept.state, None, **checked_options(row, kept.options))
        except (KeyError, ValueError, RuntimeError, InputError) as error:
            raise LoadError(
                f"the detector {name} does not hold the parts of its rule", remedy="calibrate again"
            ) from error
        more = (kept.classes, kept.fit_rows, kept.recipes, kept.notes)
        found.append(Detector(kept.name, kept.options, kept.calibration, kept.digests, rule, reader, *more))
    return found
