"""From the options of detectors to a policy: names are fitted on clean data, files are read."""

from dataclasses import replace
from pathlib import Path

from signstep.attacks.recipes import recipe
from signstep.cli.groups import DetectorOptions
from signstep.detectors import DETECTORS, Detector, Policy, fit, load
from signstep.detectors.rule import parse_options
from signstep.domains.case import Request
from signstep.domains.image.case import opened_data
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.importing import name_and_options
from signstep.io.files import expanded
from signstep.messages import Arg
from signstep.model.declaration import Model


def is_saved(text: str) -> bool:
    """Whether a detector is named by a file that it was saved in."""
    return expanded(Path(text)).is_file() or Path(text).suffix == ".safetensors"


def check_detectors(given: DetectorOptions, data: str | None) -> None:
    """See that what is asked of detectors makes sense, before anything is loaded.

    Raises:
        InputError: an option is missing, has no effect, or names nothing.
    """
    if not given.detect:
        for name in ("reject", "clean"):
            if getattr(given, name) is not None:
                raise InputError(Arg(name), "has no effect without detectors", remedy=("pass", Arg("detect")))
        if given.review:
            raise InputError(Arg("review"), "has no effect without detectors", remedy=("pass", Arg("detect")))
        return
    if given.reject is None:
        raise InputError(
            Arg("detect"), "needs the share of clean inputs that may be rejected", remedy=("pass", Arg("reject", 0.01))
        )
    fresh = [text for text in given.detect if not is_saved(text)]
    for text in fresh:
        name, options = _split(text)
        parse_options(DETECTORS.find(name), options)
    if fresh and given.clean is None:
        raise InputError(
            Arg("detect", fresh[0]),
            "is to be fitted and calibrated",
            remedy=("pass clean data that is not audited,", Arg("clean"), ", or a file that signstep detect fit wrote"),
        )
    if not fresh and given.clean is not None:
        raise InputError(Arg("clean"), "has no effect on detectors that are read from files", remedy="drop it")
    if given.clean is not None and given.clean == data:
        raise InputError(
            Arg("clean", given.clean),
            "is the data that is audited: rates would be measured on the rows that they were set on",
            remedy="pass other clean data",
        )


def policy_of(given: DetectorOptions, request: Request, model: Model, *, other: Model | None = None) -> Policy | None:
    """The policy that the options ask for; None where they name no detector.

    Raises:
        InputError: a detector cannot be fitted, or belongs to another model.
        LoadError: a file cannot be read.
    """
    if not given.detect or given.reject is None:
        return None
    return Policy(
        detectors=[detector_of(text, request, model, given.clean, other=other) for text in given.detect],
        reject=given.reject,
        review=given.review,
    )


def detector_of(
    text: str,
    request: Request,
    model: Model,
    clean: str | None,
    *,
    other: Model | None = None,
    by_class: bool = False,
    threat: ThreatModel | None = None,
    attacks: tuple[str, ...] = (),
    seed: int = 0,
) -> Detector:
    """A detector by its file, or by its name and fitted on clean data."""
    if is_saved(text):
        return load(text, model, other=other)
    assert clean is not None
    for name in attacks:
        recipe(name)
    limit = request.limit if clean == request.data else None  # which is of the data, where that is fitted on itself
    source = opened_data(replace(request, data=clean, limit=limit))
    return fit(text, model, source, other=other, by_class=by_class, threat=threat, attacks=attacks, seed=seed)


def _split(text: str) -> tuple[str, str]:
    name, _, options = text.partition(":")
    return (name, options) if name in DETECTORS.own else name_and_options(text)
