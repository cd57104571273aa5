"""What the person who verifies a report brings along: model, weights and data, read as the report says they were."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import typer
from torch import Tensor

from signstep.auditing.checks import Book, Check
from signstep.auditing.result import Result
from signstep.auditing.run import levels_of, terms_of
from signstep.auditing.stream import batches
from signstep.auditing.tally import plain_terms
from signstep.cli import options as o
from signstep.cli.config import Settings
from signstep.cli.domain import IMAGES, case_of
from signstep.cli.isolation import inside
from signstep.cli.job import Job, all_hashes, job_of
from signstep.cli.report_config import LOADED, ReportConfig, stands_for_something
from signstep.domains import DOMAINS, Case
from signstep.engine.shaped import ShapedThreat
from signstep.engine.tasks import Custom, Objective, Regression
from signstep.engine.threat import Threat, ThreatModel
from signstep.engine.tree import Tree, tree_map
from signstep.engine.untouched import Mode
from signstep.engine.verify import Terms
from signstep.errors import InputError
from signstep.model.predictor import Kind, Predictor
from signstep.model.space import InputSpace

_ROWS = 256


@dataclass(frozen=True)
class Verifier:
    """The verifier's model and data.

    Attributes:
        predictor: calls the model.
        task: what its outputs mean.
        batches: of the examples that the record is of.
        to_search: from the data's units to those of the budget.
        threat: in raw units.
        searched: by input, the threat in the units of the search.
        total: examples of the data, if known.
        model: what the model is called.
        data: what the data may be called, all of it or the first so many.
        classes: names of the classes.
        hashes: SHA-256 of what was loaded.
        mode: of the model.
        reading: arguments of `signstep.audit` that say how model and data are read.
        levels: sizes of the security curve, as the options have them; None where the report states no options.
        case: of a domain.
        ran: what the record calls its attacks.
    """

    predictor: Predictor
    task: Any
    batches: Iterable[tuple[Tree, Tensor | None]]
    to_search: Callable[[Tensor], Tensor]
    threat: Threat
    searched: Mapping[str, ThreatModel]
    total: int | None
    model: str
    data: tuple[str, ...]
    classes: tuple[str, ...]
    hashes: Mapping[str, str]
    mode: Mode
    reading: Mapping[str, Any]
    levels: tuple[float, ...] | None
    case: Case | None = None
    ran: tuple[str, ...] = ()

    @property
    def terms(self) -> dict[str, Terms]:
        """The threat in numbers by input, of balls in boxes."""
        return {name: part.terms() for name, part in self.searched.items() if not isinstance(part, ShapedThreat)}

    @property
    def attacks(self) -> dict[str, Any]:
        """Attack objects of the domain by the names that the record has, beside the recipes."""
        if self.case is None:
            return {}
        found = {attack.name: attack for attack in self.case.attacks if not isinstance(attack, str)}
        for name in self.ran:
            with suppress(InputError):  # no attack has such options, which the check of passes says
                attack = self.case.named(name)
                if attack is not None:
                    found[name] = attack
        return found


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
            f"{settings.source} sets options of verify and lies inside the report, which is what is being checked; run "
            "from another folder, or pass your own with --config"
        )
    typed = {name: value for name, value in given.items() if stands_for_something(value)}
    if foreign or "domain" in typed:
        return typed
    mine = {name: value for name, value in settings.defaults.get("audit", {}).items() if name in LOADED}
    if "model" in typed:  # arguments and weights of another model are none of this one's
        mine = {name: value for name, value in mine.items() if name not in ("model_arg", "weights", "trust", "domain")}
    found = {**mine, **typed}
    return {name: value for name, value in found.items() if (name, value) != ("domain", IMAGES)}


def files_of(options: Mapping[str, Any]) -> dict[str, str | Path]:
    """Of what is to be loaded, the files and folders; a factory is found by import, and "digits" is Signstep's."""
    files = {name: options[name] for name in ("weights", "schema", "classes", "data") if options.get(name) is not None}
    if files.get("data") == "digits":
        del files["data"]
    model = options.get("model")
    return {**files, "model": model} if model is not None and ":" not in str(model) else files


def brought(
    options: Mapping[str, Any], stated: ReportConfig, result: Result, box: str | None, device: torch.device
) -> Verifier | None:
    """Load what the verifier named; None where nothing was.

    A report that names no model and no data is of the demonstration, or of a domain's own example: both are part of
    Signstep, and come from here.

    Raises:
        InputError: the options do not fit, or one of model and data is missing.
        LoadError: something cannot be loaded.
    """
    domain = options.get("domain", result.terms.get("domain"))
    own_example = not options and not set(stated.names) - {"domain", "split"}
    if not options and not own_example:
        return None
    if domain is None:
        return _of_images(options, stated, result, box, device)
    if domain not in DOMAINS:
        raise InputError(f"domain={domain!r} is not one of {', '.join(DOMAINS)}")
    return _of_case(str(domain), options, stated, result, device)


def names(result: Result, own: Verifier) -> Check:
    """Whether model, data and classes are called what they are; folders do not count, only the last part of a path."""
    wrong = []
    if _OF_WEIGHTS.sub("", result.model) != _OF_WEIGHTS.sub("", own.model):
        wrong.append(f"the record calls the model {result.model!r}, it is {own.model!r}")
    if _OF_DATA.sub("", result.data) not in [_OF_DATA.sub("", name) for name in own.data]:
        wrong.append(f"the record calls the data {result.data!r}, it is {own.data[-1]!r}")
    if result.classes != own.classes:
        wrong.append("the names of the classes are not those of the data")
    return Check("names", not wrong, "; ".join(wrong) or f"model and data are {own.model} and {own.data[-1]}")


# Where a path stands in what models and data are called.
_OF_WEIGHTS, _OF_DATA = re.compile(r"(?<= with )[^:]*/|(?<=^exported program )[^:]*/"), re.compile(r"^[^:]*/")


def threat(result: Result, own: Verifier) -> Check:
    """Whether the threat that the record states is the one that its size means on the verifier's data."""
    here = terms_of(own.threat)
    sizes = {tuple(point.eps for point in points) for points in result.curves.values()}
    if own.levels is not None and sizes - {own.levels}:
        return Check("threat", False, f"the curves have the sizes {sorted(sizes)[0]}, the options ask for {own.levels}")
    # Without a gradient there is none; that it gave out on the way stands in the notes.
    led = any(entry.needs == "gradients" for entry in result.attacks) and result.terms.get("outputs_form") != "labels"
    if own.levels and not sizes and led and not result.no_curve and not result.partial:
        return Check("threat", False, f"there is no curve, the options ask for one at the sizes {own.levels}")
    if result.terms.get("threat") != here["threat"]:
        said = f"the record has {result.terms.get('threat')}, here it is {here['threat']}"
        return Check("threat", False, f"{said}; pass --box if another box is meant")
    for name, value in {**here, "threat_terms": plain_terms(own.searched)}.items():
        if not _alike(result.terms.get(name), value):
            return Check("threat", False, f"the record has {name} = {result.terms.get(name)}, here it is {value}")
    return Check("threat", True, f"{here['threat']}, as on the verifier's data")


def domain_terms(result: Result, own: Verifier, case: Case) -> Check:
    """Whether the record is of the verifier's domain and schema, and states what an audit of a domain can be alone."""
    book = Book()
    here = {
        "domain": case.domain,
        "domain_terms": dict(case.terms),
        # What of images the configuration says.
        "mode": own.mode,
        "input_space": InputSpace.of(None, None).describe(),
        "goal": "untargeted",
    }
    for name, value in here.items():
        other = _difference(result.terms.get(name), value, name)
        book.need(other is None, f"{other}")
    return book.check("domain", f"{case.domain}, as its schema has it here")


_ROUNDED = 1e-9  # relative, of a mean that another machine sums in another order


def _alike(stated: object, own: object) -> bool:
    return _difference(stated, own, "") is None


def _difference(stated: object, own: object, where: str) -> str | None:
    """Where the record's plain values are others than the verifier's own, which may have tuples; None: nowhere."""
    if isinstance(own, Mapping) and isinstance(stated, Mapping) and set(own) == set(stated):
        pairs = [(stated[name], own[name], f"{where}.{name}") for name in own]
    elif isinstance(own, (list, tuple)) and isinstance(stated, (list, tuple)) and len(own) == len(stated):
        pairs = [(a, b, f"{where}[{place}]") for place, (a, b) in enumerate(zip(stated, own, strict=True))]
    elif type(own) is float and type(stated) in (int, float):
        close = math.isclose(float(cast("float", stated)), own, rel_tol=_ROUNDED, abs_tol=_ROUNDED)
        return None if close else f"{where} is {stated} in the record, {own} here"
    else:
        same = type(own) is type(stated) and own == stated
        return None if same else f"{where} is {_short(stated)} in the record, {_short(own)} here"
    return next((found for pair in pairs if (found := _difference(*pair)) is not None), None)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _of_images(
    options: Mapping[str, Any], stated: ReportConfig, result: Result, box: str | None, device: torch.device
) -> Verifier:
    reading = stated.reading
    job = _job(options, reading)
    mean, std = o.numbers(reading.get("mean"), "mean"), o.numbers(reading.get("std"), "std")
    sides = {name: cast("o.Side", reading.get(name, "raw")) for name in ("inputs", "budget")}
    space = InputSpace.of(mean, std, **sides)
    said = reading.get("threat") or job.threat or f"{result.terms.get('norm')}:{result.terms.get('eps')}"
    raw = o.threat_of(str(said), box, reading.get("grid"), job.data.bounds)
    output = o.output_of(None if reading.get("output") is None else str(reading["output"]))
    outputs, task = (
        reading.get("outputs", "auto"),
        o.task_of(reading.get("task", "auto"), reading.get("tolerance"), options.get("ignore_label")),
    )
    mode = cast("Mode", reading.get("mode", "eval"))
    job.model.to(device)
    kind = cast("Kind", "logits" if reading.get("task") == "regression" else outputs)
    return Verifier(
        Predictor(job.model, output, kind, None if space.mean is None else lambda u: tree_map(space.to_model, u)),
        task,
        _audited(job.data, result),
        lambda x: space.to_search(x, raw),
        raw,
        {"": space.threat(raw, next(iter(job.data))[0])},
        job.data.total,
        job.description,
        _called(job, result, stated),
        job.data.classes or (),
        all_hashes(job, mean, std, sides["inputs"]),
        mode,
        {
            "threat": raw,
            "task": task,
            "loss": stated.options.get("loss"),
            "mean": mean,
            "std": std,
            **sides,
            "output": output,
            "outputs": outputs,
            "mode": mode,
        },
        _levels(stated, job.curve, raw),
    )


def _job(options: Mapping[str, Any], reading: Mapping[str, Any]) -> Job:
    weights, classes = options.get("weights"), options.get("classes")
    return job_of(
        options.get("model"),
        None if weights is None else Path(weights),
        options.get("model_arg"),
        options.get("data"),
        options.get("split"),
        options.get("resize"),
        None,
        "auto",
        real=reading.get("task") == "regression",
        keep_mode=reading.get("mode") == "keep",
        label_column=options.get("label_column"),
        classes=None if classes is None else Path(classes),
        skip_bad=bool(options.get("skip_bad", False)),
        ignore_label=options.get("ignore_label"),
        max_pixels=options.get("max_pixels"),
        trust=bool(options.get("trust", False)),
    )


def _called(job: Job, result: Result, stated: ReportConfig) -> tuple[str, ...]:
    """What data may be called of which all, or the first so many examples were audited."""
    limits = {result.examples, len(job.data.labels)}
    if isinstance(stated.options.get("limit"), int):
        limits.add(min(stated.options["limit"], len(job.data.labels)))
    return tuple(replace(job.data, labels=job.data.labels[:limit]).description for limit in sorted(limits))


def _of_case(
    domain: str, options: Mapping[str, Any], stated: ReportConfig, result: Result, device: torch.device
) -> Verifier:
    limit = stated.options.get("limit")
    said = {name: stated.reading.get(name) for name in ("threat", "task", "tolerance")}
    wanted = {**options, **said, "seed": result.terms.get("seed", 0)}
    case = case_of(domain, {**wanted, "limit": limit}, _ROWS)
    total = case.total if limit is None else case_of(domain, wanted, _ROWS).total
    if isinstance(case.model, torch.nn.Module):
        case.model.to(device)
    numbers = isinstance(case.task, (Objective, Regression, Custom)) or case.task == "regression"
    return Verifier(
        Predictor(case.model, None, "logits" if numbers else "auto"),
        case.task,
        _audited(case.batches, result),
        lambda x: x,
        case.threat,
        {"": case.threat} if isinstance(case.threat, ThreatModel) else dict(case.threat),
        total,
        case.description,
        (case.data,),
        tuple(case.classes),
        case.hashes,
        "eval",
        {"threat": case.threat, "task": case.task, "loss": case.loss},
        _levels(stated, case.curve, case.threat),
        case,
        tuple(entry.name for entry in result.attacks),
    )


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


def _audited(data: Any, result: Result) -> Iterator[tuple[Tree, Tensor | None]]:
    """The data, or the shard of it that the record is of."""
    shard = result.terms.get("shard")
    return batches(data, None, None if shard is None else (shard[0], shard[1]))
