"""Counts over the batches of an audit: one letter and a few numbers for each example, no tensors of inputs."""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signstep.attacks.recipes import RECIPES
from signstep.auditing.figures import (
    everywhere,
    fooled_within,
    median_distance,
    nearest_quartiles,
    passes_quartiles,
    transferred,
)
from signstep.auditing.record import NO_RAY, NOT_RUN, AttackResult, CurvePoint, Examples, worst_case
from signstep.auditing.result import Result
from signstep.engine.attack import Attack
from signstep.engine.outcome import Outcome
from signstep.engine.shaped import ShapedThreat
from signstep.engine.tasks import Multiclass
from signstep.engine.threat import ThreatModel
from signstep.engine.ways import way_name
from signstep.model.subject import Question, Randomness
from signstep.version import VERSION


@dataclass(frozen=True)
class Facts:
    """What is known of an attack before it runs."""

    steps: int
    needs: str
    source: str

    @classmethod
    def of(cls, attack: Attack) -> "Facts":
        """From the attack and the row of its recipe."""
        row = RECIPES.get(attack.name)
        needs = row.needs if row else getattr(attack, "needs", "gradients" if attack.steps else "nothing")
        return cls(attack.steps, str(needs), row.source if row else "")


@dataclass
class Sums:
    """Running totals of one attack, and its letters and numbers for each example."""

    verdicts: list[str] = field(default_factory=list)
    reached: int = 0
    already: int = 0
    right_after: int = 0
    backwards: int = 0
    seconds: float = 0.0
    health: tuple[int, ...] = (0,) * 6
    unverified: int = 0
    passes: list[int] = field(default_factory=list)
    distances: list[float | None] = field(default_factory=list)
    nearest: list[float | None] = field(default_factory=list)
    seeks: bool = False
    ways: dict[str, int] = field(default_factory=dict)
    batch: tuple[Outcome | None, float, Tensor | None] | None = None

    @property
    def column(self) -> str:
        """A letter for each example."""
        return "".join(self.verdicts)

    def pass_over(self, count: int) -> None:
        """So many examples that the attack was not run on."""
        self.verdicts.append(NOT_RUN * count)
        self.passes += [0] * count
        self.distances += [None] * count
        self.nearest += [None] * count

    def book(
        self,
        outcome: Outcome,
        seconds: float,
        index: Tensor | None,
        already: Tensor,
        wrong: Tensor,
        *,
        targeted: bool,
    ) -> None:
        """What the attack did to the rows at ``index`` of a batch (None for all)."""
        ran = torch.ones_like(already) if index is None else torch.zeros_like(already).index_fill(0, index, True)
        hit = outcome.fooled
        self.verdicts.append(_letters(hit, outcome.undetermined, ran))
        self.passes += outcome.forwards.tolist()
        self.backwards += int(outcome.backwards.sum())
        self.seconds += seconds
        seen = [int(part.sum()) for part in outcome.health]
        self.health = tuple(a + b for a, b in zip(self.health, seen, strict=True))
        self.unverified += int((~outcome.verified).sum())
        self.reached += int((hit & ~already).sum())
        self.already += int(already.sum())
        self.right_after += int((~hit & outcome.valid & outcome.verified).sum())
        distance = outcome.distance if isinstance(outcome.distance, Tensor) else _largest(outcome.distance)
        self.distances += _where(hit & ~already if targeted else hit & ~wrong, distance)
        for code in [] if outcome.ways is None else outcome.ways[hit & ~wrong].tolist():
            self.ways[way_name(code)] = self.ways.get(way_name(code), 0) + 1
        found = outcome.smallest
        self.seeks |= found is not None
        self.nearest += [None] * len(hit) if found is None else _where(ran & torch.isfinite(found), found)

    def entry(self, name: str, facts: Facts, examples: Examples, *, targeted: bool) -> AttackResult:
        """The record of the attack."""
        clean, column, whole = examples.clean, self.column, max(1, len(examples.clean))
        zero, nonfinite, underflow, coordinates, dead, gradients = self.health
        share = 1 / coordinates if coordinates else 0.0
        entered = len(column) - column.count(NOT_RUN)
        return AttackResult(
            name=name,
            fooled=_count(clean, column, "f"),
            held=_count(clean, column, "h"),
            undetermined=_count(clean, column, "u"),
            reached=self.reached if targeted else None,
            already=self.already if targeted else None,
            right_after=None if targeted or entered < len(column) else self.right_after,
            distance=median_distance(self.distances),
            forwards=sum(self.passes) / whole,
            backwards=self.backwards / whole,
            seconds=round(self.seconds, 3),
            steps=facts.steps,
            gradients=gradients,
            dead_gradients=dead,
            zero=zero * share,
            nonfinite=nonfinite * share,
            underflow=underflow * share,
            unverified=self.unverified,
            source=facts.source,
            entered=entered,
            needs=facts.needs,
            queries=passes_quartiles(self.passes, column),
            coordinates=coordinates,
            nearest=nearest_quartiles(self.nearest, clean, column) if self.seeks else None,
            transfers={other: transferred(examples, other, name) for other in examples.transfers},
        )


class Tally:
    """Counts over the batches seen; keeps one letter and a few numbers for each example, no tensors of inputs."""

    def __init__(self, names: Sequence[str], levels: Sequence[float], traced: Sequence[str]) -> None:
        self.examples = 0
        self.randomness: Randomness | None = None
        self.ended = False
        self.rayless = False  # no FGSM curve: nothing that was run looks at gradients
        self.most: int | None = None
        self.levels = tuple(levels)
        self.terms: dict[str, Any] = {}
        self.notes: list[str] = []
        self._sums = {name: Sums() for name in names}
        self._clean: list[str] = []
        self._ids: list[str] = []
        self._labels: list[int] = []
        self._answers: dict[str, list[int]] = {}
        self._curves = {name: [0] * len(self.levels) for name in ("fgsm", *traced)}
        self._smallest: list[float | None] = []
        self._ray: tuple[dict[str, Tensor], Tensor | None] | None = None
        self._transfers: dict[str, dict[str, list[str]]] = {}
        self._shown: dict[str, dict[str, str]] = {}
        self._bounds: list[str] = []
        self._proved: tuple[str, list[float | None] | None] | None = None
        self._proved_eps: list[float | None] = []

    def add(self, name: str, outcome: Outcome, seconds: float, index: Tensor | None = None) -> None:
        """One attack on the current batch, or on its rows at ``index``; it counts once the batch is finished."""
        self._sums[name].batch = (outcome, seconds, index)

    def skip(self, name: str) -> None:
        """An attack that no row of the current batch was left for."""
        self._sums[name].batch = (None, 0.0, None)

    def has_run(self, name: str) -> bool:
        """Whether an attack has been run on any example of the batches before."""
        return any(letter != NOT_RUN for letter in self._sums[name].column)

    def stop(self, note: str) -> None:
        """Something ended before its time: the current batch counts, nothing comes after it."""
        self.ended = True
        if note not in self.notes:
            self.notes.append(note)

    def forget(self) -> None:
        """The current batch will be done anew."""
        for sums in self._sums.values():
            sums.batch = None
        self._ray = None
        self._shown = {}
        self._proved = None

    def ways(self) -> dict[str, dict[str, int]]:
        """By attack, by which way past a defence how many fell that were right untouched; empty without defences."""
        return {name: dict(sorted(sums.ways.items())) for name, sums in self._sums.items() if sums.ways}

    def add_bounds(self, letters: str, sizes: list[float | None] | None = None) -> None:
        """What is proved of the rows of the current batch, see `Examples.bounds` and `Examples.proved_eps`."""
        self._proved = letters, sizes

    def ran(self) -> dict[str, tuple[Outcome, Tensor | None]]:
        """By attack on the current batch: what it found, and the rows it was run on (None for all)."""
        batches = {name: sums.batch for name, sums in self._sums.items() if sums.batch is not None}
        return {name: (batch[0], batch[2]) for name, batch in batches.items() if batch[0] is not None}

    def add_transfers(self, other: str, letters: Mapping[str, str]) -> None:
        """What another model answers, by "clean" and by attack: r right, w wrong, a letter for each row."""
        self._shown[other] = dict(letters)

    def leave_ray(self, reason: str) -> None:
        """There is no curve of FGSM, for no batch: the gradient that it takes is none."""
        self.rayless = True
        self._smallest = [None] * self.examples
        note = f"{NO_RAY}: {reason.partition('; ')[0]}"
        if note not in self.notes:
            self.notes.append(note)

    def add_curves(self, fooled: dict[str, Tensor], smallest: Tensor | None) -> None:
        """The attacks at several sizes on the batch, (levels, R) each, and the smallest size on the FGSM ray if any."""
        self._ray = (fooled, smallest)

    def outcomes(self) -> dict[str, Outcome]:
        """The attacks on the current batch."""
        return {name: outcome for name, (outcome, _) in self.ran().items()}

    def places(self) -> list[Outcome | None]:
        """The same with a place for each attack, None for one that no row was left for."""
        return [None if sums.batch is None else sums.batch[0] for sums in self._sums.values()]

    def finish(self, question: Question) -> None:
        """Book the current batch; until then an interruption leaves the counts as they were."""
        problem, already = question.problem, question.clean.fooled
        wrong = already if question.wrong is None else question.wrong
        targeted = problem.goal == "targeted"
        classes = isinstance(problem.task, Multiclass)
        if classes:
            self._answers.setdefault("clean", []).extend(question.predicted.tolist())
            self._labels += [] if problem.aim.y is None else problem.aim.y.tolist()
        for name, sums in self._sums.items():
            assert sums.batch is not None
            outcome, seconds, index = sums.batch
            sums.batch = None
            if classes:
                said = question.predicted if outcome is None else outcome.answer
                self._answers.setdefault(name, []).extend(said.tolist())
            if outcome is None:
                sums.pass_over(len(wrong))
                continue
            sums.book(outcome, seconds, index, already, wrong, targeted=targeted)
            self.terms["tolerance"] = max(outcome.tolerance, self.terms.get("tolerance", 0.0))
            self.notes += [note for note in outcome.notes if note not in self.notes]
            self.ended |= outcome.ended is not None
        if self._proved is not None:
            self._bounds.append(self._proved[0])
            self._proved_eps += self._proved[1] or []
            self._proved = None
        self._clean.append("".join("w" if flag else "r" for flag in wrong.tolist()))
        self._ids += [f"{identity & (2**64 - 1):016x}" for identity in problem.ids.tolist()]
        curves, smallest = self._ray or ({}, None)
        self._ray = None
        for name, fooled in curves.items():
            for level, row in enumerate(fooled):
                self._curves[name][level] += int((row & ~wrong).sum())
        sizes = [math.inf] * len(wrong) if smallest is None else smallest.tolist()
        self._smallest += [None if math.isinf(eps) else eps for eps in sizes]
        for other, letters in self._shown.items():
            rows = self._transfers.setdefault(other, {name: [] for name in ("clean", *self._sums)})
            for name, part in rows.items():
                part.append(letters.get(name, NOT_RUN * len(wrong)))
        self._shown = {}
        self.examples += len(wrong)
        self.terms.setdefault("tolerance", 0.0)  # where every answer was wrong no rung has run
        self.terms |= {
            "task": problem.task.name,
            "goal": problem.goal,
            "labels": "predicted" if question.labels_predicted else "given",
            "loss": problem.loss,
            "random_model": problem.random,
            "outputs_form": question.form,
            "threat_terms": plain_terms(question.threats),
            "classes": question.classes,
        }

    def result(
        self,
        *,
        model: str,
        data: str,
        attacks: list[tuple[str, Attack]],
        terms: dict[str, Any],
        notes: tuple[str, ...],
        seconds: float,
        partial: bool,
        classes: tuple[str, ...],
        hashes: dict[str, str],
        ladder: str = "",
    ) -> Result:
        """The record."""
        clean = "".join(self._clean)
        per_example = Examples(
            tuple(self._ids),
            clean,
            {name: sums.column for name, sums in self._sums.items()},
            tuple(self._smallest),
            tuple(self._labels),
            {name: tuple(values) for name, values in self._answers.items()},
            passes={name: tuple(sums.passes) for name, sums in self._sums.items()},
            distances={name: tuple(sums.distances) for name, sums in self._sums.items()},
            nearest={name: tuple(sums.nearest) for name, sums in self._sums.items() if sums.seeks},
            transfers={
                other: {name: "".join(part) for name, part in rows.items()} for other, rows in self._transfers.items()
            },
            bounds="".join(self._bounds),
            proved_eps=tuple(self._proved_eps),
        )
        targeted = self.terms.get("goal") == "targeted"
        entries = tuple(
            self._sums[name].entry(name, Facts.of(attack), per_example, targeted=targeted) for name, attack in attacks
        )
        worst = worst_case(per_example, entries)
        curves = {
            name: tuple(CurvePoint(eps, count) for eps, count in zip(self.levels, counts, strict=True))
            for name, counts in self._curves.items()
            if not (self.rayless and name == "fgsm")
            if counts
        }
        curves |= nearest_curves(per_example, self.levels)
        if not curves:  # there are no sizes to state it at
            per_example = replace(per_example, proved_eps=())
        return Result(
            model=model,
            data=data,
            examples=self.examples,
            clean_right=clean.count("r"),
            held=worst.count("h"),
            undetermined=worst.count("u"),
            attacks=entries,
            curves=curves,
            terms={**self.terms, **terms},
            notes=notes,
            versions={
                "signstep": VERSION,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
            },
            seconds=round(seconds, 3),
            partial=partial,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
            per_example=per_example,
            classes=classes,
            hashes=hashes,
            ladder=ladder,
        )


def nearest_curves(examples: Examples, levels: Sequence[float]) -> dict[str, tuple[CurvePoint, ...]]:
    """The curves of attacks that looked for the smallest change: one run gives every size, if it met all examples."""
    return {
        name: tuple(CurvePoint(eps, fooled_within(lengths, examples.clean, eps)) for eps in levels)
        for name, lengths in examples.nearest.items()
        if levels and everywhere(examples.clean, examples.verdicts[name])
    }


def _letters(fooled: Tensor, undetermined: Tensor, ran: Tensor) -> str:
    rows = zip(fooled.tolist(), undetermined.tolist(), ran.tolist(), strict=True)
    return "".join(NOT_RUN if not here else "f" if hit else "u" if open_ else "h" for hit, open_, here in rows)


def _where(rows: Tensor, values: Tensor) -> list[float | None]:
    return [value if here else None for here, value in zip(rows.tolist(), values.tolist(), strict=True)]


def plain_terms(threats: Mapping[str, ThreatModel]) -> dict[str, Any]:
    """The threat in numbers, or by input where there are several; what is a tensor goes with the saved points."""
    if "" not in threats:
        return {"inputs": {name: plain_terms({"": threat}) for name, threat in threats.items()}}
    threat = threats[""]
    if isinstance(threat, ShapedThreat):
        eps = threat.eps if isinstance(threat.eps, float) else None
        return {"kind": threat.kind, "axes": [], "eps": eps, "low": None, "high": None, "grid": None}
    terms = threat.terms()
    plain = {
        name: None if isinstance(part, Tensor) and part.ndim else part if part is None else float(part)
        for name, part in (("eps", terms.eps), ("low", terms.low), ("high", terms.high))
    }
    return {"kind": terms.kind, "axes": list(terms.axes), **plain, "grid": terms.grid}


def _count(clean: str, verdicts: str, letter: str) -> int:
    return sum(1 for right, verdict in zip(clean, verdicts, strict=True) if right == "r" and verdict == letter)


def _largest(distance: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(distance.values())).amax(0)
