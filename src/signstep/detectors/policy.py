"""What is done with what detectors say: rates live here and only here, and their total is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from signstep.detectors.calibration import check_rate
from signstep.detectors.detector import Detector
from signstep.detectors.digests import refuse_other
from signstep.detectors.seen import Reader, Seen
from signstep.engine import arrays
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model

ACCEPT, REVIEW, REJECT = 0, 1, 2
ACTIONS = ("accept", "review", "reject")


@dataclass(frozen=True, eq=False)
class Decisions:
    """What a policy decides about a batch.

    Attributes:
        action: (R,) int8: 0 accept, 1 review, 2 reject.
        p_value: (R,) float64: the combined p-value, min(1, D min_d p_d) over D detectors.
        p_values: (R, D) float64, those of the detectors.
        by: (R,) int64: the index of the detector with the smallest p-value, which decided; -1 without detectors.
        answers: what the model says (R, K), where a detector asked it about the inputs themselves; else None.
    """

    action: Tensor
    p_value: Tensor
    p_values: Tensor
    by: Tensor
    answers: Tensor | None

    @property
    def flagged(self) -> Tensor:
        """(R,) bool: what is not simply accepted."""
        return self.action > ACCEPT

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True, eq=False)
class Policy:
    """Detectors and the rates of clean inputs that may be refused and sent to review.

    Rule: Bonferroni. An input is rejected where D times its smallest p-value is at most ``reject``, and reviewed where
    it is at most ``reject + review``. Whatever the detectors have to do with each other, at most these shares of clean
    inputs are; each detector works at the rate's D-th part, and needs rows that carry it.

    Attributes:
        detectors: all calibrated with the same model. None at all flag nothing.
        reject: share of clean inputs that may be rejected; 0 rejects nothing.
        review: share of clean inputs that may be sent to a person beside those.

    Raises:
        InputError: a rate is none, a detector has too few rows for it, or detectors belong to different models.

    Example:
        >>> import torch, signstep as ss
        >>> model = torch.nn.Linear(4, 3).eval()
        >>> detector = ss.detectors.fit("confidence", model, (torch.rand(200, 4), None))
        >>> policy = ss.Policy(detectors=[detector], reject=0.01)
        >>> policy.decide(torch.rand(8, 4)).action.shape
        torch.Size([8])
    """

    detectors: Sequence[Detector]
    reject: float
    review: float = 0.0
    rule: str = field(default="bonferroni", init=False)

    def __post_init__(self) -> None:
        one = isinstance(self.detectors, Detector)
        if one or not all(isinstance(part, Detector) for part in self.detectors):
            raise InputError(
                Arg("detectors", self.detectors),
                "is no list of calibrated detectors",
                remedy="pass those that signstep.detectors.fit returns",
            )
        object.__setattr__(self, "detectors", tuple(self.detectors))
        for name in ("reject", "review"):
            value = getattr(self, name)
            if value != 0 or isinstance(value, bool):
                check_rate(value, name)
        if self.reject + self.review == 0:
            raise InputError(
                Arg("reject", 0), "and", Arg("review", 0), "flag nothing", remedy="pass a share that may be, say 0.01"
            )
        check_rate(self.reject + self.review, "reject + review")
        for detector in self.detectors:
            for rate in {self.reject or self.review, self.reject + self.review}:
                detector.need(self.share(rate))
        for name in ("model", "preprocessing"):
            if len({detector.digests[name] for detector in self.detectors}) > 1:
                raise InputError(
                    Arg("detectors"),
                    f"were calibrated with different {'models' if name == 'model' else 'preprocessings'}",
                    remedy="fit them all on the model that is deployed",
                )

    @property
    def rate(self) -> float:
        """The share of clean inputs that may be flagged at all."""
        return self.reject + self.review

    def share(self, rate: float) -> float:
        """The rate at which each detector works."""
        return rate / max(1, len(self.detectors))

    @property
    def passes(self) -> int:
        """Forward passes for each input beside the one that gives the model's answer."""
        return sum(detector.passes for detector in self.detectors)

    @property
    def reader(self) -> Reader | None:
        """Of the model that the detectors belong to."""
        return self.detectors[0].reader if self.detectors else None

    def decide(self, x: Tensor | arrays.Array) -> Decisions:
        """What is to be done with inputs (R, ...) in the model's declared units; all detectors share one look."""
        if self.reader is None:
            return _nothing(x)
        with self.reader.quiet():
            return self.decide_seen(self.reader.see(x))

    def decide_seen(self, seen: Seen) -> Decisions:
        """The same of a look that others share."""
        if not self.detectors:
            return _nothing(seen.raw)
        p_values = torch.stack([detector.p_values_of(seen) for detector in self.detectors], 1)
        smallest, by = p_values.min(1)
        combined = (smallest * len(self.detectors)).clamp(max=1.0)
        action = torch.zeros(len(combined), dtype=torch.int8, device="cpu")
        # A p-value is a whole number of n + 1: what rounding takes from it must not decide.
        action[combined <= self.rate * (1 + 1e-9)] = REVIEW
        if self.reject:
            action[combined <= self.reject * (1 + 1e-9)] = REJECT
        return Decisions(action, combined, p_values, by, seen.answer())

    def flags(self, x: Tensor | arrays.Array) -> Tensor:
        """Whether inputs are refused or reviewed, (R,) bool."""
        return self.decide(x).flagged

    def refuse_other(self, model: Model) -> None:
        """See that a model is the one the detectors were calibrated with.

        Raises:
            InputError: it is another, or is prepared otherwise.
        """
        for detector in self.detectors:
            refuse_other(detector.digests, model, f"the detector {detector.name!r}")

    def terms(self) -> dict[str, object]:
        """What a record says of it."""
        return {
            "rule": self.rule,
            "reject": self.reject,
            "review": self.review,
            "detectors": [
                {
                    "name": one.title,
                    "rows": len(one.calibration),
                    "by_class": one.classes is not None,
                    "digests": dict(one.digests),
                }
                for one in self.detectors
            ],
        }

    def __repr__(self) -> str:
        names = ", ".join(detector.name for detector in self.detectors)
        return f"Policy([{names}], reject={self.reject:g}, review={self.review:g})"


def _nothing(x: Tensor | arrays.Array) -> Decisions:
    count = len(x)
    none = torch.zeros(count, dtype=torch.int8, device="cpu")
    ones = torch.ones(count, dtype=torch.float64, device="cpu")
    nobody = torch.full((count,), -1, dtype=torch.int64, device="cpu")
    return Decisions(none, ones, torch.zeros(count, 0, dtype=torch.float64, device="cpu"), nobody, None)
