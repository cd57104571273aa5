"""What a report's own signstep.toml states: read as words, compared with the record, and shown as a proposal.

Nothing it names is loaded. What says how numbers are to be read (normalisation, task, threat) is a claim like the
record's own terms and is used as one; code, weights, data and their files come from the person who verifies.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from signstep.attacks.recipes import canonical, split
from signstep.auditing.bracket import Bounds
from signstep.auditing.checks import Book, Check
from signstep.auditing.checksums import CONFIG, plain_file
from signstep.auditing.result import Result
from signstep.cli import options as o
from signstep.cli.app import command_tree
from signstep.cli.config import read_text
from signstep.defences.known import DEFENCES
from signstep.engine.norms import norm
from signstep.engine.threat import parse_threat
from signstep.errors import InputError, SignstepError
from signstep.importing import is_spec
from signstep.model.declaration import Model
from signstep.model.space import InputSpace
from signstep.registry import UnknownNameError, typed_only

LOADED = (
    "domain",
    "model",
    "model_arg",
    "weights",
    "trust",
    "endpoint",
    "max_requests",
    "defend",
    "data",
    "schema",
    "split",
    "resize",
    "label_column",
    "ignore_column",
    "classes",
    "skip_bad",
    "ignore_label",
    "max_pixels",
    "detect",
    "reject",
    "review",
    "clean",
)
"""What is loaded or decides what is: never taken from a report."""

READ = ("mean", "std", "inputs", "budget", "output", "outputs", "mode", "task", "tolerance", "threat", "box", "grid")
"""How numbers are to be read: claims of the report."""

_LARGEST = 2**20


@dataclass(frozen=True)
class ReportConfig:
    """The options of the audit, as the report states them.

    Attributes:
        options: by name; empty where the report has no configuration.
        ignore: findings that were set aside, with the reasons.
        there: whether there is a configuration.
    """

    options: dict[str, Any] = field(default_factory=dict)
    ignore: dict[str, str] = field(default_factory=dict)
    there: bool = False

    @property
    def names(self) -> dict[str, Any]:
        """Of what would be loaded, all that it names."""
        return {name: self.options[name] for name in LOADED if stands_for_something(self.options.get(name))}

    @property
    def reading(self) -> dict[str, Any]:
        """How it says that numbers are to be read."""
        return {name: self.options[name] for name in READ if self.options.get(name) is not None}


def report_config(report: Path) -> tuple[ReportConfig, Check | None]:
    """What a report's configuration says; and the check that fails where it cannot be read."""
    if not (report / CONFIG).exists() and not (report / CONFIG).is_symlink():
        return ReportConfig(), None
    try:
        text = plain_file(report / CONFIG, _LARGEST)
        settings = read_text(text, report / CONFIG, command_tree())
        others = sorted(set(settings.defaults) - {"audit"})
        if others:
            raise InputError(f"it has a table [{others[0]}]", remedy="that of an audit has [audit] alone")
        options = settings.defaults.get("audit", {})
        _plain(options)
        return ReportConfig(options, settings.ignore, there=True), None
    except SignstepError as error:
        return ReportConfig(), Check("configuration", False, f"{CONFIG} is no configuration of an audit: {error}")


_WHOLE = (
    "grid",
    "seed",
    "eot",
    "limit",
    "save_points",
    "threads",
    "tolerance",
    "ignore_label",
    "max_pixels",
    "max_requests",
)


def _plain(options: Mapping[str, Any]) -> None:
    """Whether the values are of the kinds that such a file has.

    Raises:
        InputError: one is not.
    """
    for name, value in options.items():
        if isinstance(value, list):
            fine = all(isinstance(part, str) for part in value)
        elif name in _WHOLE:
            # Longer numbers than a machine's cannot even be said.
            fine = type(value) in (int, float) and -(2**63) <= value < 2**63
        elif name in ("trust", "skip_bad", "predicted_labels", "dry_run", "diagnose"):
            fine = isinstance(value, bool)
        else:
            fine = isinstance(value, str) or (type(value) in (int, float) and -(2**63) <= value < 2**63)
        if not fine:
            raise InputError(
                f"{name} is {_said(value)}, which no audit writes", remedy="pass a report that nobody has changed"
            )


def _said(value: object) -> str:
    """A value in words; Python writes no number of many thousand digits."""
    long = isinstance(value, int) and not -(2**63) <= value < 2**63
    return f"a whole number of {value.bit_length()} bits" if isinstance(value, int) and long else repr(value)


def proposal(report: Path, stated: ReportConfig) -> str | None:
    """The command that would verify with what the report names, quoted for a shell; None where it names nothing.

    That loading may run code is for the reader to decide: ``--trust`` is left out.
    """
    # Rates are those of detectors, and say nothing where there are none.
    idle = ("trust",) if stated.names.get("detect") else ("trust", "reject", "review", "clean")
    names = {name: value for name, value in stated.names.items() if name not in idle}
    if not names:
        return None
    names |= {name: value for name, value in _own_words(stated).items() if value}
    words = ["signstep", "verify", str(report)]
    for name, value in names.items():
        option = f"--{name.replace('_', '-')}"
        for part in value if isinstance(value, list) else [value]:
            # One word each, so that no value can be read as another option.
            words.append(option if part is True else f"{option}={part}")
    return " ".join(shlex.quote(word) for word in words)


def _own_words(stated: ReportConfig) -> dict[str, Any]:
    """Of what the audit ran and measured by, that which is none of Signstep's: it is typed or not checked."""
    pieces = [o.attacks_of(stated.options[name]) for name in ("attack", "ladder") if stated.options.get(name)]
    bases = [split(canonical(piece.partition(" ")[0]))[0] for part in pieces for piece in part]
    said = str(stated.options.get("threat") or "")
    return {
        "attack": list(dict.fromkeys(base for base in bases if is_spec(base))),
        "threat": None if norm_is_known(said) else said,
        "finding": list(stated.options.get("finding") or ()),
    }


def norm_is_known(threat: str) -> bool:
    """Whether the norm of "norm:eps" is one that is here: Signstep's, or one that was typed. Nothing is imported."""
    with typed_only():
        try:
            norm(threat.rpartition(":")[0])
        except UnknownNameError:
            return False
        except InputError as error:
            return not isinstance(error.__cause__, UnknownNameError)
    return True


def read_so(stated: ReportConfig) -> str | None:
    """How inputs and outputs were read because the report says so, in words; None where it is as usual."""
    usual = {"inputs": "raw", "budget": "raw", "outputs": "auto", "mode": "eval", "task": "auto"}
    claims = {name: value for name, value in stated.reading.items() if name not in ("threat", "box", "grid")}
    words = [f"{name} = {value!r}" for name, value in claims.items() if value != usual.get(name)]
    return ", ".join(words) or None


def agrees(result: Result, stated: ReportConfig, model: Model | None = None) -> Check:
    """Whether the configuration is that of the record.

    What a model declares itself no option says: it is compared with that of the verifier's own ``model``, where there
    is one.
    """
    if not stated.there:
        return Check("configuration", True, f"there is no {CONFIG}: the record's terms stand alone", complete=False)
    book = Book()
    said = stated.options.get("threat")
    known = said is None or norm_is_known(str(said)) or "domain" in result.terms
    try:
        _compare(result, stated.options if known else {**stated.options, "threat": None}, book, model)
    except (SignstepError, ValueError, TypeError, KeyError, AttributeError) as error:
        book.wrong.append(f"it cannot be read ({error})")
    check = book.check("configuration", "its options are those of the record")
    return check if known else replace(check, seen=f"{check.seen}; of {said} nothing is known here", complete=False)


def _compare(result: Result, options: Mapping[str, Any], book: Book, model: Model | None) -> None:
    terms = result.terms

    def same(name: str, said: object, recorded: object) -> None:
        book.need(said == recorded, f"{name} is {said!r} in {CONFIG}, {recorded!r} in the record")

    same("domain", None if options.get("domain") in (None, "image") else options["domain"], terms.get("domain"))
    for name, default in (("seed", 0), ("eot", 1), ("engine", "exact")):
        same(name, options.get(name, default), terms.get(name))
    stated = terms.get("defences") or {"path": options.get("gradient_path", "aware")}
    same("gradient_path", options.get("gradient_path", "aware"), stated.get("path"))
    _compare_bounds(options.get("bounds"), terms.get("bounds"), book)
    # What no option of an audit asks for.
    same("gradients_from", "the model", terms.get("gradients_from"))
    _compare_defences(options.get("defend") or (), stated.get("chain") or [], book)
    # A verifier who brings no defence leaves the answers behind it unchecked, which the check of answers says.
    if model is not None and (model.transform is not None or "chain" not in stated):
        same("transform", None if model.transform is None else str(model.transform), terms.get("transform"))
    same(
        "shard", None if options.get("shard") is None else list(o.shard_of(str(options["shard"])) or ()), terms["shard"]
    )
    entries = [entry.name for entry in result.attacks]
    climbed = o.ladder_of(options.get("ladder"))
    if isinstance(climbed, str):
        same("ladder", climbed, result.ladder)
    elif climbed is not None:
        same("rungs", [_short(name) for name in map(canonical, climbed)], [_short(name) for name in entries])
        same("ladder", "custom", result.ladder)
    elif "attack" in options or "domain" not in terms:
        same("attacks", [canonical(name) for name in o.attacks_of(options.get("attack"))], entries)
        same("ladder", "", result.ladder)
    limit = options.get("limit")
    if limit is not None and terms["shard"] is None:
        book.need(result.examples <= limit, f"limit is {limit} in {CONFIG}, the record has {result.examples} examples")
    if terms.get("domain") is not None:
        return  # its schema says the rest, and what it says is compared with the verifier's own
    mode = options.get("mode", "eval")
    if model is not None or mode != "eval":
        same("mode", mode if model is None else model.mode, terms["mode"])
    goal = options.get("goal", "untargeted")
    same("goal", None if goal == "untargeted" else goal, terms["target"])
    same("labels", "predicted" if options.get("predicted_labels") else "given", terms["labels"])
    _compare_spaces(options, terms, book, model)
    if options.get("loss") not in (None, "dlr"):  # too few classes for DLR make it the margin
        same("loss", options["loss"], terms["loss"])
    task = options.get("task", "auto")
    if task != "auto":
        same("task", task, str(terms["task"]).partition(" ")[0])
    if options.get("threat") is not None:
        box = options.get("box")
        ends = o.box_of(None if box is None else str(box), _ends(terms) or (0.0, 1.0))
        threat = parse_threat(str(options["threat"]), box=ends, grid=options.get("grid"))
        same("threat", str(threat), terms["threat"])
    curve = options.get("curve", "auto")
    if curve not in ("auto", "none"):
        levels = [point.eps for point in next(iter(result.curves.values()), ())]
        book.need(
            not levels or levels == o.numbers(str(curve), "curve"),
            f"curve is {curve} in {CONFIG}, the record's {levels}",
        )


def _compare_defences(said: Sequence[str], recorded: Sequence[str], book: Book) -> None:
    """The rows of defences that were asked for; one of the auditor's own code has whatever name it gives itself."""
    asked, chain = ([str(name).partition(":")[0] for name in names] for names in (said, recorded))
    known = all(name in DEFENCES for name in asked)
    book.need(
        asked == chain if known else len(asked) <= len(chain),
        f"defend is {list(said)!r} in {CONFIG}, {list(recorded)!r} in the record",
    )


def _compare_bounds(said: object, recorded: object, book: Book) -> None:
    """The bounds that were asked for; a model may have none."""
    asked = Bounds.of(None if said is None else str(said))
    stated = None if asked is None else asked.terms()
    book.need(recorded is None or stated == recorded, f"bounds are {stated!r} in {CONFIG}, {recorded!r} in the record")


def _compare_spaces(options: Mapping[str, Any], terms: Mapping[str, Any], book: Book, model: Model | None) -> None:
    """The input space: as the options state it, or as the verifier's own model declares it."""
    budget, recorded = options.get("budget", "raw"), terms["input_space"]
    if model is not None:
        said = model.space(budget).describe()
    elif options.get("mean") is not None:
        mean, std = (o.numbers(options.get(name), name) for name in ("mean", "std"))
        said = InputSpace.of(mean, std, inputs=options.get("inputs", "raw"), budget=budget).describe()
    else:
        said = {**recorded, "budget": budget}
    book.need(said == recorded, f"input space is {said!r} in {CONFIG}, {recorded!r} in the record")


def _short(name: str) -> str:
    """A rung without the number that tells it from an earlier one of the same name."""
    return " ".join(word for word in name.split() if not word.startswith("#"))


def _ends(terms: Mapping[str, Any]) -> tuple[float, float] | None:
    """The box in raw units, for configurations that leave it to the data."""
    said = str(terms["threat"])
    start = said.find("box=[")
    if start < 0:
        return None
    low, _, high = said[start + 5 :].partition("]")[0].partition(", ")
    try:
        return float(low), float(high)
    except ValueError:
        return None


def stands_for_something(value: object) -> bool:
    """Whether an option was given: 0 is a label like any other, False is no flag."""
    return value is not None and value is not False and value != []
