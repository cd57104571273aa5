"""Detectors of somebody's own: any object with ``score(x)``, and outlier models of scikit-learn and PyOD."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from signstep.detectors.rule import Fitting
from signstep.detectors.seen import Seen
from signstep.engine.origin import foreign
from signstep.errors import InputError
from signstep.messages import Arg


def is_scorer(thing: object) -> bool:
    """Whether an object can be a detector."""
    return not isinstance(thing, type) and (callable(getattr(thing, "score", None)) or _library(thing) != "")


def _library(thing: object) -> str:
    """The library that an outlier model is of: "sklearn", "pyod", or "" for another object."""
    for base in type(thing).__mro__:
        package = base.__module__.partition(".")[0]
        if package in ("pyod", "sklearn"):
            return package
    return ""


@dataclass(frozen=True, eq=False)
class Adapted:
    """An outlier model of scikit-learn or PyOD as a detector; ``estimator`` is fitted on the fit half.

    scikit-learn's ``score_samples`` and ``decision_function`` are high for what is usual, and are negated; PyOD's
    ``decision_function`` is high for what is not. Which it is, is told by the package of its class.

    Attributes:
        estimator: has ``fit(X)`` and one of these methods, X (n, D).
        on: what it sees: "inputs", flattened, or the model's penultimate "features".
        name: of the detector.
    """

    estimator: Any
    on: Literal["inputs", "features"] = "inputs"
    name: str = ""

    def __post_init__(self) -> None:
        if self.on not in ("inputs", "features"):
            raise InputError(Arg("on", self.on), remedy="pass 'inputs' or 'features'")
        if not self.name:
            object.__setattr__(self, "name", type(self.estimator).__name__)
        if self._method is None:
            raise InputError(
                Arg("estimator", type(self.estimator).__name__),
                "has neither score_samples nor decision_function",
                remedy="pass an outlier model of scikit-learn or PyOD, or an object with score(x)",
            )

    @property
    def _method(self) -> str | None:
        names = ("decision_function",) if self._pyod else ("score_samples", "decision_function")
        return next((name for name in names if callable(getattr(self.estimator, name, None))), None)

    @property
    def _pyod(self) -> bool:
        return _library(self.estimator) == "pyod"

    def fit(self, part: Tensor) -> None:
        """Fit the estimator on what it sees of clean rows, (n, D)."""
        self.estimator.fit(part.flatten(1).cpu().numpy())

    def sees(self, seen: Seen) -> Tensor:
        """The part of a look that it is given."""
        return seen.features if self.on == "features" else seen.raw.flatten(1)

    def score(self, x: Tensor) -> Tensor:
        """Scores (R,) of what it sees, (R, D): higher is more suspicious."""
        assert self._method is not None
        said = getattr(self.estimator, self._method)(x.detach().flatten(1).cpu().numpy())
        scores = torch.from_numpy(np.array(said, dtype=np.float64)).reshape(len(x))
        return scores if self._pyod else -scores


@dataclass(frozen=True, eq=False)
class Foreign:
    """A rule that asks an object of somebody's own, ``score(x)`` of raw inputs (R, ...) to (R,).

    An attacker can differentiate it where the object has ``surrogate(x)``; else there are queries alone.
    """

    thing: Any
    name: str
    passes: int = 0
    foreign: bool = True

    @classmethod
    def of(cls, thing: Any) -> "Foreign":
        """The rule of an object; its ``name`` and ``passes`` where it has such."""
        if _library(thing):
            thing = Adapted(thing)
        name = getattr(thing, "name", None)
        passes = getattr(thing, "passes", 0)
        if not isinstance(passes, int) or isinstance(passes, bool) or passes < 0:
            raise InputError(
                f"the detector {name or type(thing).__name__!r} has passes={passes!r}",
                remedy="say how many forward passes it takes for each input, a whole number",
            )
        return cls(thing, name if isinstance(name, str) else type(thing).__name__, passes)

    @property
    def state(self) -> Mapping[str, Tensor]:
        """Not to be saved."""
        return {}

    def fitted(self, fitting: Fitting) -> "Foreign":
        """The same after the object was fitted, if it can be; what its ``fit`` returns does the scoring, if it can."""
        with foreign(f"the detector {self.name}"):
            if isinstance(self.thing, Adapted):
                self.thing.fit(fitting.over(self.thing.sees))
                return self
            made = self.thing.fit(fitting.raw) if self.needs_rows else None
        return replace(self, thing=made) if is_scorer(made) else self

    @property
    def needs_rows(self) -> bool:
        """Whether there is anything to fit."""
        return callable(getattr(self.thing, "fit", None))

    def scores(self, seen: Seen) -> Tensor:
        """What the object says."""
        x = self.thing.sees(seen) if isinstance(self.thing, Adapted) else seen.raw
        made = self.thing.score(x)
        return torch.from_numpy(np.array(made, dtype=np.float64)) if isinstance(made, (np.ndarray, list)) else made

    def surrogate(self, seen: Seen) -> Tensor | None:
        """Its own, where it has one."""
        own = getattr(self.thing, "surrogate", None)
        return own(seen.raw) if callable(own) else None


def adapt(estimator: Any, *, on: Literal["inputs", "features"] = "inputs", name: str = "") -> Adapted:
    """An outlier model of scikit-learn or PyOD as a detector: ``ss.detectors.fit(adapt(IsolationForest()), ...)``."""
    return Adapted(estimator, on, name)
