"""Scoring a saved result again, with the verifier's own model and data and without any attack code.

What is checked, one line each in the answer: the examples are those of the data, in their order; the model answers each
of them as recorded, and is as random as is said; each saved point belongs to an example that fell, lies inside ball,
box, mask and grid at the recorded distance, and is answered as recorded; what went in has the recorded SHA-256. What
needs neither model nor data is in `recount` and `claims`. import-linter forbids this module to reach anything that
attacks.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from signstep.auditing.checks import Check
from signstep.auditing.checksums import check_sums, sha256, write_sums
from signstep.auditing.parts import named
from signstep.auditing.points import Checker, allowed, saved
from signstep.auditing.recount import CLASSES, recount
from signstep.auditing.result import Result
from signstep.engine.keys import Key, content_ids
from signstep.engine.outputs import Outputs
from signstep.engine.problem import HELD_OUT
from signstep.engine.targets import choose
from signstep.engine.tasks import Aim, Multiclass, Objective, Task, check_loss, task_for
from signstep.engine.tree import Tree, tree_map
from signstep.engine.tree import rows as count_rows
from signstep.engine.untouched import RandomnessWatch, untouched
from signstep.errors import SignstepError
from signstep.model.predictor import Predictor
from signstep.model.victims.endpoint import HttpVictim

__all__ = [
    "Check",
    "Checker",
    "allowed",
    "answers",
    "check_sums",
    "hashes",
    "home",
    "inputs",
    "of_data",
    "recount",
    "saved",
    "saved_inputs",
    "sha256",
    "untouched_answers",
    "write_sums",
]

_ROWS = 256
_FEW = 8

# Of the 32 fresh passes that judge an example of a random model, so many must agree to contradict the record: where a
# coin decides, that happens once in seven million examples.
_SURE = 30

Batches: TypeAlias = Iterable[tuple[Tree, Tensor | None]]
ToSearch: TypeAlias = Callable[[Tensor], Tensor]
Span: TypeAlias = tuple[float, float] | None


def saved_inputs(points: Mapping[str, Tensor], *, attacked: bool) -> Tensor | dict[str, Tensor]:
    """The inputs that were saved as the model takes them: untouched, or attacked with the others beside."""
    if "x" in points:
        return points["x_adv" if attacked else "x"]
    plain = {name.partition(":")[2]: part for name, part in points.items() if name.startswith("x:")}
    changed = {name.partition(":")[2]: part for name, part in points.items() if name.startswith("x_adv:")}
    return {**plain, **changed} if attacked else plain


def answers(result: Result, points: Mapping[str, Tensor], predictor: Predictor, task: Task | str) -> Check:
    """Whether the model answers the saved inputs as recorded, rightly untouched and wrongly at the attacked ones.

    A random model is asked 32 times anew; what nearly all of these contradict does not hold.
    """
    if (apart := _otherwise(result, predictor, "answers")) is not None:
        return apart
    letters = result.worst_case
    fooled = {row for row, letter in enumerate(letters) if letter == "f"}
    kept = set(points["row"].tolist()) if points else set()
    if not kept <= fooled:
        return Check("answers", False, f"examples {sorted(kept - fooled)[:5]} have a point but are not marked fooled")
    bad: list[str] = []
    with untouched(predictor.model, mode="keep"), torch.no_grad():
        for start in range(0, len(points["row"]) if points else 0, _ROWS):
            part = {name: tensor[start : start + _ROWS] for name, tensor in points.items()}
            bad += _answered(result, part, predictor, task)
            bad += _not_fooled(result, part)
    missing = len(fooled - kept)
    seen = f"{len(kept)} of {len(fooled)} fooled examples scored again" + (
        f", {missing} were not saved" if missing else ""
    )
    return Check(
        "answers", not bad, seen if not bad else f"{len(bad)} differ: {'; '.join(bad[:3])}", complete=not missing
    )


def _otherwise(result: Result, predictor: Predictor, name: str) -> Check | None:
    """What is to be said where inputs do not pass through what they passed through; None where they do."""
    stated, here = result.terms.get("transform"), predictor.passed
    if (stated or "") == here:
        return None
    if here:
        return Check(name, False, f"inputs pass through {here} here, through {stated or 'nothing'} in the record")
    return Check(name, True, f"inputs pass through {stated}, which is not known here", complete=False)


def _answered(result: Result, part: Mapping[str, Tensor], predictor: Predictor, task: Task | str) -> Iterator[str]:
    """What the model says otherwise now."""
    where, rows = home(predictor), part["row"]
    random = bool(result.terms.get("random_model"))
    for attacked, said in ((False, "answer"), (True, "answer_adv")):
        x = tree_map(lambda leaf: leaf.to(where), saved_inputs(part, attacked=attacked))
        outputs = predictor(x)
        given = task_for(task, outputs.scores)
        if random:
            failed = _failures(result, part, x, predictor, given, attacked=attacked)
            against = HELD_OUT - failed if attacked else failed
            what = "its point fools no more" if attacked else "it is wrong untouched"
            yield from (f"example {row}: {what}" for row in rows[against >= _SURE].tolist())
            continue
        differs = ~torch.isclose(given.predict(outputs).cpu().double(), part[said].double(), rtol=1e-4, atol=1e-5)
        differs = differs.reshape(len(differs), -1).any(1)
        yield from (f"example {row}: {said} differs" for row in rows[differs].tolist())
        name = "confidence_adv" if attacked else "confidence"
        if name in part and isinstance(given, Multiclass):
            sure = given.logits(outputs).softmax(1).amax(1).cpu().double()
            other = ~torch.isclose(sure, part[name].double(), rtol=1e-3, atol=1e-4)
            yield from (f"example {row}: {name} differs" for row in rows[other].tolist())
        if "y" in part:
            wrong = _wrong(result, given, outputs, part["y"].to(where), part.get("target") if attacked else None)
            off = ~wrong if attacked else wrong
            what = "the point does not fool" if attacked else "was wrong untouched"
            yield from (f"example {row}: {what}" for row in rows[off.cpu()].tolist())


def _failures(
    result: Result, part: Mapping[str, Tensor], x: Tree, predictor: Predictor, task: Task, *, attacked: bool
) -> Tensor:
    """Of 32 fresh passes, in how many the model fails (R,)."""
    if "y" not in part:
        return torch.full((len(part["row"]),), HELD_OUT if attacked else 0, dtype=torch.int64, device="cpu")
    y = part["y"].to(home(predictor))
    target = part.get("target") if attacked else None
    passes = [_wrong(result, task, predictor(x), y, target) for _ in range(HELD_OUT)]
    return torch.stack(passes).sum(0).cpu()


def _wrong(result: Result, task: Task, outputs: Outputs, y: Tensor | None, target: Tensor | None = None) -> Tensor:
    """Whether the model fails (R,) by the task's own rule; NaN is no right answer either."""
    loss = result.terms.get("loss")
    name = loss if loss in task.losses else task.losses[0]
    labels = None if y is None else task.labels(y, outputs.raw, "y").to(outputs.raw.device)
    aim = Aim(labels, None if target is None else task.labels(target.to(outputs.raw.device), outputs.raw, "target"))
    score = task.score(outputs, aim, name)
    return score.fooled if target is not None else score.fooled | ~score.valid


def _not_fooled(result: Result, part: Mapping[str, Tensor]) -> list[str]:
    """Rows whose recorded labels do not say what the record claims."""
    if "y" not in part or not result.per_example.labels:
        return []
    stated = torch.tensor(
        [result.per_example.labels[row] for row in part["row"].tolist()], dtype=torch.int64, device="cpu"
    )
    bad = [f"example {row}: its label differs" for row in part["row"][stated != part["y"]].tolist()]
    if result.terms.get("random_model"):
        return bad
    reached = part["answer_adv"] == part["target"] if "target" in part else part["answer_adv"] != part["y"]
    right = part["answer"] == part["y"]
    bad += [f"example {row}: the point does not fool" for row in part["row"][~reached].tolist()]
    return bad + [f"example {row}: was wrong untouched" for row in part["row"][~right].tolist()]


# The data, gone through once.


class _Look(Protocol):
    """What is looked at in each batch of the data."""

    def see(self, rows: range, x: Tree, y: Tensor | None) -> None:
        """The examples ``rows`` of the record, as the data has them."""

    def check(self, seen: int) -> Check:
        """What came of it; the data had ``seen`` of the record's examples."""


def of_data(
    result: Result,
    points: Mapping[str, Tensor],
    data: Batches,
    predictor: Predictor,
    task: Task | str,
    to_search: ToSearch,
    span: Span,
    total: int | None,
    loss: str | None = None,
) -> tuple[list[Check], list[int]]:
    """Every check that needs the data, in one pass over it.

    Returns:
        The checks; and of each example how many classes beside its own the model has for it (a logit of minus infinity
        is an absent class), where the task knows classes.

    Args:
        result: the record.
        points: the saved points.
        data: batches of the verifier's data, of the record's shard if it is one.
        predictor: the verifier's model, which takes inputs in the units of the record's budget.
        task: what its outputs mean.
        to_search: from the data's units to those of the budget.
        span: the ends of the box, where it is one pair of numbers: what ids are rounded by.
        total: examples that the data has in all, if known.
        loss: that was asked for; None for the task's own.
    """
    answered = _Untouched(result, predictor, task, to_search, loss)
    targets = [_Targets(result, points, answered)] if result.terms.get("target") is not None else []
    looks: list[_Look] = [_Rows(result, to_search, span, total), answered, *targets, _Inputs(points, to_search)]
    return _looked(result, data, looks), answered.there


def untouched_answers(
    result: Result, batches: Batches, predictor: Predictor, task: Task | str, to_search: ToSearch
) -> Check:
    """Whether the labels are those of the data, and the model answers every untouched input as recorded."""
    return _looked(result, batches, [_Untouched(result, predictor, task, to_search)])[0]


def inputs(points: Mapping[str, Tensor], batches: Batches) -> Check:
    """Whether the saved clean inputs are those of the data, in the units of the record."""
    look, start = _Inputs(points, lambda x: x), 0
    for x, y in batches:
        look.see(range(start, start + count_rows(x)), x, y)
        start += count_rows(x)
    return look.check(start)


def _looked(result: Result, batches: Batches, looks: Sequence[_Look]) -> list[Check]:
    start = 0
    for x, y in batches:
        count = min(count_rows(x), result.examples - start)
        if count <= 0:
            break
        here = tree_map(lambda part: part[:count], x)  # noqa: B023
        for look in looks:
            look.see(range(start, start + count), here, None if y is None else y[:count])
        start += count
    return [look.check(start) for look in looks]


@dataclass
class _Rows:
    """Whether the record's examples are those of the data, each in its place."""

    result: Result
    to_search: ToSearch
    span: Span
    total: int | None

    def __post_init__(self) -> None:
        self._other: list[int] = []

    def see(self, rows: range, x: Tree, y: Tensor | None) -> None:  # noqa: ARG002
        terms = self.result.terms.get("threat_terms") or {}
        u = tree_map(self.to_search, x)
        if isinstance(u, dict):
            moved = [name for name in terms.get("inputs", {}) if name in u]
            if not moved:  # one threat, which is of the input that is no whole number
                moved = [name for name, part in u.items() if part.is_floating_point()][:1]
            u = {**{name: part for name, part in u.items() if name not in moved}, **{name: u[name] for name in moved}}
        ids = [f"{identity & (2**64 - 1):016x}" for identity in content_ids(u, self.span).tolist()]
        self._other += [
            row for row, identity in zip(rows, ids, strict=True) if self.result.per_example.ids[row] != identity
        ]

    def check(self, seen: int) -> Check:
        count = self.result.examples
        if seen < count:
            return Check("rows", False, f"the data has {seen} examples, the record {count}")
        if self._other:
            return Check("rows", False, f"{len(self._other)} examples are not those of the data {self._other[:5]}")
        shard = self.result.terms.get("shard")
        part = "" if shard is None else f", {named(shard).replace('/', ' of ')}"
        if self.total is None:
            return Check(
                "rows", True, f"{count} examples of the data in their order{part}; how many it has is not known"
            )
        covered = f"{count} of {self.total} examples of the data ({100 * count / max(1, self.total):.1f} %){part}"
        return Check("rows", count <= self.total, f"{covered}, in their order")


@dataclass
class _Untouched:
    """Whether the model answers every untouched input as recorded, and is as random as the record says."""

    result: Result
    predictor: Predictor
    task: Task | str
    to_search: ToSearch
    loss: str | None = None

    def __post_init__(self) -> None:
        self.seen: tuple[Task, Outputs, Tensor | None] | None = None
        self._labels: list[int] = []
        self._answers: list[int] = []
        self._letters: list[int] = []
        self._found: list[str] = []
        self._random: bool | None = None
        self.there: list[int] = []

    def see(self, rows: range, x: Tree, y: Tensor | None) -> None:
        result, where = self.result, home(self.predictor)
        u = tree_map(lambda part: self.to_search(part).to(where), x)
        with untouched(self.predictor.model, mode="keep"), torch.no_grad():
            watch = RandomnessWatch(where, Key(0).fold("verify").integer())
            outputs = self.predictor(u)
            drew = watch.drew()
            if self._random is None:
                self._random = drew or self._differs(u)
            task = task_for(self.task, outputs.scores)
            self.seen = None
            if not self._fits(task, outputs, y):
                return
            labels = self._right(task, outputs, y)
            self.seen = task, outputs, labels
            if self._random:
                self._often(rows, task, u, labels)
            else:
                self._once(rows, task, outputs, labels)
            self._count(task, outputs, labels)
        given = result.per_example.labels if result.terms.get("labels") == "given" else ()
        if y is not None and given:
            self._labels += [row for row, label in zip(rows, y.tolist(), strict=True) if label != given[row]]

    def _fits(self, task: Task, outputs: Outputs, y: Tensor | None) -> bool:
        """Whether the record is about such a task."""
        terms = self.result.terms
        if task.name != terms.get("task"):
            self._found.append(f"the task is {task.name} here, {terms.get('task')} in the record")
        if terms.get("loss") not in task.losses:
            self._found.append(f"the loss is {terms.get('loss')!r}, the task has {', '.join(task.losses)}")
        elif (led := _led(task, self.loss, terms)) != terms.get("loss"):
            self._found.append(f"the loss is {terms.get('loss')!r}, and {led!r} is what these options mean")
        if task.name in CLASSES and outputs.form != "labels":
            classes = 2 if task.name == "binary" else outputs.raw.shape[1]
            if classes != terms.get("classes"):
                self._found.append(f"the model has {classes} classes, the record {terms.get('classes')}")
        if outputs.form != terms.get("outputs_form"):
            self._found.append(f"the outputs are {outputs.form}, in the record {terms.get('outputs_form')}")
        if y is None and terms.get("labels") == "given" and not isinstance(task, Objective):
            self._found.append("the data has no labels, and the record says that they were given")
        if y is not None and terms.get("labels") == "predicted" and "domain" in terms:
            self._found.append("the data has labels, and the record says that they are the model's own answers")
        return not self._found

    def _count(self, task: Task, outputs: Outputs, labels: Tensor | None) -> None:
        if task.name == "multiclass" and outputs.form != "labels" and labels is not None:
            there = ~torch.isneginf(outputs.scores)
            own = there.gather(1, labels.long().unsqueeze(1)).squeeze(1)
            self.there += (there.sum(1) - own.long()).tolist()

    def _right(self, task: Task, outputs: Outputs, y: Tensor | None) -> Tensor | None:
        if self.result.terms.get("labels") == "predicted" and not isinstance(task, Objective):
            return task.predict(outputs)
        return None if y is None else y.to(outputs.raw.device)

    def _once(self, rows: range, task: Task, outputs: Outputs, labels: Tensor | None) -> None:
        wrong = _wrong(self.result, task, outputs, labels).tolist()
        clean, stated = self.result.per_example.clean, self.result.per_example.answers.get("clean")
        self._letters += [row for row, flag in zip(rows, wrong, strict=True) if (clean[row] == "w") != flag]
        if stated is not None:
            said = task.predict(outputs).tolist()
            self._answers += [row for row, answer in zip(rows, said, strict=True) if answer != stated[row]]

    def _often(self, rows: range, task: Task, u: Tree, labels: Tensor | None) -> None:
        clean = self.result.per_example.clean
        passes = [_wrong(self.result, task, self.predictor(u), labels) for _ in range(HELD_OUT)]
        failed = torch.stack(passes).sum(0).tolist()
        against = [HELD_OUT - count if clean[row] == "w" else count for row, count in zip(rows, failed, strict=True)]
        self._letters += [row for row, count in zip(rows, against, strict=True) if count >= _SURE]

    def _differs(self, u: Tree) -> bool:
        if isinstance(self.predictor.model, HttpVictim):  # which pays for each look: it was asked just now
            return self.predictor.model.answers_differ()
        few = tree_map(lambda part: part[:_FEW], u)
        first, second = (self.predictor(few).raw.float() for _ in range(2))
        scale = torch.nan_to_num(first).abs().max().clamp_min(1e-6)
        return bool(torch.nan_to_num((first - second).abs()).max() > 1e-5 * scale)

    def check(self, seen: int) -> Check:
        result, name = self.result, "untouched answers"
        if seen < result.examples:
            return Check(name, False, f"the data has {seen} examples, the record {result.examples}")
        if self._found:
            return Check(name, False, self._found[0])
        if (apart := _otherwise(result, self.predictor, name)) is not None:
            return apart
        if self._random != bool(result.terms.get("random_model")):
            word = "draws random numbers" if self._random else "draws no random numbers"
            return Check(name, False, f"the model {word}, and the record says otherwise")
        if self._labels or self._answers or self._letters:
            return Check(
                name,
                False,
                f"{len(self._labels)} labels differ from the data {self._labels[:5]}, "
                f"{len(self._answers)} answers differ {self._answers[:5]}, "
                f"{len(self._letters)} examples are right or wrong otherwise {self._letters[:5]}",
            )
        how = f" by {HELD_OUT} passes each, since the model is random" if self._random else ""
        return Check(name, True, f"{result.examples} answered as recorded{how}, labels as in the data")


def _led(task: Task, asked: str | None, terms: Mapping[str, Any]) -> str | None:
    """The loss that an audit is led by; of one that the task does not have, nothing."""
    if asked is not None and asked not in task.losses:
        return None
    with warnings.catch_warnings():  # that DLR gives way was said to whoever made the report
        warnings.simplefilter("ignore")
        return check_loss(task, asked, terms.get("classes"), terms["goal"], labelled=True)


@dataclass
class _Targets:
    """Whether each example was led to the class that the rule leads it to, and where the record says it ended."""

    result: Result
    points: Mapping[str, Tensor]
    answered: _Untouched

    def __post_init__(self) -> None:
        rows = self.points["row"].tolist() if self.points else []
        self._saved = dict(zip(rows, self.points["target"].tolist() if self.points else [], strict=True))
        self._other: list[int] = []
        self._ended: list[int] = []
        self._why = ""

    def see(self, rows: range, x: Tree, y: Tensor | None) -> None:  # noqa: ARG002
        examples, terms = self.result.per_example, self.result.terms
        if self.answered.seen is None:
            return
        task, outputs, labels = self.answered.seen
        ids = torch.tensor([_signed(int(examples.ids[row], 16)) for row in rows], dtype=torch.int64, device="cpu")
        try:
            chosen = choose(terms["target"], task, outputs, labels, ids.to(outputs.raw.device), Key(terms["seed"]))
        except SignstepError as error:
            self._why = str(error)
            return
        for row, target in zip(rows, chosen.tolist(), strict=True):
            if self._saved.get(row, target) != target:
                self._other.append(row)
            if terms.get("random_model") or not examples.answers:
                continue
            # What is undetermined may be at its target by an output that does not count.
            pairs = ((column[row], examples.answers[name][row]) for name, column in examples.verdicts.items())
            if any(letter in "fh" and (answer == target) != (letter == "f") for letter, answer in pairs):
                self._ended.append(row)

    def check(self, seen: int) -> Check:  # noqa: ARG002
        rule = self.result.terms["target"]
        if self._why:
            return Check("targets", False, self._why)
        if self._other or self._ended:
            return Check(
                "targets",
                False,
                f"{len(self._other)} points have another target than {rule!r} gives {self._other[:5]}, "
                f"{len(self._ended)} examples ended elsewhere than their letters say {self._ended[:5]}",
            )
        return Check("targets", True, f"those that {rule!r} gives, and reached where the letters say so")


def _signed(identity: int) -> int:
    return identity - 2**64 if identity >= 2**63 else identity


@dataclass
class _Inputs:
    """Whether the saved clean inputs are those of the data."""

    points: Mapping[str, Tensor]
    to_search: ToSearch

    def __post_init__(self) -> None:
        rows = self.points["row"].tolist() if self.points else []
        self._place = {row: number for number, row in enumerate(rows)}
        self._bad: list[int] = []
        self._found = 0

    def see(self, rows: range, x: Tree, y: Tensor | None) -> None:
        wanted = [row for row in rows if row in self._place]
        if not wanted:
            return
        index = torch.tensor([row - rows.start for row in wanted], dtype=torch.int64, device="cpu")
        there = torch.tensor([self._place[row] for row in wanted], dtype=torch.int64, device="cpu")
        self._found += len(wanted)
        u = tree_map(lambda part: self.to_search(part)[index], x)
        parts = {f"x:{name}": part for name, part in u.items()} if isinstance(u, dict) else {"x": u}
        near = torch.ones(len(wanted), dtype=torch.bool, device="cpu")
        for name, part in parts.items():
            kept = self.points.get(name)
            if kept is None or kept.shape[1:] != part.shape[1:]:
                near &= False
                continue
            same = (kept[there].double() - part.double()).abs().reshape(len(wanted), -1).amax(1) <= 1e-6
            near &= same
        kept_y = self.points.get("y")
        if y is not None and kept_y is not None and kept_y.shape[1:] == y.shape[1:]:
            same = (kept_y[there].double() - y[index].double()).abs().reshape(len(wanted), -1).amax(1) <= 1e-6
            near &= same
        self._bad += [row for row, flag in zip(wanted, near.tolist(), strict=True) if not flag]

    def check(self, seen: int) -> Check:  # noqa: ARG002
        if not self.points:
            return Check("clean inputs", True, "no points were saved")
        missing = len(self._place) - self._found
        if self._bad or missing:
            return Check(
                "clean inputs",
                False,
                f"{len(self._bad)} differ from the data (examples {self._bad[:5]}), {missing} not in it",
            )
        return Check("clean inputs", True, f"{self._found} are those of the data")


def hashes(result: Result, now: Mapping[str, str]) -> Check:
    """Whether what went in has the recorded SHA-256; one that is not recorded is missing."""
    wrong = [name for name, digest in result.hashes.items() if name in now and now[name] != digest]
    unknown = sorted(set(result.hashes) - set(now))
    same = ", ".join(sorted(set(result.hashes) & set(now)))
    seen = f"{same} unchanged" if same else "none was recorded" if not result.hashes else "none is known here"
    missing = sorted(set(now) - set(result.hashes))
    if missing:
        seen += f"; not recorded: {', '.join(missing)}"
    if unknown:
        seen += f"; not looked at: {', '.join(unknown)}"
    if wrong:
        seen = f"{', '.join(wrong)} changed since the audit"
    return Check("SHA-256", not wrong and not missing, seen, complete=not unknown)


def home(predictor: Predictor) -> torch.device:
    """Where the model is asked: on the device of its first weight."""
    weights = getattr(predictor.model, "parameters", lambda: iter(()))()
    return next((part.device for part in weights), torch.device("cpu"))
