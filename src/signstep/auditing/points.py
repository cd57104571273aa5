"""The saved points by themselves: well formed, of the examples that fell, inside the threat, at the recorded distance.

Needs no model, and reaches nothing that attacks.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from signstep.auditing.checks import Book, Check
from signstep.auditing.result import Result
from signstep.engine.verify import KINDS, Terms, Verification, verify

Checker: TypeAlias = Callable[[Mapping[str, Any], Tensor, Tensor], Verification]

_COLUMNS = ("row", "id", "attack", "answer", "answer_adv", "y", "target", "confidence", "confidence_adv")
_OF_THE_THREAT = ("eps", "low", "high", "mask")
_INPUTS = ("x", "x_adv")


def saved(result: Result, points: Mapping[str, Tensor]) -> Check:
    """Whether the saved points are well formed, and are those of the examples that fell and of the attack that did it.

    An example that fell and has no point leaves the check incomplete.
    """
    fooled = [row for row, letter in enumerate(result.worst_case) if letter == "f"]
    if not points:
        return Check("points", True, f"none was saved of {len(fooled)} fooled examples", complete=not fooled)
    book = Book()
    if not _well_formed(result, points, book):
        return book.check("points", "")
    examples, names = result.per_example, [entry.name for entry in result.attacks]
    targeted = result.terms.get("goal") == "targeted"
    for place, (row, attack, identity) in enumerate(
        zip(points["row"].tolist(), points["attack"].tolist(), points["id"].tolist(), strict=True)
    ):
        first = next((k for k, name in enumerate(names) if examples.verdicts[name][row] == "f"), None)
        if examples.clean[row] != "r" or first is None:
            book.wrong.append(f"example {row} has a point and did not fall")
            continue
        book.need(attack == first, f"the point of example {row} is of attack {attack}, it fell to {first}")
        stated = examples.ids[row]
        book.need(f"{identity & (2**64 - 1):016x}" == stated, f"the point of example {row} has another id")
        if examples.answers:
            said = {"answer": examples.answers["clean"][row], "answer_adv": examples.answers[names[first]][row]}
            for name, value in said.items():
                same = int(points[name][place]) == value
                book.need(same or bool(result.terms.get("random_model")), f"example {row}: {name} is not the record's")
            if "y" in points:
                book.need(int(points["y"][place]) == examples.labels[row], f"example {row}: its label differs")
    book.need("y" in points or not examples.labels, "the points have no labels")
    book.need(("target" in points) == targeted, f"the points have {'no targets' if targeted else 'targets'}")
    missing = len(set(fooled) - set(points["row"].tolist()))
    seen = f"{len(points['row'])} of {len(fooled)} fooled examples have theirs"
    check = book.check("points", seen + (f", {missing} were not saved" if missing else ""))
    return Check(check.name, check.holds, check.seen, complete=not missing)


def _well_formed(result: Result, points: Mapping[str, Tensor], book: Book) -> bool:
    ends = sorted({name.partition(":")[2] for name in points if ":" in name})
    known = {
        *_COLUMNS,
        *(f"{name}{end}" for name in (*_INPUTS, *_OF_THE_THREAT) for end in ("", *(f":{e}" for e in ends))),
    }
    for name in sorted(set(points) - known):
        book.wrong.append(f"there is a tensor {name!r}, which points do not have")
    for name in ("row", "id", "attack"):
        part = points.get(name)
        if not book.need(
            part is not None and part.dtype == torch.int64 and part.ndim == 1, f"{name} is missing or no int64 (n,)"
        ):
            return False
    for name in ("answer", "answer_adv"):
        book.need(name in points, f"{name} is missing")
    count = len(points["row"])
    for name, part in points.items():
        book.need(part.ndim > 0 and len(part) == count, f"{name} has shape {tuple(part.shape)} for {count} points")
    pairs = [name for name in points if name.partition(":")[0] == "x_adv"]
    book.need(bool(pairs), "x_adv is missing")
    for name in pairs:
        before, after = points.get(name.replace("x_adv", "x", 1)), points[name]
        if before is None or before.shape != after.shape or before.dtype != after.dtype:
            book.wrong.append(f"{name} has no x of its shape and type")
    if book.wrong:
        return False
    rows = points["row"].tolist()
    book.need(len(set(rows)) == count, "an example has two points")
    book.need(all(0 <= row < len(result.per_example.clean) for row in rows), "a point is of no example")
    book.need(all(0 <= number < len(result.attacks) for number in points["attack"].tolist()), "a point is of no attack")
    for name in pairs:
        after = points[name]
        book.need(
            not after.is_floating_point() or bool(torch.isfinite(after).all()), f"{name} has values that are no numbers"
        )
    if len(pairs) > 0 and count:
        moved = torch.stack(
            [(points[n] != points[n.replace("x_adv", "x", 1)]).reshape(count, -1).any(1) for n in pairs]
        ).any(0)
        book.need(bool(moved.all()), f"{int((~moved).sum())} points are the untouched input itself")
    return not book.wrong


def allowed(
    result: Result,
    points: Mapping[str, Tensor],
    checkers: Mapping[str, Checker] | None = None,
    own: Mapping[str, Terms] | None = None,
) -> Check:
    """Whether each saved point lies inside the threat model, at the distance that the record states.

    Args:
        result: the record, whose numbers are the threat.
        points: the saved points.
        checkers: by kind, those of sets that are no balls in boxes; they get the record's terms and the points of one
            input, untouched and attacked.
        own: by input, "" for the only one, the threat as the verifier reads it. Bounds, masks and sizes for each
            example come from there; what the points bring along of these is compared with it, never believed.
    """
    terms = result.terms.get("threat_terms")
    if not points:
        return Check("threat model", True, "no points were saved")
    if terms is None:
        return Check("threat model", False, "the record does not state the threat in numbers")
    several = {f":{name}": part for name, part in terms["inputs"].items()} if "inputs" in terms else {"": terms}
    book, complete = Book(), True
    inside, tolerance = torch.ones(len(points["row"]), dtype=torch.bool, device="cpu"), 0.0
    sizes = torch.zeros(len(points["row"]), dtype=torch.float64, device="cpu")
    for end, part in several.items():
        if f"x_adv{end}" not in points:
            return Check("threat model", False, f"the saved points have no input {end[1:]!r}")
        known = None if own is None else own.get(end[1:])
        complete &= _told_twice(result, points, part, end, known, book)
        if book.wrong:
            return book.check("threat model", "")
        answer = _checked(result, points, part, end, known, (checkers or {}).get(part["kind"]))
        if answer is None:
            return Check("threat model", True, f"not checked: {_brought(part['kind'], result)}", complete=False)
        inside, tolerance = inside & answer.ok.cpu(), max(tolerance, answer.tolerance)
        sizes = torch.maximum(sizes, answer.size.cpu().double())
    rows = points["row"][~inside].tolist()
    book.need(not rows, f"{len(rows)} points outside, examples {rows[:5]}")
    _distances(result, points, sizes, book)
    stated = result.terms.get("tolerance", 0.0)
    book.need(
        stated <= max(tolerance, 1e-12) * (1 + 1e-6),
        f"the record allows a tolerance of {stated:.2g}, the check {tolerance:.2g}",
    )
    check = book.check("threat model", f"{len(inside)} points inside, tolerance {tolerance:.2g}")
    own_word = f"{check.seen}; bounds for each example are the report's own word"
    return check if complete else replace(check, seen=own_word, complete=False)


def _told_twice(
    result: Result, points: Mapping[str, Tensor], part: Mapping[str, Any], end: str, own: Terms | None, book: Book
) -> bool:
    """Whether what points bring along of the threat is what the verifier has; False where that cannot be said.

    Only what the record cannot hold in plain numbers may come with the points.
    """
    said, complete = str(result.terms.get("threat")), True
    normalised = (result.terms.get("input_space") or {}).get("budget") == "normalised"
    words = {"eps": "per example", "low": "per feature", "high": "per feature", "mask": "mask ("}
    for name in _OF_THE_THREAT:
        brought = points.get(name + end)
        if own is not None and name != "mask" and not _tensor(getattr(own, name)):
            same = _number(getattr(own, name)) == part.get(name)
            book.need(
                same, f"{name} is {part.get(name)} in the record, and {_number(getattr(own, name))} as it is read here"
            )
        if brought is None:
            continue
        allowed_ = part.get(name) is None and (words[name] in said or (normalised and name in ("low", "high")))
        if not book.need(allowed_, f"the points bring along a {name} of their own, and the threat is {said}"):
            continue
        mine = None if own is None else getattr(own, name)
        if (
            not isinstance(mine, Tensor)
            or (name == "eps" and mine.ndim)
            or (len(mine) not in (1, len(brought)) and mine.ndim >= brought.ndim)
        ):
            complete = False
            continue
        shaped = mine if mine.ndim == brought.ndim else mine.reshape(*([1] * (brought.ndim - mine.ndim)), *mine.shape)
        same = (
            bool((shaped.to(brought.dtype) == brought).all())
            if name == "mask"
            else torch.allclose(shaped.double().expand_as(brought), brought.double(), rtol=1e-6, atol=1e-9)
        )
        book.need(same, f"the points bring along another {name} than the threat has")
    return complete


def _tensor(part: object) -> bool:
    return isinstance(part, Tensor) and part.ndim > 0


def _number(part: float | Tensor | None) -> float | None:
    return None if part is None else float(part)


def _distances(result: Result, points: Mapping[str, Tensor], sizes: Tensor, book: Book) -> None:
    """Whether the points lie where the record says that the attack had led the examples."""
    names, distances = [entry.name for entry in result.attacks], result.per_example.distances
    for row, number, size in zip(points["row"].tolist(), points["attack"].tolist(), sizes.tolist(), strict=True):
        column = distances.get(names[number]) if 0 <= number < len(names) else None
        stated = column[row] if column is not None and 0 <= row < len(column) else None
        near = stated is not None and abs(stated - size) <= 1e-5 * max(size, abs(stated)) + 1e-7
        book.need(near, f"the point of example {row} is {size:.6g} away, the record has {stated}")


def _checked(
    result: Result,
    points: Mapping[str, Tensor],
    part: Mapping[str, Any],
    end: str,
    known: Terms | None,
    checker: Checker | None,
) -> Verification | None:
    """What the checker says of the points of one input; None where nobody here has one for this norm or set."""
    before, after = points[f"x{end}"], points[f"x_adv{end}"]
    if checker is not None:
        return checker(result.terms, before, after)
    check = known.check if known is not None and known.kind == part["kind"] else None
    if check is None and part["kind"] not in KINDS:
        return None
    return verify(before, after, replace(_terms_of(part, points, end), check=check))


def _brought(kind: str, result: Result) -> str:
    """What is to be brought, so that points in a norm or set that is not Signstep's can be checked."""
    what = f"{kind!r} is no norm or set of Signstep's, and whoever has it brings its check"
    if "domain" in result.terms:
        return f"{what}: pass --domain {result.terms['domain']}, if you trust it"
    return f"{what}: pass --threat with your own, as module:norm:eps, if you trust it"


def _terms_of(terms: Mapping[str, Any], points: Mapping[str, Tensor], end: str) -> Terms:
    kept = {name: points[name + end] if name + end in points else terms.get(name) for name in _OF_THE_THREAT}
    eps = kept["eps"].double() if isinstance(kept["eps"], Tensor) else kept["eps"]
    return Terms(terms["kind"], tuple(terms["axes"]), eps, kept["low"], kept["high"], kept["mask"], terms["grid"])
