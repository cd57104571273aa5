"""From a model and clean data to a calibrated guard, kept in a folder; and from that folder back to a guard."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signstep.detectors.detector import Detector
from signstep.detectors.digests import preprocessing_digest
from signstep.detectors.fitting import fit
from signstep.detectors.policy import Policy
from signstep.engine.tree import Tree
from signstep.engine.untouched import untouched
from signstep.errors import InputError, LoadError
from signstep.guard.calibration import Calibration
from signstep.guard.decide import Rules
from signstep.guard.guard import Guard, best, watching_for
from signstep.guard.policies import opened, policy_band
from signstep.guard.store import Keep
from signstep.messages import Arg
from signstep.model.declaration import Model

_ROWS = 256
IMAGE_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Terms:
    """What a guard is calibrated for.

    Attributes:
        detectors: names with options, as `signstep.detectors.fit` takes them.
        reject: share of clean inputs that may be rejected.
        review: share of clean inputs that may be sent to a person beside those.
        by_class: p-values within the class that the model answers.
        low_confidence: below which largest probability an answer counts as unsure; 0 for none.
        box: (low, high) of inputs; None takes [0, 1] for images that lie in it, and no ends else.
        seed: of the fitting.
    """

    detectors: Sequence[str] = ("confidence",)
    reject: float = 0.01
    review: float = 0.0
    by_class: bool = False
    low_confidence: float = 0.0
    box: tuple[float, float] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Calibrated:
    """A policy and what is known of clean inputs.

    Attributes:
        policy: of calibrated detectors.
        calibration: what is known of clean inputs.
        notes: what the reader must know.
    """

    policy: Policy
    calibration: Calibration
    notes: tuple[str, ...] = field(default=())

    def save(self, folder: Path) -> None:
        """Write detectors and calibration into a folder that is there.

        Raises:
            LoadError: it cannot be written.
        """
        for name, detector in zip(self.calibration.detectors, self.policy.detectors, strict=True):
            detector.save(folder / name)
        self.calibration.save(folder)

    def __str__(self) -> str:
        band = policy_band(self.policy, self.calibration)
        names = ", ".join(one.title for one in self.policy.detectors)
        lines = [f"policy: {names}; {self.policy.reject:.2%} rejected, {self.policy.review:.2%} to a person"]
        lines += [] if band is None else [f"promise: {band}"]
        unsure = self.calibration.unsure
        if unsure is not None:
            lines.append(f"low confidence: {unsure.nominal:.2%} of clean inputs")
        return "\n".join([*lines, *self.notes])


def calibrate(model: Model, batches: Iterable[tuple[Tree, Tensor | None]], terms: Terms) -> Calibrated:
    """Fit and calibrate on clean rows, in the order in which a client may send them.

    Raises:
        InputError: too few rows for the rates, or something that makes no sense.
    """
    if not 0 <= terms.low_confidence < 1:
        raise InputError(Arg("low_confidence", terms.low_confidence), remedy="pass a share from 0 on, below 1")
    parts: list[Tensor] = []
    labels: list[Tensor] = []
    for x, y in batches:
        if not isinstance(x, Tensor):
            raise InputError(
                Arg("data"), "has several inputs, and a guard looks at one tensor", remedy="pass such data"
            )
        parts.append(x.float())
        labels += [] if y is None else [y]
    if not parts:
        raise InputError(Arg("data"), "has no rows", remedy="pass clean inputs")
    rows = torch.cat(parts)
    y = torch.cat(labels) if len(labels) == len(parts) else None
    detectors = [fit(name, model, (rows, y), by_class=terms.by_class, seed=terms.seed) for name in terms.detectors]
    policy = Policy(detectors, reject=terms.reject, review=terms.review)
    plain = rows.cpu().numpy()
    box, notes = _box(plain, terms.box)
    if len(rows) < 200:
        notes.append(f"{len(rows)} rows are too few to know the steps between clean inputs: their chart is off")
    kept = {
        "reject": terms.reject,
        "review": terms.review,
        "low_confidence": terms.low_confidence,
        "classes": list(model.classes)[:10_000],
        "model": model.title,
        "preprocessing": preprocessing_digest(model),
    }
    calibration = Calibration.of(
        plain,
        detectors[0].digests["model"],
        box=box,
        unsure_rows=_unsure(model, rows, terms.low_confidence) if terms.low_confidence else None,
        detectors=tuple(f"detector-{place}.safetensors" for place in range(len(detectors))),
        terms=kept,
    )
    watching_for(policy, policy_band(policy, calibration), calibration)  # what cannot be served is said now
    return Calibrated(policy, calibration, tuple(notes))


def open_guard(
    folder: Path,
    model: Model,
    *,
    store: str | None = None,
    rules: Rules | None = None,
    keep: Keep | None = None,
) -> Guard:
    """The guard that a folder of `calibrate` holds, around the model that is deployed.

    Where its weights are others than those that were calibrated, the guard begins in shadow.

    Raises:
        InputError: the model is declared otherwise than it was calibrated, which no new weights explain.
        LoadError: the folder is none, or damaged.
    """
    calibration = Calibration.load(folder)
    terms = calibration.terms
    try:
        rates = float(terms["reject"]), float(terms["review"])
        low, classes = float(terms["low_confidence"]), tuple(terms["classes"])
        preprocessing = str(terms["preprocessing"])
        if not 0 <= low < 1:
            raise ValueError(f"low_confidence is {low}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise LoadError(f"the calibration in {folder} lacks its terms ({error})", remedy="calibrate again") from error
    if preprocessing != preprocessing_digest(model):
        raise InputError(
            f"the calibration in {folder} is of a model that is declared otherwise (units, outputs, mode or task)",
            remedy="declare it as for calibrate, or calibrate again",
        )
    if not model.classes and all(isinstance(name, str) for name in classes):
        model = replace(model, classes=classes)
    detectors: list[Detector] = opened(folder, calibration.detectors, model)
    policy = Policy(detectors, reject=rates[0], review=rates[1])
    rules = rules or Rules()
    if not rules.low_confidence:
        rules = replace(rules, low_confidence=low)
    with torch.no_grad():  # what is wrong with the model is said now, and not to the first client
        policy.decide(torch.zeros(1, *calibration.shape, dtype=torch.float32, device="cpu"))
    return Guard(model, policy, store=store, rules=rules, calibration=calibration, keep=keep)


def _box(rows: Any, given: tuple[float, float] | None) -> tuple[tuple[float, float] | None, list[str]]:
    low, high = float(rows.min()), float(rows.max())
    if given is not None:
        if low < given[0] or high > given[1]:
            raise InputError(
                Arg("box", given), f"leaves out clean rows, from {low:.4g} to {high:.4g}", remedy="pass wider ends"
            )
        return given, []
    if rows.ndim == 4 and rows.shape[1] in IMAGE_CHANNELS and low >= 0 and high <= 1:
        return (0.0, 1.0), []
    return None, ["no ends of inputs are known: numbers of any size reach the model (box= sets them)"]


def _unsure(model: Model, rows: Tensor, low: float) -> int:
    """How many rows get an answer below that confidence."""
    count = 0
    with torch.no_grad(), untouched(model.network, mode=model.mode):
        for part in torch.split(rows, _ROWS):
            scores = np.asarray(model(part).float().cpu())
            count += sum(best(row, model.outputs)[1] < low for row in scores)
    return count
