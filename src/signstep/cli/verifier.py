"""What the person who verifies a report brings along: model, weights and data, read as the report says they were."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import typer

from signstep.attacks.recipes import recipe
from signstep.auditing.findings import FINDINGS
from signstep.auditing.result import Result
from signstep.auditing.run import levels_of
from signstep.cli import options as o
from signstep.cli.config import Settings
from signstep.cli.groups import DetectorOptions, request_from
from signstep.cli.isolation import inside
from signstep.cli.policies import check_detectors, is_saved, policy_of
from signstep.cli.report_config import LOADED, ReportConfig, norm_is_known, stands_for_something
from signstep.data.sources import format_of
from signstep.defences.known import DEFENCES
from signstep.defences.row import step_of
from signstep.domains import DOMAINS, IMAGES, Case, Domain
from signstep.domains import domain as find_domain
from signstep.domains.case import Request
from signstep.domains.image.case import Planned
from signstep.engine.threat import Threat, parse_threat
from signstep.errors import InputError, LoadError
from signstep.importing import is_spec
from signstep.messages import Arg
from signstep.model.opening import path_of
from signstep.model.search import Search
from signstep.verifying import Verifier, verifier_of

_ROWS = 256
_OF_A_MODEL = ("model_arg", "weights", "trust", "domain", "endpoint", "max_requests")
_FILES = ("weights", "schema", "classes", "data", "endpoint", "clean")
_OF_DETECTORS = ("detect", "reject", "review", "clean")


def options_of(context: typer.Context, report: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be loaded: as typed, else as the verifier's own configuration has it, for this command or for audits.

    A configuration that lies in the report's folder is the report's, whatever the current folder is.

    Raises:
        InputError: such a configuration sets options of this command.
    """
    settings = context.obj if isinstance(context.obj, Settings) else Settings()
    foreign = settings.source is not None and inside(settings.source, report)
    if foreign and settings.defaults.get("verify"):
        raise InputError(
            f"{settings.source} sets options of verify and lies inside the report, which is what is being checked",
            remedy=("run from another folder, or pass your own with", Arg("config")),
        )
    typed = {name: value for name, value in given.items() if stands_for_something(value)}
    if foreign or "domain" in typed:
        return typed
    mine = {name: value for name, value in settings.defaults.get("audit", {}).items() if name in LOADED}
    if "model" in typed:  # arguments and weights of another model are none of this one's
        mine = {name: value for name, value in mine.items() if name not in _OF_A_MODEL}
    if "detect" in typed:  # rates and clean data of other detectors
        mine = {name: value for name, value in mine.items() if name not in _OF_DETECTORS}
    found = {**mine, **typed}
    return {name: value for name, value in found.items() if (name, value) != ("domain", IMAGES.name)}


def files_of(options: Mapping[str, Any]) -> dict[str, str | Path]:
    """Of what is to be loaded, the files and folders; "digits" is Signstep's, and "module:name" is found by import."""
    files = {name: options[name] for name in _FILES if options.get(name) is not None}
    for name in ("data", "clean"):
        if files.get(name) == "digits" or _is_code(files.get(name)):
            del files[name]
    model = options.get("model")
    path = None if model is None else path_of(str(model))  # a factory is found by import
    return files if path is None else {**files, "model": path}


def saved_detectors(options: Mapping[str, Any]) -> list[str]:
    """Of the detectors that the options name, the files."""
    return [text for text in options.get("detect") or () if is_saved(text)]


def _detectors(options: Mapping[str, Any]) -> DetectorOptions:
    """The detectors that the options name."""
    return DetectorOptions(**{name: options[name] for name in _OF_DETECTORS if name in options})


def _is_code(data: object) -> bool:
    """Whether data is code of a person's own."""
    return data is not None and is_spec(str(data)) and not Path(str(data)).exists()


def typed(options: Mapping[str, Any], attacks: Sequence[str], threat: str | None, findings: Sequence[str] = ()) -> None:
    """Bring what the verifier typed: it is found from then on, also where `typed_only` imports nothing.

    Raises:
        InputError: something is not what it is named as.
        LoadError: a module cannot be imported.
    """
    for spec in attacks:
        recipe(spec)
    for name in findings:
        FINDINGS.find(name)
    for spec in options.get("defend") or ():
        step_of(str(spec), DEFENCES)
    check_detectors(_detectors(options), options.get("data"))
    domain, data = options.get("domain"), options.get("data")
    if threat is not None and domain in (None, IMAGES.name):  # elsewhere the domain has words of its own
        parse_threat(threat)
    if domain is not None:
        find_domain(str(domain))
    for read in (data, options.get("clean")):
        if read is not None:
            with nullcontext() if _is_code(read) else suppress(LoadError):  # a domain may read what no format is
                format_of(str(read))


def not_here(options: Mapping[str, Any], stated: ReportConfig, result: Result, threat: str | None) -> str | None:
    """What the record is about and nobody here has: a sentence, or None where all is here."""
    domain = options.get("domain", result.terms.get("domain"))
    if domain is not None and domain not in DOMAINS:
        return f"the domain {domain} is none of Signstep's; pass --domain {domain}, if you trust it"
    said = threat or stated.reading.get("threat") or f"{result.terms.get('norm')}:{result.terms.get('eps')}"
    if domain is None and not norm_is_known(str(said)):
        return f"the norm of {said} is none of Signstep's; pass --threat with your own, as module:norm:eps"
    return None


def brought(
    options: Mapping[str, Any],
    stated: ReportConfig,
    result: Result,
    box: str | None,
    device: torch.device,
    threat: str | None = None,
) -> Verifier | None:
    """Load what the verifier named; None where nothing was.

    A report that names no model and no data is of the demonstration, or of a domain's own example: both are part of
    Signstep, and come from here.

    Raises:
        InputError: the options do not fit, or one of model and data is missing.
        LoadError: something cannot be loaded.
    """
    domain = options.get("domain", result.terms.get("domain"))
    own_example = not options and not set(stated.names) - {"domain", "split", *_OF_DETECTORS}
    if not options and not own_example:
        return None
    row = IMAGES if domain is None else DOMAINS[str(domain)]
    return _of(row, options, stated, result, box, device, threat)


def _of(
    domain: Domain,
    options: Mapping[str, Any],
    stated: ReportConfig,
    result: Result,
    box: str | None,
    device: torch.device,
    threat: str | None,
) -> Verifier:
    """The case that the verifier's options make in a domain, read as the report says."""
    images = domain is IMAGES
    limit = stated.options.get("limit")
    reading = dict(stated.reading) if images else {name: stated.reading.get(name) for name in _OF_SCHEMAS}
    reading |= {"box": box} if images else {}
    reading |= {} if threat is None else {"threat": threat}
    if images and not reading.get("threat") and set(options) & {"model", "data", "weights"}:
        reading["threat"] = f"{result.terms.get('norm')}:{result.terms.get('eps')}"
    search = Search(
        loss=stated.options.get("loss") if images else None,
        budget=cast("o.Side", reading.get("budget", "raw")),
        seed=int(result.terms.get("seed", 0)),
    )
    schema, predicted = options.get("schema"), images and bool(stated.options.get("predicted_labels"))

    def asked(most: int | None) -> Request:
        given = {**options, **reading, "limit": most, "batch_size": _ROWS, "predicted_labels": predicted}
        return request_from(given, search=search, schema=schema)

    def opened(most: int | None) -> Case:
        return domain.case(asked(most))

    # Of a table the limit decides the schema's own defaults; images are read whole, and cut as they are gone through.
    case = opened(None if images else limit)
    total = case.total if images or limit is None else opened(None).total
    if isinstance(case.batches, Planned):
        case = replace(case, batches=replace(case.batches, labels=True))  # they are looked at, whoever's labels counted
    case.model.to(device)
    made = verifier_of(
        result,
        case,
        called=_called(case, result, limit),
        total=total,
        levels=_levels(
            stated, case.curve or stated.options.get("curve_attack") not in (None, [], ["none"]), case.threat
        ),
    )
    return replace(made, policy=policy_of(_detectors(options), asked(None), case.model))


def _called(case: Case, result: Result, limit: object) -> tuple[str, ...]:
    """What data may be called of which all, or the first so many examples were audited."""
    if not isinstance(case.batches, Planned):
        return (case.data,)
    source = case.batches.source
    limits = {result.examples, len(source.labels)}
    if isinstance(limit, int):
        limits.add(min(limit, len(source.labels)))
    return tuple(replace(source, labels=source.labels[:most]).description for most in sorted(limits))


# Of how numbers are to be read, what a domain with a schema leaves open.
_OF_SCHEMAS = ("threat", "task", "tolerance")


def _levels(stated: ReportConfig, default: Any, threat: Threat) -> tuple[float, ...] | None:
    """The sizes of the curve that the report's options ask for."""
    if not stated.there:
        return None
    said = str(stated.options.get("curve", "auto"))
    if said == "none":
        return ()
    if said == "auto":
        return levels_of(True if default is None else default, threat)
    return levels_of(o.numbers(said, "curve") or False, threat)
