"""Several audits of the same examples, side by side: accuracies, cost, and every pair tested example by example."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from signstep.auditing.compare import Comparison, compare, holm
from signstep.auditing.diagnosed import GRADIENT_SIZE
from signstep.auditing.ranks import spearman
from signstep.auditing.result import Result
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.plain import markdown, one_line

LEVEL = 0.05


@dataclass(frozen=True)
class Training:
    """What it cost to make a model.

    Attributes:
        recipe: in words.
        seconds: of training steps, without looks and audits.
        steps: of the optimiser.
        passes: forward and backward passes over one batch of one step.
        events: collapses that were called, in words.
    """

    recipe: str
    seconds: float
    steps: int
    passes: tuple[int, int]
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two of the results, the first as "before".

    Attributes:
        one: name.
        other: name.
        found: the paired comparison.
        robust_p: McNemar's p-value of who holds, adjusted for all pairs that are compared (Holm).
        clean_p: the same of who is right untouched.
    """

    one: str
    other: str
    found: Comparison
    robust_p: float
    clean_p: float

    def __str__(self) -> str:
        now = self.found
        robust = _side(now.held_before, now.held_after, len(now.lost), len(now.won), self.robust_p)
        clean = f"clean {now.clean_lost} lost, {now.clean_won} won: {_word(self.clean_p)} (p = {self.clean_p:.3g})"
        return f"{self.one} -> {self.other}: robust {robust} of {now.examples}; {clean}"


@dataclass(frozen=True)
class Pairwise:
    """Results by name and their pairs; print it for the table.

    Attributes:
        results: by name.
        pairs: those that are compared: all, or each with one.
        trainings: of those that were trained here.
        notes: what a reader must know.
    """

    results: Mapping[str, Result]
    pairs: tuple[Pair, ...]
    trainings: Mapping[str, Training] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [[*map(one_line, row)] for row in self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = []
        for row in rows:
            cells = [row[0].ljust(widths[0])]
            cells += [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells).rstrip())
        parts = [lines[0], "  ".join("-" * width for width in widths), *lines[1:], ""]
        parts += [f"{pair} ({self.test})" for pair in self.pairs]
        measured = self.measured()
        parts += ["", *(": ".join((row[0], "; ".join(row[1:]))) for row in measured)] if measured else []
        return "\n".join(map(one_line, [*parts, *(f"note: {note}" for note in self.remarks())]))

    @property
    def test(self) -> str:
        """The test in words."""
        return "exact McNemar" if len(self.pairs) < 2 else f"exact McNemar, Holm for {len(self.pairs)} pairs"

    def rows(self) -> list[tuple[str, ...]]:
        """The table, its header first."""
        head = ("", "clean acc.", "95 % interval", "robust acc.", "95 % interval", "passes each", "audit s")
        rows = [head + (("training s", "passes a step") if self.trainings else ())]
        for name, result in self.results.items():
            found = numbers(result)
            cells = [name]
            for side in ("clean", "robust"):
                low, high = found[f"{side}_interval"]
                cells += [f"{100 * found[f'{side}_accuracy']:.2f} %", f"{100 * low:.1f} %..{100 * high:.1f} %"]
            cells += [f"{found['passes_per_example']:.0f}", f"{found['seconds']:.1f}"]
            if self.trainings:
                made = self.trainings.get(name)
                cells += ["-", "-"] if made is None else [f"{made.seconds:.1f}", "{} + {}".format(*made.passes)]
            rows.append(tuple(cells))
        return rows

    def measured(self) -> list[tuple[str, ...]]:
        """What diagnoses measured beside their verdicts, a row for each: its name, and "result value" for each result.

        The last row has the rank correlation over the results of the size of gradients with robust accuracy, where
        three results or more have it.
        """
        there = {name: result.diagnosis.measures for name, result in self.results.items() if result.diagnosis}
        names = list(dict.fromkeys(measure for found in there.values() for measure in found))
        rows = [
            (measure, *(f"{name} {found[measure]:.4g}" for name, found in there.items() if measure in found))
            for measure in names
        ]
        sized = [name for name, found in there.items() if GRADIENT_SIZE in found]
        if len(sized) >= 3:
            rank = spearman(
                [there[name][GRADIENT_SIZE] for name in sized], [self.results[name].robust_accuracy for name in sized]
            )
            said = "all alike" if rank is None else f"{rank:+.2f}"
            rows.append((f"{GRADIENT_SIZE} and robust accuracy, rank correlation", f"{said} over {len(sized)} results"))
        return rows

    def remarks(self) -> list[str]:
        """Notes of the whole, of pairs whose terms differ, and of trainings that collapsed."""
        lines: dict[str, None] = dict.fromkeys(self.notes)
        for name, made in self.trainings.items():
            lines |= dict.fromkeys(f"{name}: {event}" for event in made.events)
        for pair in self.pairs:
            lines |= dict.fromkeys(f"{pair.one} -> {pair.other}: {note}" for note in pair.found.notes)
        return list(lines)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "results": {
                name: {**numbers(result), **_made(self.trainings.get(name)), **_measures(result)}
                for name, result in self.results.items()
            },
            "pairs": [
                {
                    "before": pair.one,
                    "after": pair.other,
                    "examples": pair.found.examples,
                    "lost": len(pair.found.lost),
                    "won": len(pair.found.won),
                    "p_value": pair.found.p_value,
                    "p_holm": pair.robust_p,
                    "clean_lost": pair.found.clean_lost,
                    "clean_won": pair.found.clean_won,
                    "clean_p_value": pair.found.clean_p_value,
                    "clean_p_holm": pair.clean_p,
                    "notes": list(pair.found.notes),
                }
                for pair in self.pairs
            ],
            "notes": self.remarks(),
        }

    def markdown(self, picture: str = "") -> str:
        """A page: table, pairs, notes; ``picture`` is the address of a chart."""
        head, *rows = self.rows()
        table = [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]
        parts = ["# Comparison", "\n".join(table)]
        if picture:
            parts.append(f"![Clean against robust accuracy]({picture})")
        parts += [f"## Pairs\n\n{self.test}:", "\n".join(f"- {markdown(str(pair))}" for pair in self.pairs)]
        if measured := self.measured():
            lines = (f"- {markdown(row[0])}: {markdown('; '.join(row[1:]))}" for row in measured)
            parts += ["## Measured beside the verdicts", "\n".join(lines)]
        if remarks := self.remarks():
            parts += ["## Notes", "\n".join(f"- {markdown(note)}" for note in remarks)]
        parts.append("Robust accuracy is an upper bound: another attack may still find more.")
        return "\n\n".join(parts) + "\n"


def compare_all(
    results: Mapping[str, Result],
    *,
    against: str | None = None,
    trainings: Mapping[str, Training] | None = None,
    notes: tuple[str, ...] = (),
) -> Pairwise:
    """Compare results of the same examples, all pairs or each with one.

    Args:
        results: two or more, by name.
        against: the name of the one that all others are compared with; fewer tests, so that each can see more.
        trainings: what it cost to make those that were trained for this.
        notes: what a reader must know.

    Raises:
        InputError: fewer than two, no such name, or results without a common example.
    """
    if len(results) < 2:
        raise InputError(f"compare got {len(results)} result", remedy="pass two or more")
    if against is not None and against not in results:
        raise InputError(Arg("against", against), "is none of the results", remedy=f"pass one of {', '.join(results)}")
    names = (
        list(combinations(results, 2)) if against is None else [(against, name) for name in results if name != against]
    )
    found = [_compared(results, one, other) for one, other in names]
    robust = holm([pair.p_value for pair in found])
    clean = holm([pair.clean_p_value for pair in found])
    rows = zip(names, found, robust, clean, strict=True)
    pairs = tuple(Pair(one, other, pair, r, c) for (one, other), pair, r, c in rows)
    return Pairwise(results, pairs, trainings or {}, notes)


def _measures(result: Result) -> dict[str, Any]:
    """What a diagnosis measured, where there is one."""
    found = {} if result.diagnosis is None else result.diagnosis.measures
    return {"measures": dict(found)} if found else {}


def numbers(result: Result) -> dict[str, Any]:
    """The figures of one result that are compared."""
    passes = sum(attack.entered * (attack.forwards + attack.backwards) for attack in result.attacks)
    return {
        "examples": result.examples,
        "clean_accuracy": result.clean_accuracy,
        "robust_accuracy": result.robust_accuracy,
        "clean_interval": result.interval(result.clean_right),
        "robust_interval": result.interval(result.held),
        "passes_per_example": passes / result.examples,
        "seconds": result.seconds,
    }


def _compared(results: Mapping[str, Result], one: str, other: str) -> Comparison:
    try:
        return compare(results[one], results[other])
    except InputError as error:
        raise InputError(
            f"{one} and {other} have no example in common", remedy="audit both on the same data, box and scale"
        ) from error


def _made(training: Training | None) -> dict[str, Any]:
    if training is None:
        return {}
    return {"training_seconds": training.seconds, "training_steps": training.steps, "recipe": training.recipe}


def _side(before: int, after: int, lost: int, won: int, p: float) -> str:
    return f"{before} -> {after} ({lost} lost, {won} won): {_word(p)} (p = {p:.3g})"


def _word(p: float) -> str:
    return "more than chance" if p < LEVEL else "not more than chance"


def _row(cells: Any) -> str:
    return "| " + " | ".join(markdown(str(cell)) for cell in cells) + " |"
