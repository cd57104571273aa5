"""``verify``: what of a report holds, for somebody who believes nothing that lies in its folder."""

import math
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from signstep.auditing import plans, rescore
from signstep.auditing.checks import Book, Check, attempted
from signstep.auditing.checksums import POINTS, RECORD, check_sums, plain_file
from signstep.auditing.diagnosis_check import agreement
from signstep.auditing.evidence import Evidence
from signstep.auditing.knob_check import knob as knob_check
from signstep.auditing.parts import part_of
from signstep.auditing.provable import unprovable
from signstep.auditing.reading import LARGEST, not_a_result, parse
from signstep.auditing.reattack import attacked_again
from signstep.auditing.record import SCHEMA
from signstep.auditing.recount import recount
from signstep.auditing.redetected import detected_again, unasked
from signstep.auditing.reproved import proved_again
from signstep.auditing.result import Result
from signstep.auditing.run import terms_of
from signstep.auditing.signature import signed
from signstep.auditing.stated_terms import claims
from signstep.auditing.stream import Batches, Data, batches
from signstep.auditing.tally import plain_terms
from signstep.detectors.digests import digests_of
from signstep.detectors.policy import Policy
from signstep.domains import DOMAINS, IMAGES, Case
from signstep.domains import domain as find_domain
from signstep.domains.case import no_summary
from signstep.engine.arrays import Home
from signstep.engine.keys import Key
from signstep.engine.origin import contained
from signstep.engine.shaped import ShapedThreat
from signstep.engine.threat import Threat, ThreatModel, span_of
from signstep.engine.tree import Tree, tree_map
from signstep.engine.untouched import untouched
from signstep.engine.verify import Terms
from signstep.errors import InputError, LoadError
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.model.drawn import drawn_anew
from signstep.model.predictor import Predictor
from signstep.model.search import Search
from signstep.model.space import InputSpace, Statistic
from signstep.plain import one_line
from signstep.registry import typed_only


@dataclass(frozen=True)
class Verification:
    """What came of every check.

    Attributes:
        checks: in the order in which they were made.
        result: the record; None where it cannot be read.
        asked: whether a model and data were brought along.
    """

    checks: tuple[Check, ...]
    result: Result | None
    asked: bool

    @property
    def holds(self) -> bool:
        """Whether nothing contradicts the report."""
        return all(check.holds for check in self.checks)

    @property
    def complete(self) -> bool:
        """Whether everything was there that the checks need; where not, what holds holds for the rest."""
        return self.asked and all(check.complete for check in self.checks)

    @property
    def unprovable(self) -> tuple[str, ...]:
        """What nobody can tell who was not there: whoever made the report may have written anything."""
        return () if self.result is None else tuple(unprovable(self.result, self.checks))

    def __str__(self) -> str:
        verdict = "does not hold" if not self.holds else "holds" if self.complete else "incomplete: nothing fails"
        lines = [*map(str, self.checks), *(f"unprovable  {line}" for line in self.unprovable), verdict]
        return "\n".join(map(one_line, lines))


@contained
@typed_only()
def verify(
    report: str | Path,
    model: Model | Callee | None = None,
    data: Data | None = None,
    *,
    threat: Threat | None = None,
    mean: Statistic = None,
    std: Statistic = None,
    search: Search | None = None,
    policy: Policy | None = None,
    again: int = 0,
    signed_by: str | Path | None = None,
    device: str | torch.device | None = None,
) -> Verification:
    """Check a report's folder with your own model and data, believing nothing that lies in it.

    Everything that follows from the examples, from the data or from the model is derived again; saved points are
    checked against ball, box, mask and grid and scored by the model. Nothing that the report names is loaded or
    imported. The folder's ``signstep.toml`` is looked at by the command ``signstep verify`` alone.

    Args:
        report: the folder that ``signstep audit`` wrote.
        model: your own model, declared as it was audited; None checks what needs none.
        data: the data that was audited.
        threat: what the record is to be about; needed with a model.
        mean: of a bare network, see `signstep.attack`.
        std: see ``mean``.
        search: loss and units of the budget, where they are no defaults.
        policy: your own detectors and their rates, asked again what the record says of them; without one that stays
            open.
        again: attack so many of the examples that held once more, drawn by a secret seed.
        signed_by: a public key that the report must be signed by.
        device: where the model is asked; None is where its weights are.

    Returns:
        A `Verification`: print it; ``.holds``, ``.complete``, ``.checks``.

    Raises:
        InputError: a model without data or threat, or data without a model; detectors of another model than that one.
        LoadError: the folder has no record.
    """
    folder = Path(report)
    if (model is None) != (data is None):
        raise InputError("model and data belong together", remedy="pass both, or neither to check what needs none")
    if model is not None and threat is None:
        raise InputError(
            Arg("threat"), "is missing", remedy="pass what the record is to be about, such as ss.linf('8/255')"
        )
    if policy is not None:
        if model is None:
            raise InputError(Arg("policy"), "needs the model that its detectors look at", remedy="pass model and data")
        policy.refuse_other(Model.of(model, mean=mean, std=std))
    checks = [attempted("files", check_sums, folder)]
    if signed_by is not None:
        checks.append(signed(folder, Path(signed_by)))
    try:
        result, said = record_of(plain_file(folder / RECORD, LARGEST))
        points = points_of(folder)
    except LoadError as error:
        return Verification((*checks, Check("record", False, str(error))), None, model is not None)
    checks.append(Check("record", True, said))
    own = None
    if model is not None and data is not None and threat is not None and attempted("terms", claims, result).holds:
        declared = Model.of(model, mean=mean, std=std)
        where = Home(declared.network).device if device is None else torch.device(device)
        own = replace(_brought(result, declared.to(where), data, threat, search or Search()), policy=policy)
    checks += of_record(result, points, own)
    sound = all(check.holds for check in checks if check.name in SOUND)
    if own is not None and sound:
        asked = list(of_model(result, points, own, Home(own.case.model.network).device, again))
        named = {check.name for check in asked}
        checks = [check for check in checks if check.name not in named] + asked
    elif model is not None:
        checks.append(Check("model and data", False, "not asked: the record contradicts itself, see above"))
    return Verification(tuple(checks), result, model is not None)


def _brought(result: Result, model: Model, data: Data, threat: Threat, search: Search) -> "Verifier":
    described = "tensors" if isinstance(data, tuple) else type(data).__name__
    case = Case(IMAGES.name, model, (), threat, described, no_summary, search=search)
    return verifier_of(result, case, Batches(data, classes=model.classes), called=(result.data,))


def verifier_of(
    result: Result,
    case: Case,
    data: Any = None,
    *,
    called: tuple[str, ...] = (),
    total: int | None = None,
    levels: tuple[float, ...] | None = None,
) -> "Verifier":
    """Model and data of a case, ready to be asked what the record says of them.

    Args:
        result: the record.
        case: the verifier's own.
        data: in the place of the case's batches.
        called: what the data may be called; () for the case's own word.
        total: examples of the data, if known.
        levels: sizes of the security curve, as options ask for them; None where no options are known.
    """
    space = case.model.space(case.search.budget)
    threats = {"": case.threat} if isinstance(case.threat, ThreatModel) else dict(case.threat)
    given = case.batches if data is None else data
    searched = threats
    if space.budget == "normalised":
        first = next(iter(batches(given, 1)))[0]
        assert isinstance(first, Tensor)
        searched = {name: space.threat(part, first) for name, part in threats.items()}
    raw = threats.get("") if case.domain == IMAGES.name else None
    return Verifier(
        case,
        drawn_anew(case.model, space, Key(secrets.randbits(63))),
        _audited(given, result),
        (lambda x: x) if raw is None else (lambda x: space.to_search(x, raw)),
        searched,
        total,
        called or (case.data,),
        levels,
        tuple(entry.name for entry in result.attacks),
    )


# Of a record that fails one of these, nothing is asked: it is not known what.
SOUND = ("counts", "terms", "points")


@dataclass(frozen=True)
class Verifier:
    """The verifier's model and data.

    Attributes:
        case: the verifier's own.
        predictor: calls the model.
        batches: of the examples that the record is of.
        to_search: from the data's units to those of the budget.
        searched: by input, the threat in the units of the search.
        total: examples of the data, if known.
        data: what the data may be called, all of it or the first so many.
        levels: sizes of the security curve, as the options have them; None where the report states no options.
        ran: what the record calls its attacks.
        policy: the verifier's own detectors; None where none were brought.
    """

    case: Case
    predictor: Predictor
    batches: Iterable[tuple[Tree, Tensor | None]]
    to_search: Callable[[Tensor], Tensor]
    searched: Mapping[str, ThreatModel]
    total: int | None
    data: tuple[str, ...]
    levels: tuple[float, ...] | None
    ran: tuple[str, ...] = ()
    policy: Policy | None = None

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


def record_of(text: bytes) -> tuple[Result, str]:
    """The record, and what is to be said of its schema.

    Raises:
        LoadError: it is none.
    """
    try:
        plain = parse(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise not_a_result(f"it is not UTF-8 ({error})") from error
    result = Result.from_plain(plain)
    by = f"made by signstep {result.versions.get('signstep')}"
    old = "" if plain["schema"] == SCHEMA else f", which this version reads as {SCHEMA}"
    return result, f"schema {plain['schema']}{old}, {by}"


def points_of(report: Path) -> dict[str, Tensor]:
    """The saved points of a report's folder; none where none were saved.

    Raises:
        LoadError: the file is none of such.
    """
    path = report / POINTS
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise LoadError(f"{path} is no plain file", remedy="pass a report")
    return Evidence.load(path) if path.is_file() else {}


def of_record(result: Result, points: Mapping[str, Tensor], own: Verifier | None = None) -> list[Check]:
    """Every check of record and points that asks no model."""
    attacks, terms = (None, None) if own is None else (own.attacks, own.terms)
    domain = result.terms.get("domain")
    # Signstep's own code, whichever of its domains the record names.
    checkers = find_domain(domain).checkers if isinstance(domain, str) and domain in DOMAINS else None
    checks = [
        recount(result),
        attempted("terms", claims, result),
        plans.ladder(result),
        attempted("passes", plans.passes, result, attacks),
        attempted("points", rescore.saved, result, points),
    ]
    if result.diagnosis is not None:
        checks.append(attempted("diagnosis", agreement, result))
    if result.terms.get("bounds") is not None or result.per_example.bounds:
        checks.append(attempted("bounds", _unproved, result))
    if (left := unasked(result)) is not None:
        checks.append(left)
    if all(check.holds for check in checks if check.name == "points"):
        checks.append(attempted("threat model", rescore.allowed, result, points, checkers, terms))
        if result.knob is not None:
            checks.append(attempted("knob", knob_check, result, points))
    return checks


def _unproved(result: Result) -> Check:
    """What the record alone tells of its bounds."""
    if result.contradictions:
        return Check("bounds", False, f"examples {list(result.contradictions[:5])} are proved, and a point fools them")
    return Check("bounds", True, "not proved again: that needs the model and the data", complete=False)


def of_model(
    result: Result, points: Mapping[str, Tensor], own: Verifier, device: torch.device, again: int = 0
) -> Iterator[Check]:
    """Every check that needs the verifier's model or data."""
    yield names(result, own)
    yield rescore.hashes(result, own.hashes)
    yield threat(result, own)
    if result.detection is not None:
        yield detectors(result, own)
    if own.of_schema:
        yield domain_terms(result, own, own.case)
    bounded = result.terms.get("bounds") is not None
    kept = list(own.batches) if again or bounded or own.policy is not None else own.batches
    declared = own.case.model
    task, model = declared.task, declared.network
    with untouched(model, mode=declared.mode), torch.no_grad():
        checks, there = rescore.of_data(
            result,
            points,
            kept,
            own.predictor,
            task,
            own.to_search,
            span_of(own.searched),
            own.total,
            own.case.search.loss,
        )
        yield from checks
        if len(there) == result.examples:  # what the record alone leaves open, where classes may be absent
            yield attempted("passes", plans.passes, result, own.attacks, there)
        yield attempted("answers", rescore.answers, result, points, own.predictor, task)
        if result.knob is not None:
            yield attempted("knob", knob_check, result, points, own.predictor, task)
    if bounded:
        yield proved_again(
            result,
            kept,
            model=declared,
            threat=own.case.threat,
            search=own.case.search,
            device=device,
        )
    if own.policy is not None:
        yield attempted(
            "detection",
            detected_again,
            result,
            points,
            [(tree_map(own.to_search, x), y) for x, y in kept],
            model=declared,
            policy=own.policy,
            device=device,
        )
    if again:
        yield attacked_again(
            result,
            kept,
            again,
            model=declared,
            threat=own.case.threat,
            search=own.case.search,
            attacks=own.attacks,
            device=device,
        )


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


def detectors(result: Result, own: Verifier) -> Check:
    """Whether the detectors were calibrated with the verifier's model: a rate holds for that one alone.

    The detectors themselves are not here, and neither are their p-values asked again.
    """
    assert result.detection is not None
    here = digests_of(own.case.model)
    said = [(one.name, {name: one.digests.get(name) for name in here}) for one in result.detection.detectors]
    swapped = [name for name, stated in said if stated["model"] != here["model"]]
    if swapped:
        return Check("detectors", False, f"{', '.join(swapped)} was calibrated with another model")
    other = [name for name, stated in said if stated != here]
    if other:  # functions of somebody's own are known by their names, which may be others here
        seen = f"{', '.join(other)} was calibrated with a model that was declared otherwise than here"
        return Check("detectors", True, seen, complete=False)
    return Check("detectors", True, "calibrated with your model, by the record's word; they were not asked again")


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


def _audited(data: Any, result: Result) -> Iterator[tuple[Tree, Tensor | None]]:
    """The data, or the shard of it that the record is of."""
    return batches(data, None, part_of(result.terms.get("shard")))
