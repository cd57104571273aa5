"""A calibrated detector: a rule, the scores of clean rows that it was not fitted on, and digests of all it rests on."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from signstep.detectors import calibration as promise
from signstep.detectors.rule import Option, Rule
from signstep.detectors.seen import Reader, Seen
from signstep.detectors.storage import Stored, save_detector
from signstep.engine import arrays
from signstep.engine.origin import foreign
from signstep.errors import InputError, ModelError


@dataclass(frozen=True, eq=False)
class Detector:
    """A detector with a promised false-alarm rate; `signstep.detectors.fit` makes one.

    The promise: of clean inputs that are exchangeable with the calibration rows, at most a share ``rate`` has a p-value
    of at most ``rate``. It is about clean inputs alone and says nothing of attacks.

    Attributes:
        name: of its row, or of the object that scores.
        options: all of them.
        calibration: scores (n,) float64 of the calibration rows, sorted.
        digests: SHA-256 of "model", "preprocessing", "fit" rows and "calibration" rows (and of a second model as
            "second_model" and "second_preprocessing").
        rule: what scores.
        reader: of the model that it belongs to.
        classes: the model's answers (n,) to the calibration rows, in the same order, where p-values are taken within
            the class that the model answers (Mondrian); else None.
        fit_rows: how many rows the rule was fitted on.
        recipes: attacks whose results it was trained on.
        exact: whether what an attacker differentiates is the score itself, and no likeness of other values.
        title: name and options as they are typed, those at their defaults left out.
        guides: a few calibration rows (G, ...) as they are, in raw units: where an attacker who knows leads others.
        notes: what the reader must know.
    """

    name: str
    options: Mapping[str, Option]
    calibration: Tensor
    digests: Mapping[str, str]
    rule: Rule
    reader: Reader
    classes: Tensor | None = None
    fit_rows: int = 0
    recipes: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    exact: bool = True
    title: str = ""
    guides: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.name)

    @property
    def passes(self) -> int:
        """Forward passes for each input beside the one that gives the model's answer."""
        return self.rule.passes

    def score(self, x: Tensor | arrays.Array) -> Tensor:
        """How suspicious inputs (R, ...) in the model's declared units are: (R,) float64, higher is more."""
        with self.reader.quiet():
            return self.of(self.reader.see(x))

    def of(self, seen: Seen) -> Tensor:
        """The same of a look that others share. What is no number is as suspicious as can be."""
        return torch.nan_to_num(scored(self.rule, seen, self.name), nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)

    def p_values(self, x: Tensor | arrays.Array) -> Tensor:
        """Conformal p-values (R,) float64: (1 + #{calibration >= score}) / (n + 1)."""
        with self.reader.quiet():
            return self.p_values_of(self.reader.see(x))

    def p_values_of(self, seen: Seen) -> Tensor:
        """The same of a look that others share."""
        return self._ranked(self.of(seen).cpu(), seen)

    def p_between(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """The least and the largest p-values (R,) that rounding may make of a look.

        Another machine, or another size of batches, rounds a score s otherwise. Allowed are 1e-4 |s|, a thousandth of
        `spread`, and 2e-7, what single precision leaves open of a probability.
        """
        scores = self.of(seen).cpu()
        open_ = 1e-4 * scores.abs() + 1e-3 * self.spread + 2e-7
        open_ = torch.nan_to_num(open_, posinf=0.0)
        return self._ranked(scores + open_, seen), self._ranked(scores - open_, seen)

    def groups(self) -> dict[str, int]:
        """How many calibration rows each of its promises rests on, by words for it."""
        if self.classes is None:
            return {f"the detector {self.name!r}": len(self.calibration)}
        return {
            f"the detector {self.name!r} for inputs that the model calls class {label}": count
            for label, count in sorted(Counter(self.classes.tolist()).items())
        }

    def need(self, rate: float) -> None:
        """See that the calibration rows carry a rate.

        Raises:
            InputError: they do not; the message says how many would.
        """
        for what, rows in self.groups().items():
            promise.need_rows(rate, rows, what)

    def thresholds(self, rate: float, classes: Tensor) -> Tensor:
        """The scores (R,) from which on rows that the model calls ``classes`` (R,) are flagged at a rate."""
        if self.classes is None:
            return torch.full(classes.shape, self._threshold(self.calibration, rate), dtype=torch.float64, device="cpu")
        said = classes.cpu()
        found = torch.full(said.shape, -torch.inf, dtype=torch.float64, device="cpu")
        for label in sorted(set(said.tolist())):
            found[said == label] = self._threshold(self.calibration[self.classes == label], rate)
        return found

    @property
    def spread(self) -> float:
        """Half of the clean scores lie within so much of each other: what slack is measured by."""
        n = len(self.calibration)
        width = float(self.calibration[(3 * n) // 4] - self.calibration[n // 4])
        return width or float(self.calibration.std(correction=0)) or 1.0

    def band(self, rate: float, level: float = 0.9) -> tuple[float, float]:
        """Between which shares of clean inputs it truly flags at a rate, with this level of confidence.

        Beta(k, n + 1 - k), k = floor(rate (n + 1)): of a class-conditional detector the widest over its classes.

        Raises:
            InputError: the rows do not carry the rate.
        """
        self.need(rate)
        ends = [promise.band(rate, rows, level) for rows in self.groups().values()]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def save(self, path: str | Path) -> None:
        """Write everything but the model; `signstep.detectors.load` reads it beside that same model.

        Raises:
            LoadError: it cannot be written.
            InputError: it scores by an object of somebody's own, which is not saved.
        """
        if getattr(self.rule, "foreign", False):
            raise InputError(
                f"the detector {self.name!r} scores by an object of your own, which is not saved",
                remedy="keep the program that makes it, and fit it again there",
            )
        save_detector(
            path,
            Stored(
                self.name,
                dict(self.options),
                self.calibration,
                self.classes,
                dict(self.digests),
                dict(self.rule.state),
                self.fit_rows,
                self.recipes,
                self.notes,
                self.guides,
            ),
        )

    def __repr__(self) -> str:
        kind = "" if self.classes is None else ", by class"
        return f"Detector({self.title}, {len(self.calibration)} calibration rows{kind})"

    def _ranked(self, scores: Tensor, seen: Seen) -> Tensor:
        """p-values (R,) of scores (R,) of a look."""
        if self.classes is None:
            return promise.p_values(self.calibration, scores)
        found, said = torch.ones_like(scores), seen.classes.cpu()
        for label in sorted(set(said.tolist())):
            here = said == label
            found[here] = promise.p_values(self.calibration[self.classes == label], scores[here])
        return found

    def _threshold(self, calibration: Tensor, rate: float) -> float:
        # p <= rate means fewer than k calibration scores at or above: a score above the k-th largest of them.
        return promise.threshold(calibration, rate) if len(calibration) else -torch.inf


def scored(rule: Rule, seen: Seen, name: str) -> Tensor:
    """Scores (R,) float64 of a rule, which may be somebody's own.

    Raises:
        ModelError: they are not a number for each row.
    """
    with foreign(f"the detector {name}"):
        made = rule.scores(seen)
    if not isinstance(made, Tensor) or made.shape != (len(seen),) or made.is_complex():
        got = f"shape {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise ModelError(
            f"the detector {name!r} returned {got} for {len(seen)} inputs",
            remedy=f"return a score for each, ({len(seen)},)",
        )
    return made.detach().double()


def refuse_nan(scores: Tensor, name: str) -> None:
    """See that clean rows have scores that can be ranked.

    Raises:
        InputError: some have none.
    """
    wrong = int((~torch.isfinite(scores)).sum())
    if wrong:
        raise InputError(
            f"the detector {name!r} gives {wrong} of {len(scores)} clean rows a score that is NaN or infinite",
            remedy="look at these rows, or at what it divides by; nothing can be promised from such scores",
        )
