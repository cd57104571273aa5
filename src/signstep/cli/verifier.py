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
from signstep.cli.groups import request_from
from signstep.cli.isolation import inside
from signstep.cli.report_config import LOADED, ReportConfig, stands_for_something
from signstep.domains import DOMAINS, IMAGES, Case, Domain
from signstep.domains.image.case import Planned
from signstep.engine.shaped import ShapedThreat
from signstep.engine.threat import Threat, ThreatModel
from signstep.engine.tree import Tree
from signstep.engine.verify import Terms
from signstep.errors import InputError
from signstep.model.predictor import Predictor
from signstep.model.search import Search
from signstep.model.space import InputSpace

_ROWS = 256


@dataclass(frozen=True)
class Verifier:
    """The verifier's model and data.

    Attributes:
        case: what the verifier's options make.
        search: how the report says that the attacker searched.
        predictor: calls the model.
        batches: of the examples that the record is of.
        to_search: from the data's units to those of the budget.
        searched: by input, the threat in the units of the search.
        total: examples of the data, if known.
        data: what the data may be called, all of it or the first so many.
        levels: sizes of the security curve, as the options have them; None where the report states no options.
        ran: what the record calls its attacks.
    """

    case: Case
    search: Search
    predictor: Predictor
    batches: Iterable[tuple[Tree, Tensor | None]]
    to_search: Callable[[Tensor], Tensor]
    searched: Mapping[str, ThreatModel]
    total: int | None
    data: tuple[str, ...]
    levels: tuple[float, ...] | None
    ran: tuple[str, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of what was loaded."""
        return {**self.case.model.hashes, **self.case.hashes}

    @property
    def of_schema(self) -> bool:
        """Whether it is of a domain whose schema says what the data means."""
        return self.case.domain != IMAGES.name

    @property
    def terms(self) -> dict[str, Terms]:
        """The threat in numbers by input, of balls in boxes."""
        return {name: part.terms() for name, part in self.searched.items() if not isinstance(part, ShapedThreat)}

    @property
    def attacks(self) -> dict[str, Any]:
        """Attack objects of the domain by the names that the record has, beside the recipes."""
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
    if domain is not None and domain not in DOMAINS:
        raise InputError(f"domain={domain!r} is not one of {', '.join(DOMAINS)}")
    row = IMAGES if domain is None else DOMAINS[str(domain)]
    return _of(row, options, stated, result, box, device)


def names(result: Result, own: Verifier) -> Check:
    """Whether model, data and classes are called what they are; folders do not count, only the last part of a path."""
    wrong = []
    if _OF_WEIGHTS.sub("", result.model) != _OF_WEIGHTS.sub("", own.case.model.title):
        wrong.append(f"the record calls the model {result.model!r}, it is {own.case.model.title!r}")
    if _OF_DATA.sub("", result.data) not in [_OF_DATA.sub("", name) for name in own.data]:
        wrong.append(f"the record calls the data {result.data!r}, it is {own.data[-1]!r}")
    if result.classes != own.case.model.classes:
        wrong.append("the names of the classes are not those of the data")
    return Check(
        "names", not wrong, "; ".join(wrong) or f"model and data are {own.case.model.title} and {own.data[-1]}"
    )


# Where a path stands in what models and data are called.
_OF_WEIGHTS, _OF_DATA = re.compile(r"(?<= with )[^:]*/|(?<=^exported program )[^:]*/"), re.compile(r"^[^:]*/")


def threat(result: Result, own: Verifier) -> Check:
    """Whether the threat that the record states is the one that its size means on the verifier's data."""
    here = terms_of(own.case.threat)
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
        "mode": own.case.model.mode,
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


def _of(
    domain: Domain,
    options: Mapping[str, Any],
    stated: ReportConfig,
    result: Result,
    box: str | None,
    device: torch.device,
) -> Verifier:
    """The case that the verifier's options make in a domain, read as the report says."""
    images = domain is IMAGES
    limit = stated.options.get("limit")
    reading = dict(stated.reading) if images else {name: stated.reading.get(name) for name in _OF_SCHEMAS}
    reading |= {"box": box} if images else {}
    if images and not reading.get("threat") and set(options) & {"model", "data", "weights"}:
        reading["threat"] = f"{result.terms.get('norm')}:{result.terms.get('eps')}"
    search = Search(
        loss=stated.options.get("loss") if images else None,
        budget=cast("o.Side", reading.get("budget", "raw")),
        seed=int(result.terms.get("seed", 0)),
    )
    schema, predicted = options.get("schema"), images and bool(stated.options.get("predicted_labels"))

    def opened(most: int | None) -> Case:
        given = {**options, **reading, "limit": most, "batch_size": _ROWS, "predicted_labels": predicted}
        return domain.case(request_from(given, search=search, schema=schema))

    # Of a table the limit decides the schema's own defaults; images are read whole, and cut as they are gone through.
    case = opened(None if images else limit)
    total = case.total if images or limit is None else opened(None).total
    if isinstance(case.batches, Planned):
        case = replace(case, batches=replace(case.batches, labels=True))  # they are looked at, whoever's labels counted
    case.model.to(device)
    space = case.model.space(search.budget)
    threats = {"": case.threat} if isinstance(case.threat, ThreatModel) else dict(case.threat)
    if space.budget == "normalised":
        first = next(iter(case.batches))[0]
        assert isinstance(first, Tensor)
        searched = {name: space.threat(threat, first) for name, threat in threats.items()}
    else:
        searched = threats
    raw = threats.get("")
    return Verifier(
        case,
        search,
        case.model.predictor(space),
        _audited(case.batches, result),
        (lambda x: x) if raw is None or not images else (lambda x: space.to_search(x, raw)),
        searched,
        total,
        _called(case, result, limit),
        _levels(stated, case.curve, case.threat),
        tuple(entry.name for entry in result.attacks),
    )


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


def _audited(data: Any, result: Result) -> Iterator[tuple[Tree, Tensor | None]]:
    """The data, or the shard of it that the record is of."""
    shard = result.terms.get("shard")
    return batches(data, None, None if shard is None else (shard[0], shard[1]))
