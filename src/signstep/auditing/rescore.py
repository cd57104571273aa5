"""Scoring a saved result again, from its files alone and without any attack code.

What is checked, one line each in the answer: the counts follow from the letters of the examples; each saved point lies
inside ball, box, mask and grid; the model answers the untouched input and the attacked one as recorded; the clean
inputs are those of the data; the files and what went in have the recorded SHA-256. import-linter forbids this module to
reach anything that attacks.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from signstep.auditing.figures import (
    fooled_within,
    median_distance,
    nearest_quartiles,
    passes_quartiles,
    transferred,
)
from signstep.auditing.result import NOT_RUN, AttackResult, Result, worst_case
from signstep.core.files import write_whole
from signstep.core.outputs import Predictor
from signstep.core.tasks import Task, task_for
from signstep.core.tree import Tree, tree_map
from signstep.core.tree import rows as count_rows
from signstep.core.verify import Terms, Verification, verify
from signstep.errors import LoadError

_ROWS = 256

Checker: TypeAlias = Callable[[Mapping[str, Any], Tensor, Tensor], Verification]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: whether it holds, and what was seen."""

    name: str
    holds: bool
    seen: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.holds else 'FAIL'}  {self.name}: {self.seen}"


class _Book:
    """What is stated and does not follow."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def same(self, name: str, stated: object, counted: object) -> None:
        if stated != counted:
            self.wrong.append(f"{name} is stated as {stated}, the examples give {counted}")


def recount(result: Result) -> Check:
    """Whether every figure in the record that the examples decide follows from their letters and numbers."""
    examples, book = result.per_example, _Book()
    try:
        _recount(result, book)
    except (KeyError, ValueError, IndexError) as error:  # columns that are missing or too short
        book.wrong.append(f"the examples cannot be counted ({type(error).__name__}: {error})")
    seen = "; ".join(book.wrong[:3]) or f"{len(examples.clean)} examples counted again"
    return Check("counts", not book.wrong, seen)


def _recount(result: Result, book: _Book) -> None:
    examples = result.per_example
    book.same("examples", result.examples, len(examples.clean))
    book.same("number of ids", len(examples.ids), len(examples.clean))
    book.same("attacks", [entry.name for entry in result.attacks], list(examples.verdicts))
    letters = worst_case(examples, result.attacks)
    book.same("clean_right", result.clean_right, examples.clean.count("r"))
    book.same("held", result.held, letters.count("h"))
    book.same("undetermined", result.undetermined, letters.count("u"))
    for entry in result.attacks:
        _recount_attack(result, entry, book)
    _recount_ladder(result, book)
    _recount_answers(result, book)
    for name, points in result.curves.items():
        for point in points:
            if not 0 <= point.fooled <= result.clean_right:
                book.wrong.append(
                    f"the curve of {name} has {point.fooled} fooled of {result.clean_right} at {point.eps:.4g}"
                )
            if name in examples.nearest:
                counted = fooled_within(examples.nearest[name], examples.clean, point.eps)
                book.same(f"the curve of {name} at {point.eps:.4g}", point.fooled, counted)


def _recount_attack(result: Result, entry: AttackResult, book: _Book) -> None:
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
    book.same(f"{name}: distance", entry.distance, median_distance(examples.distances[name]))
    nearest = examples.nearest.get(name)
    counted = None if nearest is None else nearest_quartiles(nearest, examples.clean, column)
    book.same(f"{name}: nearest", entry.nearest, counted)
    shown = {other: transferred(examples, other, name) for other in examples.transfers}
    book.same(f"{name}: transfers", entry.transfers, shown)
    for other, there in examples.transfers.items():
        moved = [letter == NOT_RUN for letter in there[name]]
        book.same(f"{name}: run, and shown to {other}", moved, [letter == NOT_RUN for letter in column])


def _recount_ladder(result: Result, book: _Book) -> None:
    """Whom each rung met: without a ladder everyone; on one, those right and not fooled before."""
    targeted = result.terms.get("goal") == "targeted"
    standing = [letter == "r" for letter in result.per_example.clean]
    for entry in result.attacks:
        column = result.per_example.verdicts[entry.name]
        ran = [letter != NOT_RUN for letter in column]
        if not result.ladder:
            book.same(f"{entry.name}: examples left out without a ladder", ran.count(False), 0)
            continue
        fallen = sum(here and not up for here, up in zip(ran, standing, strict=True))
        book.same(f"{entry.name}: examples that had left the ladder before", fallen, 0)
        # A rung may be meant for some alone; and what is at its target untouched is led nowhere.
        set_aside = not any(ran) and entry.name in result.set_aside
        if not targeted and not set_aside and " near<=" not in entry.name:
            left_out = sum(up and not here for here, up in zip(ran, standing, strict=True))
            book.same(f"{entry.name}: examples still standing that it was not run on", left_out, 0)
        standing = [up and letter != "f" for up, letter in zip(standing, column, strict=True)]


def _recount_answers(result: Result, book: _Book) -> None:
    examples = result.per_example
    if result.terms.get("goal") != "untargeted" or result.terms.get("random_model"):
        return
    if not examples.labels or "clean" not in examples.answers:
        return
    answers = zip(examples.answers["clean"], examples.labels, examples.clean, strict=True)
    differ = sum((a == y) != (c == "r") for a, y, c in answers)
    book.same("examples whose letter differs from their answer", 0, differ)
    for entry in result.attacks:
        column, said = examples.verdicts[entry.name], examples.answers[entry.name]
        rows = zip(said, examples.labels, column, examples.clean, strict=True)
        bad = sum(c == "r" and v in "fh" and (a != y) != (v == "f") for a, y, v, c in rows)
        book.same(f"{entry.name}: examples whose letter differs from their answer", 0, bad)
        # An answer of NaN outputs, or at a point that failed the check, counts for nothing.
        if entry.right_after is not None and "u" not in column and not entry.unverified:
            right = sum(a == y for a, y in zip(said, examples.labels, strict=True))
            book.same(f"{entry.name}: right at the attacked point", entry.right_after, right)


def allowed(result: Result, points: Mapping[str, Tensor], checkers: Mapping[str, Checker] | None = None) -> Check:
    """Whether each saved point lies inside the threat model.

    ``checkers``: by kind, those of sets that are no balls in boxes; they get the record's terms and the points of one
    input, untouched and attacked.
    """
    terms = result.terms.get("threat_terms")
    if not points:
        return Check("threat model", True, "no points were saved")
    if terms is None:
        return Check("threat model", False, "the record does not state the threat in numbers")
    several = {f":{name}": part for name, part in terms["inputs"].items()} if "inputs" in terms else {"": terms}
    inside, tolerance = torch.ones(len(points["row"]), dtype=torch.bool, device="cpu"), 0.0
    for end, part in several.items():
        if f"x_adv{end}" not in points:
            return Check("threat model", False, f"the saved points have no input {end[1:]!r}")
        own = (checkers or {}).get(part["kind"])
        if own is not None:
            answer = own(result.terms, points[f"x{end}"], points[f"x_adv{end}"])
        else:
            answer = verify(points[f"x{end}"], points[f"x_adv{end}"], _terms_of(part, points, end))
        inside, tolerance = inside & answer.ok.cpu(), max(tolerance, answer.tolerance)
    rows = points["row"][~inside].tolist()
    seen = f"{len(inside)} points inside, tolerance {tolerance:.2g}"
    return Check("threat model", not rows, seen if not rows else f"{len(rows)} points outside, examples {rows[:5]}")


def _terms_of(terms: Mapping[str, Any], points: Mapping[str, Tensor], end: str) -> Terms:
    eps = points[f"eps{end}"].double() if f"eps{end}" in points else terms["eps"]
    kept = {name: points.get(name + end, terms.get(name)) for name in ("low", "high", "mask")}
    return Terms(terms["kind"], tuple(terms["axes"]), eps, kept["low"], kept["high"], kept["mask"], terms["grid"])


def saved_inputs(points: Mapping[str, Tensor], *, attacked: bool) -> Tensor | dict[str, Tensor]:
    """The inputs that were saved as the model takes them: untouched, or attacked with the others beside."""
    if "x" in points:
        return points["x_adv" if attacked else "x"]
    plain = {name.partition(":")[2]: part for name, part in points.items() if name.startswith("x:")}
    changed = {name.partition(":")[2]: part for name, part in points.items() if name.startswith("x_adv:")}
    return {**plain, **changed} if attacked else plain


def answers(result: Result, points: Mapping[str, Tensor], predictor: Predictor, task: Task | str) -> Check:
    """Whether the model answers the saved inputs as recorded, and wrongly so at the attacked ones."""
    if result.terms.get("random_model"):
        return Check("answers", True, "not scored again: the model is random, and one pass proves nothing")
    if result.terms.get("transform"):
        return Check("answers", True, "not scored again: inputs passed through a transform, which no file holds")
    letters = result.worst_case
    fooled = {row for row, letter in enumerate(letters) if letter == "f"}
    saved = set(points["row"].tolist()) if points else set()
    if not saved <= fooled:
        return Check("answers", False, f"examples {sorted(saved - fooled)[:5]} have a point but are not marked fooled")
    bad: list[str] = []
    for start in range(0, len(points["row"]) if points else 0, _ROWS):
        part = {name: tensor[start : start + _ROWS] for name, tensor in points.items()}
        where = _device(predictor)
        for attacked, said in ((False, "answer"), (True, "answer_adv")):
            with torch.no_grad():
                outputs = predictor(tree_map(lambda x: x.to(where), saved_inputs(part, attacked=attacked)))  # noqa: B023
            given = task_for(task, outputs.scores).predict(outputs).cpu()
            differs = ~torch.isclose(given.double(), part[said].double(), rtol=1e-4, atol=1e-5)
            differs = differs.reshape(len(differs), -1).any(1)
            bad += [f"example {row}: {said} differs" for row in part["row"][differs].tolist()]
        bad += _not_fooled(result, part)
    missing = len(fooled - saved)
    seen = f"{len(saved)} of {len(fooled)} fooled examples scored again" + (
        f", {missing} were not saved" if missing else ""
    )
    return Check("answers", not bad, seen if not bad else f"{len(bad)} differ: {'; '.join(bad[:3])}")


def _not_fooled(result: Result, part: Mapping[str, Tensor]) -> list[str]:
    """Rows whose recorded labels do not say what the record claims."""
    if "y" not in part or not result.per_example.labels:
        return []
    stated = torch.tensor(
        [result.per_example.labels[row] for row in part["row"].tolist()], dtype=torch.int64, device="cpu"
    )
    bad = [f"example {row}: its label differs" for row in part["row"][stated != part["y"]].tolist()]
    reached = part["answer_adv"] == part["target"] if "target" in part else part["answer_adv"] != part["y"]
    right = part["answer"] == part["y"]
    bad += [f"example {row}: the point does not fool" for row in part["row"][~reached].tolist()]
    return bad + [f"example {row}: was wrong untouched" for row in part["row"][~right].tolist()]


def inputs(points: Mapping[str, Tensor], batches: Iterable[tuple[Tree, Tensor | None]]) -> Check:
    """Whether the saved clean inputs are those of the data, in the units of the record."""
    if not points:
        return Check("clean inputs", True, "no points were saved")
    place = {row: number for number, row in enumerate(points["row"].tolist())}
    start, found, bad = 0, 0, []
    for x, _ in batches:
        parts = {f"x:{name}": part for name, part in x.items()} if isinstance(x, dict) else {"x": x}
        for row in range(start, start + count_rows(x)):
            if row in place:
                found += 1
                if not all(
                    torch.allclose(
                        points[name][place[row]], part[row - start].to(points[name].dtype), rtol=0, atol=1e-6
                    )
                    for name, part in parts.items()
                ):
                    bad.append(row)
        start += count_rows(x)
    missing = len(place) - found
    if bad or missing:
        return Check(
            "clean inputs", False, f"{len(bad)} differ from the data (examples {bad[:5]}), {missing} not in it"
        )
    return Check("clean inputs", True, f"{found} are those of the data")


def untouched_answers(
    result: Result,
    batches: Iterable[tuple[Tree, Tensor | None]],
    predictor: Predictor,
    task: Task | str,
    to_search: Callable[[Tensor], Tensor],
) -> Check:
    """Whether the labels are those of the data, and the model answers every untouched input as recorded."""
    stated = result.per_example.answers.get("clean")
    if stated is None or result.terms.get("random_model"):
        return Check("untouched answers", True, "not looked at: the model is random, or its answers are no classes")
    if result.terms.get("transform"):
        return Check("untouched answers", True, "not looked at: inputs passed through a transform, which no file holds")
    labels = result.per_example.labels if result.terms.get("labels") == "given" else ()
    wrong_labels, wrong_answers, start, where = [], [], 0, _device(predictor)
    for x, y in batches:
        if start >= result.examples:
            break
        with torch.no_grad():
            outputs = predictor(tree_map(lambda part: to_search(part).to(where), x))
        said = task_for(task, outputs.scores).predict(outputs).tolist()
        rows = range(start, min(start + count_rows(x), result.examples))
        wrong_answers += [row for row in rows if said[row - start] != stated[row]]
        if y is not None and labels:
            wrong_labels += [row for row in rows if int(y[row - start]) != labels[row]]
        start += count_rows(x)
    if start < result.examples:
        return Check("untouched answers", False, f"the data has {start} examples, the record {result.examples}")
    if wrong_labels or wrong_answers:
        seen = f"{len(wrong_labels)} labels differ from the data {wrong_labels[:5]}, "
        return Check("untouched answers", False, seen + f"{len(wrong_answers)} answers differ {wrong_answers[:5]}")
    return Check("untouched answers", True, f"{result.examples} answered as recorded, labels as in the data")


def hashes(result: Result, now: Mapping[str, str]) -> Check:
    """Whether what went in has the recorded SHA-256."""
    wrong = [name for name, digest in result.hashes.items() if name in now and now[name] != digest]
    unknown = sorted(set(result.hashes) - set(now))
    same = ", ".join(sorted(set(result.hashes) & set(now)))
    seen = f"{same} unchanged" if same else "none was recorded"
    if missing := sorted(set(now) - set(result.hashes)):
        seen += f"; not recorded: {', '.join(missing)}"
    if unknown:
        seen += f"; not looked at: {', '.join(unknown)}"
    return Check("SHA-256", not wrong, seen if not wrong else f"{', '.join(wrong)} changed since the audit")


SUMS = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over every file of a report, in the format of ``sha256sum``."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [
        f"{sha256(folder / name)}  {name}\n" for name in names if name != SUMS and not Path(name).name.startswith(".")
    ]
    write_whole(folder / SUMS, "".join(lines))


def check_sums(folder: Path) -> Check:
    """Whether the files of a report are as they were written."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise LoadError(f"{folder / SUMS} cannot be read ({error.strerror}); pass the folder of a report") from error
    wrong = []
    for line in lines:
        digest, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif sha256(path) != digest:
            wrong.append(f"{name} was changed")
    listed = {line.partition("  ")[2] for line in lines}
    wrong += [f"{name} is not listed" for name in ("result.json", "signstep.toml") if name not in listed]
    if (folder / "adversarial.safetensors").exists() and "adversarial.safetensors" not in listed:
        wrong.append("adversarial.safetensors is not listed")
    return Check("files", not wrong, "; ".join(wrong[:5]) or f"{len(lines)} files as written")


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _device(predictor: Predictor) -> torch.device:
    weights = getattr(predictor.model, "parameters", lambda: iter(()))()
    return next((part.device for part in weights), torch.device("cpu"))
