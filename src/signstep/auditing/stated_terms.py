"""The terms of a record against each other: one threat, said in words, in numbers and as a label, is one threat."""

import math
import re
from collections.abc import Mapping
from typing import Any

from signstep.auditing.checks import Book, Check
from signstep.auditing.input_spaces import TERM, sound
from signstep.auditing.parts import fine
from signstep.auditing.result import Result
from signstep.certify.methods import METHODS
from signstep.engine.ways import PATHS

# What every record states; those of domains add two.
TERMS = (
    "tolerance",
    "task",
    "goal",
    "labels",
    "loss",
    "random_model",
    "outputs_form",
    "threat_terms",
    "classes",
    "threat",
    "norm",
    "eps",
    "eps_value",
    "box_span",
    "input_space",
    "mode",
    "gradients_from",
    "engine",
    "transform",
    "eot",
    "target",
    "seed",
    "device",
    "shard",
)
OF_DOMAINS = ("domain", "domain_terms")
AT_TIMES = ("left_out", "requests", "bounds", "defences", "ways", "units", TERM)

_WORDS = {
    "goal": ("untargeted", "targeted"),
    "labels": ("given", "predicted"),
    "outputs_form": ("logits", "behind", "lost", "labels"),
    "mode": ("eval", "keep"),
    "gradients_from": ("the model", "surrogate"),
    "engine": ("exact", "fast", "float32"),
    "target": (None, "random", "least-likely", "next"),
}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "tolerance": (int, float),
    "task": (str,),
    "loss": (str,),
    "random_model": (bool,),
    "threat_terms": (dict,),
    "classes": (int, type(None)),
    "threat": (str,),
    "norm": (str,),
    "eps": (str,),
    "eps_value": (int, float, type(None)),
    "box_span": (int, float, type(None)),
    "input_space": (dict,),
    "transform": (str, type(None)),
    "eot": (int,),
    "seed": (int,),
    "device": (str,),
    "shard": (list, type(None)),
    "left_out": (dict,),
    "requests": (dict,),
    "bounds": (dict,),
    "defences": (dict,),
    "ways": (dict,),
    "units": (dict,),
    TERM: (dict,),
    "domain": (str,),
    "domain_terms": (dict,),
}
_THREAT = re.compile(
    r"(?P<norm>\S+) eps=(?P<eps>.+?), (?:no box|box=\[(?P<low>[^,\]]+), (?P<high>[^,\]]+)\])"
    r"(?P<mask>, mask \(\d+% free\))?(?:, grid of (?P<grid>\d{1,9}) steps)?"
)
_WAY = re.compile(r"(?:straight|soft|identity)(?: over \d{1,4} draws)?")
# Grouped norms stand in the threat's words by the name that was typed.
_CALLED = {"pixel": "grouped(0)", "atom": "grouped(-1)", "token": "grouped(-1)"}
_PARTS = {"kind", "axes", "eps", "low", "high", "grid"}


def claims(result: Result) -> Check:
    """Whether the terms are all there, of the right kind, and agree with each other."""
    book, terms = Book(), result.terms
    for name in TERMS:
        book.need(name in terms, f"{name} is missing")
    for name in sorted(set(terms) - {*TERMS, *OF_DOMAINS, *AT_TIMES}):
        book.wrong.append(f"{name} is no term of a record")
    for name, words in _WORDS.items():
        value = terms.get(name)
        book.need(value in words, f"{name} is {value!r}, none of {', '.join(map(str, words))}")
    for name, kinds in _TYPES.items():
        if name in terms:
            book.need(type(terms[name]) in kinds, f"{name} is {terms[name]!r}")
    if not book.wrong:
        _agree(result, book)
    return book.check("terms", "they agree with each other")


def _agree(result: Result, book: Book) -> None:
    terms = result.terms
    book.need((terms["goal"] == "targeted") == (terms["target"] is not None), "goal and target contradict each other")
    book.need(terms["eot"] >= 1, f"eot is {terms['eot']}")
    counts = terms.get("left_out", {"": 1})
    book.need(
        bool(counts) and all(isinstance(count, int) and count > 0 for count in counts.values()),
        f"left_out is {terms.get('left_out')}",
    )
    if "requests" in terms:
        _requests(terms["requests"], book)
    _bounds(terms.get("bounds"), book)
    _defences(terms, book)
    _ways(result, book)
    book.need(0 <= terms["tolerance"] <= 1 or terms["box_span"] is None, f"tolerance is {terms['tolerance']}")
    book.need(sound(result), f"{TERM} is none")
    book.need(fine(terms["shard"]), f"shard is {terms['shard']}")
    book.need("units" not in terms or _units(terms["units"]), f"units are {terms.get('units')}")
    book.need(
        (terms["domain_terms"] is not None) if "domain" in terms else "domain_terms" not in terms,
        "domain is half stated",
    )
    space = terms["input_space"]
    book.need(set(space) == {"mean", "std", "inputs", "budget"}, f"input_space has {sorted(space)}")
    for name in ("inputs", "budget"):
        book.need(space.get(name) in ("raw", "normalised"), f"input_space: {name} is {space.get(name)!r}")
    parts = terms["threat_terms"].get("inputs")
    if parts is not None:
        alone = set(terms["threat_terms"]) == {"inputs"} and isinstance(parts, dict)
        if book.need(alone, "threat_terms are of several inputs and of one"):
            for name, part in parts.items():
                _numbers(f"threat_terms of {name}", part, book)
        return
    if _numbers("threat_terms", terms["threat_terms"], book):
        _one_threat(terms, terms["threat_terms"], book)


def _requests(asked: Mapping[str, Any], book: Book) -> None:
    """Whether what was asked of an endpoint is possible; nobody can tell afterwards whether it is so."""
    kinds: Mapping[str, tuple[type, ...]] = {
        "sent": (int,),
        "retries": (int,),
        "waited": (int, float),
        "most": (int, type(None)),
        "cost": (int, float, type(None)),
        "currency": (str,),
        "contradictions": (int,),
    }
    fine = set(asked) == set(kinds) and all(type(asked[name]) in kind for name, kind in kinds.items())
    fine = fine and all(asked[name] is None or asked[name] >= 0 for name in kinds if name != "currency")
    fine = fine and asked["retries"] <= asked["sent"] and (asked["most"] is None or asked["sent"] <= asked["most"])
    book.need(fine, f"requests are {dict(asked)!r}")


def _units(stated: Mapping[str, Any]) -> bool:
    """Whether what is said of the units of the work is a size and machines; on which it ran nobody can tell."""
    if set(stated) != {"rows", "batch", "machines"} or not isinstance(stated["machines"], list):
        return False
    counts = all(type(stated[name]) is int and stated[name] > 0 for name in ("rows", "batch"))
    names = {"processor", "torch", "threads", "device"}
    return counts and all(
        isinstance(one, dict)
        and set(one) == names
        and type(one["threads"]) is int
        and all(isinstance(one[name], str) for name in names - {"threads"})
        for one in stated["machines"]
    )


def _bounds(stated: Any, book: Book) -> None:
    """Whether what is said of bounds is a method, a switch and a time."""
    if stated is None:
        return
    fine = set(stated) == {"method", "attack_all", "seconds", "curve"} and stated["method"] in METHODS
    fine = (
        fine
        and type(stated["attack_all"]) is bool
        and type(stated["curve"]) is bool
        and type(stated["seconds"]) in (int, float)
    )
    book.need(fine and stated["seconds"] > 0, f"bounds are {stated!r}")


def _defences(terms: Mapping[str, Any], book: Book) -> None:
    """Whether what is said of defences is a chain of names that the transform begins with, a box and a path."""
    stated = terms.get("defences")
    if stated is None:
        return
    fine = set(stated) == {"chain", "box", "versions", "path"} and stated["path"] in PATHS
    fine = fine and isinstance(stated["chain"], list) and bool(stated["chain"])
    fine = fine and all(isinstance(name, str) for name in stated["chain"])
    fine = fine and isinstance(stated["box"], list) and len(stated["box"]) == 2
    fine = fine and all(type(end) in (int, float) for end in stated["box"]) and stated["box"][0] < stated["box"][1]
    fine = fine and isinstance(stated["versions"], dict)
    fine = fine and all(isinstance(version, str) for version in stated["versions"].values())
    chain = " then ".join(stated["chain"]) if fine else ""
    said = f"{terms['transform']} then "
    book.need(fine and said.startswith(f"{chain} then "), f"defences are {stated!r}, the transform is {said[:-6]}")


def _ways(result: Result, book: Book) -> None:
    """Whether the ways past a defence account for as many as each attack fooled."""
    stated = result.terms.get("ways")
    if stated is None:
        return
    fell = {entry.name: entry.fooled for entry in result.attacks}
    book.need("defences" in result.terms and bool(stated), "there are ways past no defence")
    for name, counts in stated.items():
        fine = isinstance(counts, dict) and all(type(count) is int and count > 0 for count in counts.values())
        fine = fine and all(isinstance(way, str) and _WAY.fullmatch(way) for way in counts)
        book.need(fine and sum(counts.values()) == fell.get(name), f"ways of {name} are {counts!r}")


def _numbers(where: str, part: Any, book: Book) -> bool:
    """Whether one threat in numbers is whole and possible."""
    if not book.need(isinstance(part, dict) and set(part) == _PARTS, f"{where} are {part!r}"):
        return False
    fine = isinstance(part["kind"], str) and isinstance(part["axes"], list)
    fine = fine and all(type(axis) is int for axis in part["axes"])
    fine = fine and all(type(part[name]) in (int, float, type(None)) for name in ("eps", "low", "high"))
    fine = fine and type(part["grid"]) in (int, type(None))
    fine = fine and (part["eps"] is None or part["eps"] >= 0)
    fine = fine and (part["low"] is None or part["high"] is None or part["low"] <= part["high"])
    return book.need(fine, f"{where} are {part!r}")


def _one_threat(terms: Mapping[str, Any], part: Mapping[str, Any], book: Book) -> None:
    """The threat in words, its label and its numbers."""
    book.need(
        part["eps"] == terms["eps_value"], f"eps is {part['eps']} in threat_terms and {terms['eps_value']} in eps_value"
    )
    if terms["eps_value"] is not None:
        size = _fraction(terms["eps"])
        close = size is not None and math.isclose(size, terms["eps_value"], rel_tol=1e-5, abs_tol=1e-12)
        book.need(close, f"eps is written {terms['eps']!r}, and is {terms['eps_value']}")
    if "domain" in terms and part["kind"] == terms["norm"] and not part["axes"]:
        return  # the sets of domains have words of their own, which the verifier's schema is compared with
    said = _THREAT.fullmatch(terms["threat"])
    if not book.need(said is not None, f"threat {terms['threat']!r} is no threat model in words") or said is None:
        return
    measure = _CALLED.get(said["norm"], said["norm"])
    book.need(measure == terms["norm"], f"the threat is in {said['norm']}, the norm is {terms['norm']}")
    kind = "grouped" if part["axes"] else terms["norm"]
    book.need(part["kind"] == kind, f"the norm is {terms['norm']}, the threat's numbers are of {part['kind']}")
    book.need(
        said["eps"] == terms["eps"] or terms["eps_value"] is None,
        f"the threat says eps={said['eps']}, the terms {terms['eps']}",
    )
    book.need(part["grid"] == (int(said["grid"]) if said["grid"] else None), "the grid is not that of the threat")
    if terms["input_space"].get("budget") == "normalised":
        return  # its numbers are in the model's coordinates
    for name in ("low", "high"):
        end = part[name]
        written = None if end is None else f"{float(end):.6g}"
        stated = said[name]
        same = written == stated or (written is None and stated in (None, "open", "per feature"))
        book.need(same, f"the box's {name} end is {stated} in words and {written} in numbers")
    span = None if part["low"] is None or part["high"] is None else part["high"] - part["low"]
    stated = terms["box_span"]
    same = stated is None if span is None else stated is not None and math.isclose(span, stated, rel_tol=1e-9)
    book.need(same, f"box_span is {stated}, the box is {span} wide")


def _fraction(text: str) -> float | None:
    """A number, or a fraction such as 8/255; None where it is neither."""
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        return None
