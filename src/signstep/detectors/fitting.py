"""From a name and clean data to a calibrated detector: rows are split by what they contain, fitted, and scored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signstep.attacks.recipes import RECIPES
from signstep.data.forms import Batches, Data
from signstep.detectors.detector import Detector, refuse_nan, scored
from signstep.detectors.digests import digests_of, refuse_other, rows_digest
from signstep.detectors.foreign import Foreign, is_scorer
from signstep.detectors.rule import DetectorRow, Fitting, Rule, checked_options, parse_options
from signstep.detectors.seen import Reader, Seen
from signstep.detectors.storage import read_detector
from signstep.detectors.table import DETECTORS
from signstep.engine.arrays import Home
from signstep.engine.keys import Key, content_ids
from signstep.engine.origin import contained
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.importing import name_and_options
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.registry import typed_only

__all__ = ["fit", "load"]

# Clean rows that a detector keeps.
GUIDES = 32


@contained
def fit(
    detector: str | object,
    model: Model | Callee,
    clean: Data,
    *,
    calibrate: Data | None = None,
    by_class: bool = False,
    other: Model | Callee | None = None,
    threat: ThreatModel | None = None,
    attacks: tuple[str, ...] | list[str] = (),
    seed: int = 0,
) -> Detector:
    """A detector, fitted on one half of clean rows and calibrated on the other.

    The halves are told apart by a digest of what each row contains, so that copies of a row stay together and nothing
    depends on order. A detector that needs no fitting calibrates on every row.

    Args:
        detector: a name with options ("squeeze:bits=4", see `signstep list detectors`), or any object with ``score(x)``
            that gives (R,) for raw inputs, higher for more suspicious; if it has ``fit(x)`` that is called first, on
            the fit half.
        model: an `ss.Model`, or a bare network.
        clean: batches ``(x, y)``, or two tensors; y None takes the model's answers for labels.
        calibrate: clean rows to calibrate on, none of them among ``clean``, all of which is for fitting then.
        by_class: p-values within the class that the model answers (Mondrian): the promise then holds for each answer,
            and needs as many rows for each.
        other: the second model, for "second-model".
        threat: what attacked examples may change, for detectors that learn from them.
        attacks: recipes that such a detector is trained on.
        seed: of the fitting.

    Raises:
        InputError: no such detector or option, too few rows, an empty class, rows in both halves, or scores that are
            NaN; one sentence that says what to pass.
    """
    reader = Reader.of(model)
    row, options, rule = _row(detector)
    raw, labels = gathered(clean, reader, "clean")
    if row is not None:
        _refuse_unused(row, other, threat, tuple(attacks))
    needs_rows = row.fitted if row is not None else rule is not None and rule.needs_rows
    if calibrate is not None:
        held, _ = gathered(calibrate, reader, "calibrate")
        if needs_rows:
            _refuse_shared(raw, held)
        else:  # nothing is fitted: the rows that were passed for it are not looked at
            raw, labels = raw[:0], None
    elif needs_rows:
        first = fit_half(raw, seed)
        if not bool(first.any()) or bool(first.all()):
            raise InputError(
                Arg("clean"), f"has {len(raw)} rows, too few for two halves", remedy="pass more clean rows"
            )
        held, raw = raw[~first], raw[first]
        labels = None if labels is None else labels[first]
    else:
        held, raw, labels = raw, raw[:0], None
    second = None if other is None else Reader.of(other)
    fitting = Fitting(reader, raw, labels, second, threat, tuple(attacks), seed, held.shape[1:])
    if row is not None:
        made: Rule = row.fit(fitting, **options)
        name = row.name
    else:
        assert rule is not None
        made, name = rule.fitted(fitting), rule.name
    title = name if row is None else row.spelled(options)
    return _calibrated(made, name, options, replace(fitting, raw=raw), held, title, by_class=by_class)


def _calibrated(
    rule: Rule, name: str, options: dict[str, Any], fitting: Fitting, held: Tensor, title: str, *, by_class: bool
) -> Detector:
    scores = fitting.over(lambda seen: scored(rule, seen, name), held).cpu()
    refuse_nan(scores, name)
    order = scores.argsort(stable=True)
    classes = _classes(fitting, held)[order] if by_class else None
    digests = {
        **digests_of(fitting.reader.model),
        "fit": rows_digest(fitting.raw),
        "calibration": rows_digest(held),
    }
    if fitting.other is not None:
        digests |= {f"second_{name}": digest for name, digest in digests_of(fitting.other.model).items()}
    return Detector(
        name,
        options,
        scores[order].contiguous(),
        digests,
        rule,
        fitting.reader,
        classes,
        len(fitting.raw),
        fitting.recipes,
        exact=not isinstance(rule, Foreign),
        title=title,
        guides=_guides(held),
    )


def _classes(fitting: Fitting, held: Tensor) -> Tensor:
    """What the model answers to the calibration rows (n,): each class that it can answer must be among it.

    Raises:
        InputError: one is not, and nothing could be promised of inputs that the model calls so.
    """
    found = fitting.over(lambda seen: seen.classes, held).cpu()
    with fitting.reader.quiet():
        outputs = Seen(fitting.reader, held[:1]).outputs
    # A single score decides between two; of labels alone it is not known how many there are.
    count = 0 if outputs.form == "labels" else max(2, outputs.raw[:1].numel())
    absent = sorted(set(range(count)) - set(found.tolist()))
    if absent:
        raise InputError(
            f"the model calls none of the {len(held)} calibration rows class {absent[0]}",
            remedy="pass clean rows of every class, or leave out by_class",
        )
    return found


def _guides(held: Tensor) -> Tensor:
    """A few calibration rows, which they are does not depend on their order."""
    return held[content_ids(held).cpu().argsort()[:GUIDES].to(held.device)].clone()


def load(path: str | Path, model: Model | Callee, *, other: Model | Callee | None = None) -> Detector:
    """A detector that `Detector.save` wrote, beside the model that it was calibrated with.

    Args:
        path: of the file.
        model: as it was passed to `fit`; another one, or another preprocessing, is refused.
        other: the second model, for "second-model".

    Raises:
        LoadError: the file is missing, damaged, or no detector.
        InputError: it belongs to another model.
    """
    stored = read_detector(path)
    reader = Reader.of(model)
    with typed_only():  # the name is the file's
        row = DETECTORS[stored.name]
    what = f"the detector {stored.name!r} in {path}"
    refuse_other(stored.digests, reader.model, what)
    second = None
    if row.second:
        if other is None:
            raise InputError(f"{what} asks a second model", remedy=("pass", Arg("other")))
        second = Reader.of(other)
        refuse_other(stored.digests, second.model, what, "second_")
    options = checked_options(row, stored.options)
    try:
        rule = row.restore(stored.state, second, **options)
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} does not hold the parts of its rule ({error})", remedy="fit it again") from error
    return Detector(
        stored.name,
        options,
        stored.calibration,
        stored.digests,
        rule,
        reader,
        stored.classes,
        stored.fit_rows,
        stored.recipes,
        stored.notes,
        title=row.spelled(options),
        guides=stored.guides,
    )


def fit_half(raw: Tensor, seed: int = 0) -> Tensor:
    """Which rows (n,) are for fitting: a coin for each content, the same whatever other rows there are."""
    coins = [Key(seed).fold("half", row).integer() & 1 for row in content_ids(raw).tolist()]
    return torch.tensor(coins, dtype=torch.bool, device=raw.device)


def gathered(data: Data, reader: Reader, name: str) -> tuple[Tensor, Tensor | None]:
    """All rows of clean data in raw units, with labels where every batch has them.

    Raises:
        InputError: there are none, or they are several inputs.
    """
    declared = reader.model
    parts, labels = [], []
    for x, y in Batches(data, home=Home(declared.network), classes=declared.classes):
        parts.append(reader.see(x).raw)
        labels.append(y)
    if not parts:
        raise InputError(Arg(name), "gave no rows", remedy="pass clean inputs (x, y)")
    known = [y for y in labels if y is not None]
    raw = torch.cat(parts)
    if not bool(torch.isfinite(raw).all()):
        raise InputError(Arg(name), "has inputs that are NaN or infinite", remedy="leave these rows out")
    return raw, torch.cat(known) if len(known) == len(parts) else None


def _row(detector: str | object) -> tuple[DetectorRow | None, dict[str, Any], Foreign | None]:
    if isinstance(detector, str):
        name, _, text = detector.partition(":")
        if name not in DETECTORS.own:
            name, text = name_and_options(detector)
        row = DETECTORS.find(name)
        return row, parse_options(row, text), None
    if isinstance(detector, DetectorRow):
        return detector, dict(detector.defaults), None
    if not is_scorer(detector):
        raise InputError(
            Arg("detector", detector),
            "is no name and has no score(x)",
            remedy=f"pass one of {', '.join(DETECTORS.own)}, or an object with score(x)",
        )
    return None, {}, Foreign.of(detector)


def _refuse_unused(row: DetectorRow, other: object, threat: object, attacks: tuple[str, ...]) -> None:
    if row.second != (other is not None):
        raise InputError(
            Arg("other"),
            f"is needed by {row.name!r}, which asks a second model" if row.second else f"has no use for {row.name!r}",
            remedy="pass a second model" if row.second else "leave it out",
        )
    if row.trained_on_attacks and (threat is None or not attacks):
        raise InputError(
            f"the detector {row.name!r} learns from attacked examples",
            remedy=("pass", Arg("threat"), "and", Arg("attacks"), f"such as {', '.join(list(RECIPES.own)[:2])}"),
        )
    if not row.trained_on_attacks and (threat is not None or attacks):
        raise InputError(
            Arg("threat" if threat is not None else "attacks"),
            f"has no use for {row.name!r}, which learns from clean rows alone",
            remedy="leave it out",
        )


def _refuse_shared(raw: Tensor, held: Tensor) -> None:
    """See that no calibration row was fitted on.

    Raises:
        InputError: some were.
    """
    shared = torch.isin(content_ids(held).cpu(), content_ids(raw).cpu())
    if bool(shared.any()):
        raise InputError(
            f"{int(shared.sum())} of {len(held)} rows of",
            Arg("calibrate"),
            "are among those to fit on, where scores are too low",
            remedy="pass rows that are in one of the two alone, or leave calibrate= out",
        )
