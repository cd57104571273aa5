"""What an audit found and under which terms: the fields of its record, and the figures that follow from them.

Reading, writing and printing are those of `signstep.auditing.result.Result`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from signstep.auditing.detection import Detection
from signstep.auditing.diagnosed import Diagnosed
from signstep.auditing.gates import Gate
from signstep.auditing.knob import Knob
from signstep.auditing.sections import Section
from signstep.certify.methods import OPEN, TITLES
from signstep.engine.statistics import wilson

SCHEMA = 4

# The letter of an example that an attack was not run on: wrong untouched, or fooled by a rung before.
NOT_RUN = "-"

# Sizes at which something falls are rounded as the search rounds: so much below a proved one is no rounding.
_LESS = 1 - 1e-5

# The name of what exact search found, among the attacks.
EXACT_SEARCH = "exact-search"

# The note on a curve that could not be drawn begins so; the reason follows.
NO_RAY = "the curve of FGSM over sizes was left out"

UPPER_BOUND = (
    "Robust accuracy is an upper bound on the truth: a stronger attack can only lower it. The interval covers the "
    "sampling of examples only."
)


_ASIDE = ("rung ", " was not run: ")


def aside_note(name: str, reason: str) -> str:
    """What a record says of a rung of a preset that was set aside; `Result.set_aside` reads it."""
    return f"{_ASIDE[0]}{name}{_ASIDE[1]}{reason}"


@dataclass(frozen=True)
class AttackResult:
    """What one attack did to all examples.

    Attributes:
        name: of the recipe, with options.
        fooled: examples, right without the attack, on which the model then failed.
        held: examples, right without the attack, that survived it.
        undetermined: examples, right without the attack, about which it could find out nothing (vanished gradient, NaN,
            unverified): counted apart and never as robust.
        reached: targeted goals: examples that reached the target and were not there before; else None.
        already: targeted goals: examples that were at the target without the attack; else None.
        right_after: examples that the model answers rightly at the attacked point; None for targeted goals.
        distance: median length of the change among the fooled, in the threat's norm; None if none was fooled.
        forwards: forward passes for each example, mean; the model's and surrogates', verdicts included.
        backwards: backward passes for each example, mean.
        seconds: wall-clock time.
        steps: gradient steps of each run.
        gradients: gradients looked at.
        dead_gradients: of these, gradients with no usable coordinate.
        zero: share of gradient coordinates that were exactly zero.
        nonfinite: share that was NaN or infinite.
        underflow: share that was too small for full precision.
        unverified: returned points that failed the independent check.
        source: the paper.
        entered: examples it was run on: all, or those still standing when its turn on a ladder came.
        coordinates: coordinates of all gradients looked at, which the three shares are shares of.
        needs: what it asks the model for: "gradients", "scores", "labels" or "nothing".
        queries: quartiles of the forward passes spent on each example it was run on, verdicts included: what it costs
            an attacker to succeed or to give up. None if it was run on none.
        nearest: of attacks that look for the smallest change: quartiles of the length of the nearest point that fools,
            also beyond eps, over the right examples it was run on; an entry is None where that is nowhere. Else None.
        transfers: by name of another model: of the examples that it was run on and the other model answers rightly
            untouched, how many the other model gets wrong at the attacked point, and how many there are.
    """

    name: str
    fooled: int
    held: int
    undetermined: int
    reached: int | None
    already: int | None
    right_after: int | None
    distance: float | None
    forwards: float
    backwards: float
    seconds: float
    steps: int
    gradients: int
    dead_gradients: int
    zero: float
    nonfinite: float
    underflow: float
    unverified: int
    source: str
    entered: int
    needs: str
    queries: tuple[float, float, float] | None
    coordinates: int = 0
    nearest: tuple[float | None, float | None, float | None] | None = None
    transfers: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class CurvePoint:
    """An attack at one size: how many of the examples that were right untouched it fools there."""

    eps: float
    fooled: int


@dataclass(frozen=True)
class Examples:
    """One entry for each example, in the order of the stream.

    ``clean`` has a letter for each: r right, w wrong. ``verdicts`` has one string for each attack: f fooled, h held,
    u undetermined, - not run (a rung of a ladder is run on the examples still standing). ``smallest_eps`` is the
    smallest size that fools along the FGSM ray, None where none was found.
    For classification ``labels`` and, by "clean" and by attack, the model's ``answers``; else both are empty.
    By attack: ``passes``, the forward passes spent; ``distances``, the length of the change where it fooled, else None;
    ``nearest``, of attacks that look for the smallest change, the length of the nearest point that fools, None where
    none was found. By other model and then by "clean" and by attack, ``transfers`` has letters: r the other model is
    right there, w wrong, - not run. ``bounds`` has a letter for each example where bounds were taken, else none: what
    proved that no allowed point is answered otherwise, i intervals, b CROWN-IBP, c CROWN, a alpha-CROWN, e exact
    search, l auto_LiRPA; - where nothing did. ``proved_eps`` is the largest size of the curve at which it is proved,
    None where at none; empty where that was not asked.
    """

    ids: tuple[str, ...]
    clean: str
    verdicts: dict[str, str]
    smallest_eps: tuple[float | None, ...]
    labels: tuple[int, ...] = ()
    answers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    passes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    distances: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    nearest: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    transfers: dict[str, dict[str, str]] = field(default_factory=dict)
    bounds: str = ""
    proved_eps: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Record:
    """Everything an audit found, under the terms it was found.

    Attributes:
        model: description.
        data: description.
        examples: number of examples seen.
        clean_right: examples that the model answers rightly untouched (the labels' agreement with the model when the
            labels are its own predictions).
        held: examples that were right and survived every attack.
        undetermined: examples that were right, that no attack fooled, and on which none could search, neither by
            gradients nor by asking.
        attacks: one entry for each attack.
        curves: by attack, the same at several sizes. FGSM's come from one gradient, those of an attack that looks for
            the smallest change from its one run; other attacks keep what they found at a smaller size.
        terms: threat, goal, labels, loss, input space, model mode, seed, device: what the numbers mean.
        notes: what the reader must know.
        versions: of Signstep, Python, torch and NumPy.
        seconds: wall-clock time.
        partial: the audit was interrupted, or an attack ended early: the counts cover what was seen until then.
        per_example: one entry for each example.
        classes: names of the classes, in the order of the labels, where they are known.
        hashes: SHA-256 of what went in, where it is known: "weights", "data", "code" (the model's Python files) and
            "preprocessing" (what Signstep does to the data).
        ladder: the ladder that the attacks are rungs of, in their order; "" if each attack was run on all examples.
        sections: what the domain says of it in the words of its users; empty for classifiers of images.
        date: when the audit ended, in UTC; two records that differ in it alone are equal.
        gates: what was asked of the result, and whether it passed.
        knob: one example that fell, asked at several sizes of its change; None where none was.
        detection: what detectors say of the examples, and what an attacker who knows of them comes to; None where the
            model was audited without.
        diagnosis: whether the number of its last attack, or of its ladder, is real; None where that was not asked.
        schema: version of this record.
    """

    model: str
    data: str
    examples: int
    clean_right: int
    held: int
    undetermined: int
    attacks: tuple[AttackResult, ...]
    curves: dict[str, tuple[CurvePoint, ...]]
    terms: dict[str, Any]
    notes: tuple[str, ...]
    versions: dict[str, str]
    seconds: float
    partial: bool
    per_example: Examples
    classes: tuple[str, ...] = ()
    hashes: dict[str, str] = field(default_factory=dict)
    ladder: str = ""
    sections: tuple[Section, ...] = ()
    date: str = field(default="", compare=False)
    gates: tuple[Gate, ...] = ()
    knob: Knob | None = None
    detection: Detection | None = None
    diagnosis: Diagnosed | None = None
    schema: int = SCHEMA

    @property
    def clean_accuracy(self) -> float:
        """Share of examples answered rightly untouched."""
        return self.clean_right / self.examples if self.examples else math.nan

    @property
    def robust_accuracy(self) -> float:
        """Share of *all* examples that were right and survived every attack: an upper bound on the truth."""
        return self.held / self.examples if self.examples else math.nan

    @property
    def certified(self) -> int | None:
        """Examples that are proved: no allowed change alters their answer. None where no bounds were taken."""
        letters = self.per_example.bounds
        return len(letters) - letters.count(OPEN) if letters else None

    @property
    def certified_accuracy(self) -> float | None:
        """Share of all examples that are proved: a lower bound on the truth. None where no bounds were taken."""
        return None if self.certified is None else self.certified / self.examples

    @property
    def open(self) -> int | None:
        """Right examples that were neither fooled nor proved; None where no bounds were taken."""
        rows = zip(self.per_example.bounds, self.worst_case, strict=False) if self.per_example.bounds else None
        return None if rows is None else sum(letter == OPEN and worst in "hu" for letter, worst in rows)

    @property
    def bracket(self) -> str:
        """Both ends of robust accuracy in one line; "" where no bounds were taken."""
        if self.certified_accuracy is None:
            return ""
        method = TITLES.get(str(self._bounds.get("method")), "bounds")
        above = (self.held + self.undetermined) / self.examples
        searched = any(entry.name == EXACT_SEARCH and entry.fooled for entry in self.attacks)
        by = f"{self.ladder or 'attacks'}{' and exact search' if searched else ''}"
        return (
            f"robust accuracy in [{100 * self.certified_accuracy:.1f} % ({method}), {100 * above:.1f} % "
            f"({by})]; {self.open} of {self.examples} open"
        )

    @property
    def contradictions(self) -> tuple[int, ...]:
        """Examples that are proved and that a verified point fools all the same: one of the two is wrong."""
        if not self.per_example.bounds:
            return ()
        rows = zip(self.per_example.bounds, self.worst_case, strict=False)
        at_eps = {row for row, (letter, worst) in enumerate(rows) if letter != OPEN and worst not in "hu"}
        sizes = self.per_example.proved_eps
        for fooled in (self.per_example.smallest_eps, *self.per_example.nearest.values()):
            pairs = enumerate(zip(sizes, fooled, strict=False))
            at_eps |= {row for row, (proved, found) in pairs if proved and found is not None and found < proved * _LESS}
        return tuple(sorted(at_eps))

    @property
    def proved_curve(self) -> tuple[tuple[float, int], ...]:
        """By size of the curve, how many examples are proved there; empty where that was not asked."""
        levels = next(iter(self.curves.values()), ()) if self.per_example.proved_eps else ()
        sizes = [size for size in self.per_example.proved_eps if size is not None]
        return tuple((point.eps, sum(size >= point.eps for size in sizes)) for point in levels)

    @property
    def spared(self) -> str:
        """A letter for each example: s for one that was not attacked since it was proved, else -."""
        letters = self.per_example.bounds or OPEN * len(self.per_example.clean)
        if self._bounds.get("attack_all", True):
            return OPEN * len(letters)
        return "".join(OPEN if letter == OPEN else "s" for letter in letters)

    def left_by(self, entry: AttackResult) -> int:
        """Right examples that an attack leaves standing: those that held, and those proved, which it was spared."""
        column = self.per_example.verdicts.get(entry.name, "")
        return entry.held + sum(spared == "s" and v == "-" for spared, v in zip(self.spared, column, strict=False))

    @property
    def _bounds(self) -> dict[str, Any]:
        """The terms of the bounds, in whatever record."""
        stated = self.terms.get("bounds")
        return stated if isinstance(stated, dict) else {}

    @property
    def success_rate(self) -> float:
        """Share of the initially right examples that some attack fooled."""
        return self.fooled / self.clean_right if self.clean_right else math.nan

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """FGSM at several sizes."""
        return self.curves.get("fgsm", ())

    @property
    def no_curve(self) -> str:
        """Why there is no curve of FGSM, where there was to be one; else nothing."""
        return next((note for note in self.notes if note.startswith(NO_RAY)), "")

    @property
    def set_aside(self) -> dict[str, str]:
        """By rung, why it was not run: of a preset those that this threat, task or model has no place for."""
        told = (note[len(_ASIDE[0]) :].partition(_ASIDE[1]) for note in self.notes if note.startswith(_ASIDE[0]))
        names = {entry.name for entry in self.attacks}
        return {name: reason for name, found, reason in told if found and name in names}

    @property
    def tried(self) -> tuple[AttackResult, ...]:
        """The attacks without those that were set aside."""
        aside = self.set_aside
        return tuple(entry for entry in self.attacks if entry.entered or entry.name not in aside)

    @property
    def fooled(self) -> int:
        """Examples that were right and that some attack fooled."""
        return self.clean_right - self.held - self.undetermined

    @property
    def worst_case(self) -> str:
        """A letter for each example: w wrong untouched, f fooled by some attack, u undetermined, h held."""
        return worst_case(self.per_example, self.attacks)

    def attack(self, name: str) -> AttackResult:
        """The entry of one attack.

        Raises:
            KeyError: it did not run.
        """
        for entry in self.attacks:
            if entry.name == name:
                return entry
        raise KeyError(f"no attack {name!r} in this result; it has {[entry.name for entry in self.attacks]}")

    def interval(self, count: int) -> tuple[float, float]:
        """The 95 % Wilson interval of ``count`` out of all examples."""
        return wilson(count, self.examples)


def worst_case(examples: Examples, attacks: Sequence[AttackResult]) -> str:
    """Attacks combined pointwise: one letter for each example.

    An example is undetermined when no attack fooled it and none of those run on it could search: gradients vanished,
    outputs were NaN, the victim had gone. A search by scores or labels settles it as one by gradients does; a control,
    which asks the model nothing before its verdict, settles nothing beside them.
    """
    columns = list(examples.verdicts.values())
    # Attacks led by surrogates need nothing of the model, and have searched all the same.
    searched = (entry for entry in attacks if entry.needs != "nothing" or entry.gradients)
    informed = [examples.verdicts[entry.name] for entry in searched] or columns

    def letter(row: int, clean: str) -> str:
        if clean == "w":
            return "w"
        if any(column[row] == "f" for column in columns):
            return "f"
        seen = [column[row] for column in informed if column[row] != NOT_RUN]
        return "u" if seen and all(verdict == "u" for verdict in seen) else "h"

    return "".join(letter(row, clean) for row, clean in enumerate(examples.clean))
