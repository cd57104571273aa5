"""What detectors say of the examples of an audit, and what an attacker who knows of them comes to: fields and figures.

The record keeps p-values, so that every count follows from them and the rates. Nothing here asks a model.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from signstep.auditing.sections import Chart, Line, Section
from signstep.engine.statistics import wilson

NOT_ASKED = "-"
# Of a rate: what rounding takes from a p-value that is a whole number of n + 1.
_ROUNDING = 1 + 1e-9
_STEPS = 60  # points of a ROC curve


@dataclass(frozen=True)
class Judge:
    """One detector.

    Attributes:
        name: with its options.
        rows: calibration rows.
        passes: forward passes for each input beside the model's own.
        by_class: whether p-values are taken within the class that the model answers.
        recipes: attacks that it was trained on.
        digests: SHA-256 of the model, the preprocessing and both halves of the clean rows.
        clean: its p-value of each example untouched.
        attacked: by attack, its p-value at the point that fooled the model, None where there is none.
    """

    name: str
    rows: int
    passes: int
    by_class: bool
    recipes: tuple[str, ...]
    digests: dict[str, str]
    clean: tuple[float, ...]
    attacked: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Detection:
    """A policy in an audit.

    Attributes:
        rule: by which p-values combine: "bonferroni", D times the smallest of D.
        reject: share of clean inputs that may be rejected.
        review: share that may be reviewed beside those.
        detectors: in their order.
        evaded: a letter for each example: f an attacker who knows leads the model to a wrong answer that is not
            flagged, h none of the ways did, - the example was wrong untouched.
        denied: a letter for each: f the right answer stays and is flagged, h none of the ways did, - the example was
            wrong or flagged untouched.
        ways: by way, the examples that it evaded; "plain" are points of the audit's own attacks.
    """

    rule: str
    reject: float
    review: float
    detectors: tuple[Judge, ...]
    evaded: str
    denied: str
    ways: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """The share of clean inputs that may be flagged."""
        return self.reject + self.review

    @property
    def stated(self) -> tuple[Any, ...]:
        """What two shards of one audit have in common."""
        said = [(one.name, one.rows, one.by_class, sorted(one.digests.items())) for one in self.detectors]
        return self.rule, self.reject, self.review, said

    def combined(self, parts: Sequence[float | None]) -> float | None:
        """The policy's p-value from those of its detectors; None where they were not asked."""
        known = [part for part in parts if part is not None]
        if not self.detectors:
            return 1.0
        return min(1.0, len(self.detectors) * min(known)) if len(known) == len(parts) and known else None

    def clean(self, who: int | None = None) -> list[float | None]:
        """p-values of the untouched examples: of one detector, or the policy's."""
        if who is not None:
            return list(self.detectors[who].clean)
        if not self.detectors:
            return [1.0] * len(self.evaded)
        return [self.combined(parts) for parts in zip(*(one.clean for one in self.detectors), strict=True)]

    def attacked(self, name: str, who: int | None = None) -> list[float | None]:
        """The same at the points of an attack that fooled the model."""
        if who is not None:
            return list(self.detectors[who].attacked[name])
        return [self.combined(parts) for parts in zip(*(one.attacked[name] for one in self.detectors), strict=True)]

    def flagged(self, p: float | None, who: int | None = None) -> bool:
        """Whether a p-value is flagged: by one detector at its part of the rate, or by the policy."""
        rate = self.rate if who is None else self.rate / len(self.detectors)
        return p is not None and p <= rate * _ROUNDING


@dataclass(frozen=True)
class Counts:
    """Figures of one detector, or of the policy.

    Attributes:
        name: of it.
        asked: the rate.
        alarms: flagged of ``examples`` untouched.
        examples: all.
        found: by attack, flagged of those that it fooled, and how many these are.
    """

    name: str
    asked: float
    alarms: int
    examples: int
    found: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Standing:
    """What is left of the model behind its policy; counts of all examples.

    Attributes:
        served: right untouched, and not flagged.
        plain: of those, examples that the audit's own attacks lead to no wrong answer that is not flagged.
        knowing: of those, examples that no attacker who knows does either.
        fallen: right examples that the audit's attacks fool, detectors or not.
        missed: of the right examples, those led by the audit's attacks to a wrong answer that is not flagged.
        evaded: the same by an attacker who knows: the union of all ways, plain points included.
        refused: right answers that are flagged untouched.
        denied: right answers, not flagged untouched, that an attacker gets flagged.
    """

    served: int
    plain: int
    knowing: int
    fallen: int
    missed: int
    evaded: int
    refused: int
    denied: int


def counts(detection: Detection, clean: str, verdicts: Mapping[str, str]) -> tuple[Counts, ...]:
    """The policy's figures, and behind them those of each detector where there are several."""
    single = len(detection.detectors) == 1
    found = [] if single else [_counts(detection, None, "together", clean, verdicts)]
    found += [_counts(detection, who, one.name, clean, verdicts) for who, one in enumerate(detection.detectors)]
    return tuple(found)


def _counts(detection: Detection, who: int | None, name: str, clean: str, verdicts: Mapping[str, str]) -> Counts:
    rate = detection.rate if who is None else detection.rate / len(detection.detectors)
    untouched = detection.clean(who)
    found = {}
    for attack in verdicts:
        here = [p for p in (detection.attacked(attack, who) if detection.detectors else ()) if p is not None]
        found[attack] = (sum(detection.flagged(p, who) for p in here), len(here))
    return Counts(name, rate, sum(detection.flagged(p, who) for p in untouched), len(clean), found)


def missed(detection: Detection, clean: str, verdicts: Mapping[str, str]) -> list[bool]:
    """For each example whether some attack of the audit fools a right answer without being flagged."""
    rows = [False] * len(clean)
    for name, letters in verdicts.items():
        here = detection.attacked(name) if detection.detectors else [1.0] * len(clean)
        for row, (right, letter, p) in enumerate(zip(clean, letters, here, strict=True)):
            rows[row] |= right == "r" and letter == "f" and not detection.flagged(p)
    return rows


def standing(detection: Detection, clean: str, verdicts: Mapping[str, str]) -> Standing:
    """What is left of the model behind its policy."""
    untouched = [detection.flagged(p) for p in detection.clean()]
    rows = list(zip(clean, untouched, missed(detection, clean, verdicts), detection.evaded, strict=True))
    served = [row for row in rows if row[0] == "r" and not row[1]]
    fallen = sum(
        right == "r" and any(letters[row] == "f" for letters in verdicts.values()) for row, right in enumerate(clean)
    )
    return Standing(
        len(served),
        sum(not hit for _, _, hit, _ in served),
        sum(letter != "f" for _, _, _, letter in served),
        fallen,
        sum(hit for _, _, hit, _ in rows),
        detection.evaded.count("f"),
        sum(right == "r" and flag for right, flag, _, _ in rows),
        detection.denied.count("f"),
    )


def roc(clean: Iterable[float | None], attacked: Iterable[float | None]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Shares of clean and of attacked rows with a p-value of at most a, as a rises from 0 to 1."""
    first = sorted(p for p in clean if p is not None)
    second = sorted(p for p in attacked if p is not None)
    levels = sorted({*first, *second})
    levels = levels if len(levels) <= _STEPS else [levels[len(levels) * k // _STEPS] for k in range(_STEPS)]
    x, y = [0.0], [0.0]
    for level in [*levels, 1.0]:
        x.append(sum(p <= level for p in first) / max(1, len(first)))
        y.append(sum(p <= level for p in second) / max(1, len(second)))
    return tuple(x), tuple(y)


def told(detection: Detection | None, clean: str, verdicts: Mapping[str, str], eps: str = "") -> tuple[Section, ...]:
    """What a reader is shown; nothing where there was no policy."""
    if detection is None:
        return ()
    left, whole = standing(detection, clean, verdicts), len(clean)
    right = clean.count("r")
    at = f" at eps = {eps}" if eps else ""
    text = (
        f"Asked: {_percent(detection.rate)} of clean inputs may be flagged. Of {whole} examples {left.served} are "
        f"answered rightly and accepted untouched. Attacked{at} by somebody who does not know of the detectors, "
        f"{left.plain} of them still are; by one who knows, {left.knowing} ({_interval(left.knowing, whole)}).",
        f"Of {right} right answers the audit's attacks change {left.fallen}; {left.missed} of these go by unseen. An "
        f"attacker who knows leads {left.evaded} to a wrong answer that is accepted{_by(detection)}. "
        f"{left.refused} right answers are refused untouched, and {left.denied} more can be made to be refused.",
        "The detectors are calibrated on other rows than these, and no threshold was chosen here. What an attacker who "
        "knows did not find proves nothing: it is an upper bound, as every figure of an attack is.",
    )
    attacks = list(verdicts)
    header = ("detector", "asked", "false alarms", "95 % interval", "passes", *(f"found: {name}" for name in attacks))
    rows = [_row(detection, one, attacks) for one in counts(detection, clean, verdicts)]
    return (Section("Detectors", text, header, tuple(rows), _chart(detection, verdicts)),)


def _row(detection: Detection, one: Counts, attacks: Sequence[str]) -> tuple[str, ...]:
    judges = [judge for judge in detection.detectors if judge.name == one.name]
    passes = judges[0].passes if judges else sum(judge.passes for judge in detection.detectors)
    trained = {name for judge in judges for name in judge.recipes}
    found = (
        f"{one.found[name][0]} of {one.found[name][1]}{' (trained on it)' if name in trained else ''}"
        for name in attacks
    )
    return (
        one.name,
        _percent(one.asked),
        _percent(one.alarms / max(1, one.examples)),
        _interval(one.alarms, one.examples),
        str(passes),
        *found,
    )


def _chart(detection: Detection, verdicts: Mapping[str, str]) -> Chart | None:
    lines = []
    for who, one in enumerate(detection.detectors):
        met = [name for name in verdicts if any(p is not None for p in one.attacked[name])]
        for name in met[:4]:
            x, y = roc(detection.clean(who), detection.attacked(name, who))
            lines.append(Line(f"{one.name}: {name}", x, y))
    if not lines:
        return None
    return Chart(
        "lines",
        "ROC of each detector against attacks that do not know of it",
        "Share of attacked points found over the share of clean examples flagged, as the threshold falls.",
        "share of clean examples flagged",
        "share of attacked points found",
        tuple(lines[:8]),
    )


def _by(detection: Detection) -> str:
    # "plain" is how records call the points of the audit's own attacks.
    words = {"plain": "attacks that do not know of it"}
    found = [f"{count} by {words.get(name, name)}" for name, count in detection.ways.items() if count]
    return f" ({', '.join(found)})" if found else ""


def _interval(count: int, whole: int) -> str:
    low, high = wilson(count, whole)
    return f"{_percent(low)} to {_percent(high)}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def joined(parts: Sequence[Detection | None], weave: Callable[[Sequence[Any]], list[Any]]) -> Detection | None:
    """The policy's letters and numbers over the shards of an audit; ``weave`` puts rows in the order of the data."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    first = known[0]
    detectors = tuple(
        Judge(
            one.name,
            one.rows,
            one.passes,
            one.by_class,
            one.recipes,
            one.digests,
            tuple(weave([part.detectors[who].clean for part in known])),
            {name: tuple(weave([part.detectors[who].attacked[name] for part in known])) for name in one.attacked},
        )
        for who, one in enumerate(first.detectors)
    )
    ways: dict[str, int] = {}
    for part in known:
        for name, count in part.ways.items():
            ways[name] = ways.get(name, 0) + count
    return Detection(
        first.rule,
        first.reject,
        first.review,
        detectors,
        "".join(weave([part.evaded for part in known])),
        "".join(weave([part.denied for part in known])),
        dict(sorted(ways.items())),
    )
