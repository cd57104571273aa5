"""The record against itself: every figure that its examples decide, counted again, and nothing that cannot be.

Needs neither model nor data, and attacks nothing.
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from signstep.auditing.checks import Book, Check
from signstep.auditing.detection import Detection, missed
from signstep.auditing.figures import (
    ROUNDED,
    everywhere,
    fooled_within,
    median_distance,
    nearest_quartiles,
    passes_quartiles,
    transferred,
)
from signstep.auditing.gates import free_of, reaches
from signstep.auditing.record import NOT_RUN, AttackResult, CurvePoint, worst_case
from signstep.auditing.result import Result
from signstep.certify.methods import LETTERS, METHODS, OPEN

CLASSES = ("multiclass", "binary")
"""Tasks whose answers are classes, which the record then has for every example."""

_CLOSE = 1e-4  # relative: lengths that were rounded differently
_ID, _DIGEST = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{64}")


def recount(result: Result) -> Check:
    """Whether every figure in the record that the examples decide follows from their letters and numbers."""
    book = Book()
    try:
        # In this order: what comes later may rely on columns that are there and are as long as they should be.
        for part in (_columns, _totals, _possible, _ladder, _answers, _curves, _gates, _detection):
            part(result, book)
            if book.wrong:
                break
    except (KeyError, ValueError, IndexError, OverflowError) as error:  # columns that are missing or too short
        book.wrong.append(f"the examples cannot be counted ({type(error).__name__}: {error})")
    return book.check("counts", f"{len(result.per_example.clean)} examples counted again")


def _columns(result: Result, book: Book) -> None:
    """Whether there is one letter and one number for each example, where there are any, and none that mean nothing."""
    examples, count = result.per_example, len(result.per_example.clean)
    names = [entry.name for entry in result.attacks]
    book.same("examples", result.examples, count)
    book.need(count > 0, "the record has no examples")
    book.same("attacks", names, list(examples.verdicts))
    book.need(len(set(names)) == len(names), f"an attack comes twice in {names}")
    book.need(bool(names), "the record has no attack")
    book.same("number of ids", len(examples.ids), count)
    book.need(all(map(_ID.fullmatch, examples.ids)), "an id is not 16 hexadecimal digits")
    book.need(set(examples.clean) <= set("rw"), "a letter of the untouched examples is neither r nor w")
    book.same("number of smallest eps", len(examples.smallest_eps), count)
    tables: dict[str, tuple[Mapping[str, Sequence[object]], set[str], bool]] = {
        "verdicts": (examples.verdicts, set(names), True),
        "passes": (examples.passes, set(names), True),
        "distances": (examples.distances, set(names), True),
        "nearest": (examples.nearest, set(names), False),
        "answers": (examples.answers, {"clean", *names} if examples.answers else set(), True),
    }
    tables |= {f"letters of {other}": (there, {"clean", *names}, True) for other, there in examples.transfers.items()}
    for name, (table, wanted, all_of_them) in tables.items():
        if not (set(table) == wanted if all_of_them else set(table) <= wanted):
            book.wrong.append(f"the {name} are of {sorted(table)}, the attacks are {sorted(wanted)}")
        for column, values in table.items():
            book.same(f"number of {name} of {column}", len(values), count)
    book.need(
        all(set(column) <= set("fhu-") for column in examples.verdicts.values()), "a verdict is none of f, h, u, -"
    )
    book.need(
        all(set(column) <= set("rw-") for there in examples.transfers.values() for column in there.values()),
        "a letter of another model is none of r, w, -",
    )
    _bounds(result, book)
    classes = str(result.terms.get("task")) in CLASSES
    book.need(
        classes == bool(examples.answers),
        f"the answers are {'missing' if classes else 'there'}, and the task is {result.terms.get('task')}",
    )
    book.need(
        classes == bool(examples.labels),
        f"the labels are {'missing' if classes else 'there'}, and the task is {result.terms.get('task')}",
    )
    book.need(len(examples.labels) in (0, count), f"there are {len(examples.labels)} labels for {count} examples")


def _bounds(result: Result, book: Book) -> None:
    """Whether there is a letter of each example where bounds were taken, of a method that was tried."""
    letters, stated = result.per_example.bounds, result.terms.get("bounds")
    book.same("number of bounds", len(letters), 0 if stated is None else len(result.per_example.clean))
    method = stated.get("method") if isinstance(stated, dict) else None
    tried = METHODS[: METHODS.index(method) + 1] if method in METHODS else ()
    allowed = {OPEN, *(LETTERS[name] for name in tried)}
    book.need(set(letters) <= allowed, f"a bound is none of {', '.join(sorted(allowed))}")
    wrong = sum(letter != OPEN and c == "w" for letter, c in zip(letters, result.per_example.clean, strict=False))
    book.same("wrong examples that are proved", wrong, 0)
    _sizes(result, isinstance(stated, dict) and bool(stated.get("curve")), book)


def _sizes(result: Result, asked: bool, book: Book) -> None:
    """Whether sizes at which examples are proved are those of the curve, and agree with what is proved at eps."""
    examples, eps = result.per_example, result.terms.get("eps_value")
    levels = [point.eps for point in next(iter(result.curves.values()), ())]
    asked = asked and bool(levels) and isinstance(eps, (int, float))
    book.same("number of proved sizes", len(examples.proved_eps), len(examples.clean) if asked else 0)
    if not asked or not isinstance(eps, (int, float)) or book.wrong:
        return
    least = max((level for level in levels if level <= eps), default=None)
    for row, (size, letter) in enumerate(zip(examples.proved_eps, examples.bounds, strict=True)):
        fine = size is None or size in levels
        fine = fine and (size is None or examples.clean[row] == "r")
        if letter == OPEN:
            fine = fine and (size is None or size < eps)
        else:
            fine = fine and (least is None or (size is not None and size >= least))
        book.need(fine, f"example {row} is {letter!r} at {eps} and said to be proved up to {size}")


def _detection(result: Result, book: Book) -> None:
    """Whether p-values and letters of a policy are there for each example, can be, and agree with the verdicts."""
    found = result.detection
    if found is None:
        return
    clean, verdicts = result.per_example.clean, result.per_example.verdicts
    book.need(found.rule == "bonferroni", f"the detectors' rule is {found.rule!r}")
    book.need(found.reject >= 0 and found.review >= 0 and 0 < found.rate < 1, "the detectors' rates are none")
    book.same("letters of evasion", (len(found.evaded), len(found.denied)), (len(clean), len(clean)))
    book.need(set(found.evaded + found.denied) <= set("fh-"), "a letter of evasion or denial is none of f, h, -")
    names = [judge.name for judge in found.detectors]
    book.need(len(set(names)) == len(names), f"a detector comes twice in {names}")
    for name in ("model", "preprocessing"):
        known = {judge.digests.get(name) for judge in found.detectors}
        book.need(len(known - {None}) == len(known) <= 1, f"the detectors are of {len(known)} kinds of {name}")
    for judge in found.detectors:
        book.need(
            (found.reject or found.rate) * (judge.rows + 1) / len(found.detectors) * ROUNDED >= 1,
            f"{judge.name}: {judge.rows} calibration rows carry no rate of {found.reject or found.rate:g}",
        )
        book.need(judge.rows > 0 and judge.passes >= 0, f"{judge.name}: rows or passes are none")
        book.same(f"{judge.name}: p-values", len(judge.clean), len(clean))
        book.same(f"{judge.name}: attacks", sorted(judge.attacked), sorted(verdicts))
        seen = [*judge.clean, *(p for column in judge.attacked.values() for p in column if p is not None)]
        book.need(all(0 < p <= 1 for p in seen), f"{judge.name}: a p-value is none")
        if not judge.by_class:
            steps = [p * (judge.rows + 1) for p in seen]
            book.need(all(abs(s - round(s)) < 1e-6 for s in steps), f"{judge.name}: no share of its calibration rows")
        for name, column in judge.attacked.items():
            fell = [c == "r" and v == "f" for c, v in zip(clean, verdicts.get(name, ""), strict=True)]
            book.same(f"{judge.name}: points of {name}", [p is not None for p in column], fell)
    if not book.wrong:
        _evasion(found, clean, verdicts, book)


def _evasion(found: Detection, clean: str, verdicts: Mapping[str, str], book: Book) -> None:
    """Whether the letters of the attacker who knows agree with the p-values; he is never below one who does not."""
    flagged = [found.flagged(p) for p in found.clean()]
    book.same("examples to evade", [e == "-" for e in found.evaded], [c == "w" for c in clean])
    aside = [c == "w" or flag for c, flag in zip(clean, flagged, strict=True)]
    book.same("examples to deny", [d == "-" for d in found.denied], aside)
    unseen = missed(found, clean, verdicts)
    book.need(
        all(letter == "f" for letter, hit in zip(found.evaded, unseen, strict=True) if hit),
        "a plain attack goes by unseen where one who knows does not",
    )
    book.same("examples evaded, by way", sum(found.ways.values()), found.evaded.count("f"))
    book.need(all(count > 0 for count in found.ways.values()), "a way has evaded no example")
    plain = found.ways.get("plain", 0)
    book.need(plain >= sum(unseen), f"{sum(unseen)} examples fall unseen to plain attacks, and {plain} are counted")


def _totals(result: Result, book: Book) -> None:
    examples = result.per_example
    letters = worst_case(examples, result.attacks)
    book.same("clean_right", result.clean_right, examples.clean.count("r"))
    book.same("held", result.held, letters.count("h"))
    book.same("undetermined", result.undetermined, letters.count("u"))
    for entry in result.attacks:
        _attack(result, entry, book)


def _attack(result: Result, entry: AttackResult, book: Book) -> None:
    examples, name = result.per_example, entry.name
    column = examples.verdicts[name]
    pairs = list(zip(examples.clean, column, strict=True))
    for word, letter in (("fooled", "f"), ("held", "h"), ("undetermined", "u")):
        book.same(f"{name}: {word}", getattr(entry, word), pairs.count(("r", letter)))
    book.same(f"{name}: entered", entry.entered, len(column) - column.count(NOT_RUN))
    spent = examples.passes[name]
    book.same(f"{name}: queries", entry.queries, passes_quartiles(spent, column))
    book.same(f"{name}: forward passes", round(entry.forwards * len(spent)), sum(spent))
    idle = sum(count != 0 for count, letter in zip(spent, column, strict=True) if letter == NOT_RUN)
    book.same(f"{name}: examples with passes that it was not run on", idle, 0)
    unpaid = sum(count < 1 for count, letter in zip(spent, column, strict=True) if letter != NOT_RUN)
    book.same(f"{name}: examples that it was run on without a pass", unpaid, 0)
    book.same(f"{name}: distance", entry.distance, median_distance(examples.distances[name]))
    nearest = examples.nearest.get(name)
    counted = None if nearest is None else nearest_quartiles(nearest, examples.clean, column)
    book.same(f"{name}: nearest", entry.nearest, counted)
    shown = {other: transferred(examples, other, name) for other in examples.transfers}
    book.same(f"{name}: transfers", entry.transfers, shown)
    for other, there in examples.transfers.items():
        moved = [letter == NOT_RUN for letter in there[name]]
        book.same(f"{name}: run, and shown to {other}", moved, [letter == NOT_RUN for letter in column])


def _possible(result: Result, book: Book) -> None:
    """Numbers that no audit can come to."""
    for entry in result.attacks:
        _possible_attack(result, entry, book)
    for name, digest in result.hashes.items():
        book.need(_DIGEST.fullmatch(digest) is not None, f"the hash of {name} is no SHA-256")
    spent = sum(entry.seconds for entry in result.attacks)
    room = 0.001 * (len(result.attacks) + 1)
    book.need(min([result.seconds, *(e.seconds for e in result.attacks)]) >= 0, "a time is negative")
    book.need(spent <= result.seconds + room, f"the attacks took {spent:.4g} s of {result.seconds:.4g} s in all")
    classes = result.terms.get("classes")
    if result.per_example.answers and isinstance(classes, int):
        numbers = {*result.per_example.labels, *(a for said in result.per_example.answers.values() for a in said)}
        book.need(min(numbers) >= -1 and max(numbers) < classes, f"a label or answer is none of {classes} classes")
        book.need(min(result.per_example.labels) >= 0, "a label is negative")
    if result.classes and isinstance(classes, int):
        book.same("number of class names", len(result.classes), classes)


def _possible_attack(result: Result, entry: AttackResult, book: Book) -> None:
    examples, name = result.per_example, entry.name
    column, lengths = examples.verdicts[name], examples.distances[name]
    shares = (entry.zero, entry.nonfinite, entry.underflow)
    book.need(min(shares) >= 0 and sum(shares) <= 1 + 1e-9, f"{name}: shares of coordinates {shares} are no shares")
    book.need(
        0 <= entry.dead_gradients <= entry.gradients,
        f"{name}: {entry.dead_gradients} dead gradients of {entry.gradients}",
    )
    book.need(entry.coordinates >= 0 and entry.backwards >= 0, f"{name}: a count is negative")
    book.need(
        entry.gradients > 0 or (entry.coordinates == 0 and sum(shares) == 0), f"{name}: coordinates of no gradient"
    )
    book.need(
        0 <= entry.unverified <= column.count("u"),
        f"{name}: {entry.unverified} points failed the check, {column.count('u')} are undetermined",
    )
    targeted = result.terms.get("goal") == "targeted"
    if not targeted:
        book.need(entry.reached is None and entry.already is None, f"{name}: counts of a target, and the goal is none")
        wanted = [c == "r" and v == "f" for c, v in zip(examples.clean, column, strict=True)]
        book.same(f"{name}: fooled examples with a distance", [length is not None for length in lengths], wanted)
    else:
        book.need(entry.right_after is None, f"{name}: right at the attacked point, of a targeted goal")
        book.same(f"{name}: reached", entry.reached, sum(length is not None for length in lengths))
        book.need(0 <= (entry.already or 0) <= result.examples, f"{name}: {entry.already} were at the target")
        far = sum(length is not None and v != "f" for length, v in zip(lengths, column, strict=True))
        book.same(f"{name}: examples with a distance that it did not lead to the target", far, 0)
    within, slack = _radius(result), _tolerance(result)
    known = [length for length in lengths if length is not None]
    book.need(all(length > 0 for length in known), f"{name}: an example is fooled by a change of length 0")
    if within is not None:
        beyond = [length for length in known if length > within + slack]
        book.need(not beyond, f"{name}: a change of length {max(beyond, default=0):.6g} under eps {within:.6g}")
    _nearest(result, entry, within, slack, book)
    missing = any(letter == NOT_RUN for letter in column)
    if not targeted:
        standing = sum(letter not in "f-" for letter in column)
        book.need(
            (entry.right_after is None) == missing,
            f"{name}: right at the attacked point is {entry.right_after}, of {'some' if missing else 'all'} examples",
        )
        book.need(
            0 <= (entry.right_after or 0) <= standing,
            f"{name}: {entry.right_after} are right at the attacked point, and {standing} were not fooled",
        )


def _nearest(result: Result, entry: AttackResult, within: float | None, slack: float, book: Book) -> None:
    """An example falls to an attack that looks for the smallest change exactly where that lies within eps."""
    examples = result.per_example
    nearest = examples.nearest.get(entry.name)
    if nearest is None:
        return
    targeted = result.terms.get("goal") == "targeted"
    rows = zip(examples.clean, examples.verdicts[entry.name], nearest, examples.distances[entry.name], strict=True)
    for clean, letter, near, length in rows:
        if near is not None and not (math.isfinite(near) and near >= 0 and letter != NOT_RUN):
            book.wrong.append(f"{entry.name}: the nearest point of an example is {near}")
        if clean == "w" and not targeted and letter != NOT_RUN and near not in (0, None):
            book.wrong.append(f"{entry.name}: a wrong example, whose nearest point that fools is at {near}")
        if clean != "r" or letter not in "fh":
            continue
        # The point that is returned is the nearest one, unless that lies beyond eps and its projection fools too.
        beyond = within is not None and near is not None and near > within / ROUNDED
        close = near is not None and length is not None and near > 0 and abs(near - length) <= _CLOSE * length + slack
        if letter == "f" and not (close or beyond):
            book.wrong.append(f"{entry.name}: an example is fooled at {length}, its nearest point that fools at {near}")
        if letter == "h" and within is not None and near is not None and near < within / ROUNDED - slack:
            book.wrong.append(f"{entry.name}: an example held, and its nearest point that fools is at {near:.6g}")


def _radius(result: Result) -> float | None:
    """The largest length of a change that the terms allow; None where that is no single number."""
    terms = result.terms.get("threat_terms")
    if not isinstance(terms, dict):
        return None
    parts = list(terms["inputs"].values()) if isinstance(terms.get("inputs"), dict) else [terms]
    sizes = [part.get("eps") if isinstance(part, dict) else None for part in parts]
    numbers = [float(size) for size in sizes if isinstance(size, (int, float))]
    return max(numbers) if numbers and len(numbers) == len(sizes) else None


def _tolerance(result: Result) -> float:
    """What the checker lets a length be exceeded by; a large one is not believed."""
    stated = result.terms.get("tolerance")
    return min(abs(float(stated)), 1e-3) if isinstance(stated, (int, float)) else 0.0


def _ladder(result: Result, book: Book) -> None:
    """Whom each rung met: without a ladder everyone; on one, those right and not fooled before."""
    standing = [letter == "r" for letter in result.per_example.clean]
    spared = [letter == "s" for letter in result.spared]
    standing = [up and not proved for up, proved in zip(standing, spared, strict=True)]
    for entry in result.attacks:
        column = result.per_example.verdicts[entry.name]
        ran = [letter != NOT_RUN for letter in column]
        if not result.ladder:
            same = sum(here == proved for here, proved in zip(ran, spared, strict=True))
            book.same(f"{entry.name}: examples left out without a ladder and a proof", same, 0)
            continue
        fallen = sum(here and not up for here, up in zip(ran, standing, strict=True))
        book.same(f"{entry.name}: examples that had left the ladder before", fallen, 0)
        # A rung may be meant for some alone. What is right is at no target: that is another class than the label.
        set_aside = not any(ran) and entry.name in result.set_aside
        if not set_aside and " near<=" not in entry.name:
            left_out = sum(up and not here for here, up in zip(ran, standing, strict=True))
            book.same(f"{entry.name}: examples still standing that it was not run on", left_out, 0)
        standing = [up and letter != "f" for up, letter in zip(standing, column, strict=True)]


def _answers(result: Result, book: Book) -> None:
    examples = result.per_example
    if not examples.answers:
        return
    if result.terms.get("labels") == "predicted":
        book.same("labels that are the model's own answers", examples.labels, examples.answers["clean"])
    if result.terms.get("random_model"):  # its answer is that of one pass, its letters are of many
        return
    answers = zip(examples.answers["clean"], examples.labels, examples.clean, strict=True)
    differ = sum((a == y) != (c == "r") for a, y, c in answers)
    book.same("examples whose letter differs from their answer", 0, differ)
    targeted = result.terms.get("goal") != "untargeted"
    for entry in result.attacks:
        column, said = examples.verdicts[entry.name], examples.answers[entry.name]
        idle = sum(a != b for a, b, v in zip(said, examples.answers["clean"], column, strict=True) if v == NOT_RUN)
        book.same(f"{entry.name}: examples that it was not run on and whose answer changed", idle, 0)
        if targeted:
            continue
        rows = zip(said, examples.labels, column, strict=True)
        bad = sum(v in "fh" and (a != y) != (v == "f") for a, y, v in rows)
        book.same(f"{entry.name}: examples whose letter differs from their answer", 0, bad)
        if entry.right_after is None:
            continue
        # An answer of NaN outputs, or at a point that failed the check, counts for nothing.
        sure = sum(a == y and v in "h" for a, y, v in zip(said, examples.labels, column, strict=True))
        perhaps = sum(a == y and v in "hu" for a, y, v in zip(said, examples.labels, column, strict=True))
        if not sure <= entry.right_after <= perhaps:
            book.same(f"{entry.name}: right at the attacked point", entry.right_after, sure)


def _gates(result: Result, book: Book) -> None:
    """Whether gates could be asked for, and those of a share or a verdict ended as counts and diagnosis say."""
    for gate in result.gates:
        if gate.kind != "fail-under":
            book.need(gate.limit is None, f"the gate {gate.kind} has a share of its own")
            if gate.kind == "baseline":
                book.need(not (gate.passed and result.partial), "a partial result has passed a gate")
            else:
                book.same(f"gate {gate.kind} passed", gate.passed, free_of(result.diagnosis, gate.kind))
        elif book.need(gate.limit is not None and 0 <= gate.limit <= 1, f"a gate asks for {gate.limit}"):
            assert gate.limit is not None
            passed = reaches(result.robust_accuracy, gate.limit, partial=result.partial)
            book.same(f"gate of {gate.limit:g} passed", gate.passed, passed)


def _curves(result: Result, book: Book) -> None:
    """Curves against the sizes at which each example falls, and against what the attacks did at eps."""
    examples = result.per_example
    sizes = {tuple(point.eps for point in points) for points in result.curves.values()}
    book.need(len(sizes) <= 1, "the curves have different sizes")
    levels = next(iter(sizes), ())
    book.need(
        all(a < b for a, b in zip((0.0, *levels), levels, strict=False)), f"the sizes {levels} do not rise from 0"
    )
    for name, points in result.curves.items():
        if name != "fgsm" and name not in examples.verdicts:
            book.wrong.append(f"there is a curve of {name}, which was not run")
        for point in points:
            if not 0 <= point.fooled <= result.clean_right:
                book.wrong.append(
                    f"the curve of {name} has {point.fooled} fooled of {result.clean_right} at {point.eps:.4g}"
                )
            if name in examples.nearest:
                counted = fooled_within(examples.nearest[name], examples.clean, point.eps)
                book.same(f"the curve of {name} at {point.eps:.4g}", point.fooled, counted)
        if name != "fgsm":
            falling = any(a.fooled > b.fooled for a, b in pairwise(points))
            book.need(not falling, f"the curve of {name} falls, and what fools at one size fools at every larger one")
    for name in examples.nearest:
        wanted = bool(levels) and everywhere(examples.clean, examples.verdicts[name])
        book.need(
            wanted == (name in result.curves), f"the curve of {name} is {'missing' if wanted else 'of some alone'}"
        )
    _ray(result, result.curves.get("fgsm", ()), book)


def _ray(result: Result, points: Sequence[CurvePoint], book: Book) -> None:
    """FGSM's curve lies between what the smallest sizes of the examples prove and what they allow."""
    examples, levels = result.per_example, [point.eps for point in points]
    smallest = [s for s, letter in zip(examples.smallest_eps, examples.clean, strict=True) if letter == "r"]
    found = [size for size in smallest if size is not None]
    if not points:
        book.need(not found, "there are smallest sizes of FGSM, and no curve")
        return
    book.need(all(0 <= size <= levels[-1] * ROUNDED for size in found), "a smallest size lies outside the curve")
    if result.terms.get("random_model"):  # every look is another one
        return
    if result.terms.get("goal") != "targeted":
        book.need(all(found), "a right example falls at a change of size 0")
        untouched = zip(examples.smallest_eps, examples.clean, strict=True)
        book.need(all(size in (0, None) for size, letter in untouched if letter == "w"), "a wrong example falls later")
    first = [next((k for k, level in enumerate(levels) if size <= level * ROUNDED), len(levels)) for size in found]
    for place, point in enumerate(points):
        least, most = first.count(place), sum(number <= place for number in first)
        if result.terms.get("goal") != "targeted" and not least <= point.fooled <= most:
            book.wrong.append(
                f"the curve of fgsm has {point.fooled} fooled at {point.eps:.4g}, the smallest sizes allow {least} to "
                f"{most}"
            )
    _at_eps(result, points, book)


def _at_eps(result: Result, points: Sequence[CurvePoint], book: Book) -> None:
    """At eps itself FGSM's curve is FGSM, but for a few whose rounding differs.

    Behind a defence FGSM tries several ways past it, and the curve follows one gradient: it may be below.
    """
    eps = result.terms.get("eps_value")
    fgsm = next((entry for entry in result.attacks if entry.name == "fgsm"), None)
    at = [point.fooled for point in points if isinstance(eps, float) and math.isclose(point.eps, eps, rel_tol=1e-9)]
    if fgsm is None or not at or fgsm.entered < result.examples or result.terms.get("engine") != "exact":
        return
    room = max(1, result.examples // 100)
    least = 0 if result.terms.get("defences") else fgsm.fooled - room
    book.need(least <= at[0] <= fgsm.fooled + room, f"the curve of fgsm has {at[0]} fooled at eps, fgsm {fgsm.fooled}")
