"""The page: everything that is shown, put in order and given to the template."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from signstep.auditing.detection import told
from signstep.auditing.findings import Finding
from signstep.auditing.knob import unfit
from signstep.auditing.record import UPPER_BOUND
from signstep.auditing.result import Result
from signstep.auditing.table import behind, bounded, claim, clean_word, is_objective, sentence
from signstep.plain import one_line, plain
from signstep.report.attacks import comparison, cost, health, overview, strongest, success, targeted
from signstep.report.charts import bar_chart, line_chart, sample
from signstep.report.checklist import checklist
from signstep.report.classes import by_class, confusion
from signstep.report.curve import (
    Histogram,
    Series,
    curve_table,
    histogram,
    histogram_table,
    measure,
    series,
)
from signstep.report.numerals import NONE, fraction, interval, percent, share, size, unit
from signstep.report.pictures import Gallery
from signstep.report.rungs import ladder_table, nearest_table, queries_table, settled, time_chart, time_table
from signstep.report.section import parts
from signstep.report.triple import Triple, knob_choice, knob_cost, knob_table


@dataclass(frozen=True)
class Figure:
    """One of the headline figures."""

    name: str
    share: str
    count: str
    interval: str


def page(result: Result, findings: tuple[Finding, ...], shown: Gallery, example: Triple | None = None) -> str:
    """The whole page as HTML; ``example`` is the one at its head."""
    lines, bins, classes = series(result), histogram(result), by_class(result)
    examples = result.per_example
    watched = told(result.detection, examples.clean, examples.verdicts, str(result.terms["eps"]))
    own = parts((*watched, *result.sections))
    absent = _absent(result, shown, example)
    present = {
        **{part.ident: part.title for part in own},
        "findings": "Findings",
        "attacks": "Attacks",
        **({"time": "Time"} if result.ladder and result.examples else {}),
        **({"queries": "Queries"} if queries_table(result) else {}),
        **({"curve": "Security curve"} if lines or knob_table(result) else {}),
        **({"pictures": "Pictures"} if shown.pictures else {}),
        **({"answers": "Answers"} if confusion(result) else {}),
        **({"classes": "Classes"} if classes else {}),
        "health": "Gradient health",
        **({"smallest": "Smallest change"} if bins or nearest_table(result) else {}),
        "cost": "Cost",
        "comparison": "Comparison",
        "checklist": "Checklist",
        "terms": "Terms and notes",
    }
    return rendered(
        "page.html.j2",
        result=result,
        sentence=sentence(result),
        behind=[line.removeprefix("behind").strip() for line in behind(result)],
        example=example,
        gates=gate_words(result),
        present=present,
        absent=absent,
        figures=figures(result),
        upper_bound=UPPER_BOUND,
        targeted=targeted(result),
        claim=" ".join(filter(None, (bounded(result), claim(result)))),
        findings=[finding for finding in findings if finding.ignored is None],
        ignored=[finding for finding in findings if finding.ignored is not None],
        overview=ladder_table(result) if result.ladder else overview(result),
        time=time_chart(result) if result.ladder and result.examples else None,
        time_table=time_table(result) if result.ladder else None,
        settled=settled(result) if result.ladder else "",
        queries=queries_table(result),
        nearest=nearest_table(result),
        sources=_sources(result),
        curve=_curve_chart(result, lines) if lines else None,
        curve_table=curve_table(result, lines) if lines else None,
        legend=[(sample(line.role), line.name) for line in lines],
        measure=measure(result),
        unclear=max((entry.undetermined for entry in result.attacks), default=0),
        knob_table=knob_table(result),
        knob_choice=knob_choice(result),
        knob_cost=knob_cost(result),
        gallery=shown,
        confusion=confusion(result),
        by_class=classes,
        health=health(result),
        histogram=_histogram_chart(result, bins) if bins else None,
        histogram_table=histogram_table(result, bins) if bins else None,
        cost=cost(result),
        comparison=comparison(result),
        parts=own,
        checklist=checklist(result),
        terms=[(name.replace("_", " "), written(value)) for name, value in result.terms.items()],
    )


def gate_words(result: Result) -> tuple[tuple[bool, str], ...]:
    """Of each gate whether the result passed it, and a sentence."""
    found = []
    for gate in result.gates:
        word = "Gate passed" if gate.passed else "Gate failed"
        if result.partial:
            why = "a partial result passes none"
        elif gate.limit is not None:
            side = "reaches" if gate.passed else "is under"
            why = f"robust accuracy, {percent(result.robust_accuracy)}, {side} the {percent(gate.limit)} asked for"
        elif gate.kind in ("inflated", "undetermined"):
            said = result.diagnosis.verdict.text if result.diagnosis else "there is no diagnosis"
            why = f"asked not to be {gate.kind}; {one_line(said)}"
        else:
            worse = "no worse" if gate.passed else "worse"
            why = f"{worse} than the baseline by more than chance"
        found.append((gate.passed, f"{word}: {why}."))
    return tuple(found)


def _absent(result: Result, shown: Gallery, example: Triple | None) -> list[tuple[str, str]]:
    """What this page could have and has not, each with the reason."""
    found = []
    if not shown.pictures and not result.sections:
        found.append(("Pictures", shown.sentence))
    if example is not None and not example.turns:
        why = "the audit was interrupted" if result.partial else "it was not asked, see the notes"
        found.append(("One example at several sizes", f"{unfit(result.terms, result.per_example.answers) or why}."))
    if not series(result):
        found.append(("Security curve", f"No curve was traced: {result.no_curve or 'the audit ran at one size'}."))
    if confusion(result) is None:
        found.append(("Answers before and after", "The model's answers are no classes, or were not recorded."))
    if by_class(result) is None:
        found.append(("Robust accuracy of each class", "The labels are no classes, or were not recorded."))
    if histogram(result) is None:
        found.append(("Smallest change that fools", "The FGSM direction was not searched for smallest sizes."))
    return found


def figures(result: Result) -> tuple[Figure, ...]:
    """Headline figures with denominators and intervals."""
    rows = [(clean_word(result), result.clean_right, result.examples)]
    best = strongest(result)
    if targeted(result):
        rows.append(("Right and kept off the target", result.held, result.examples))
        if best is not None:
            rows.append((f"Targeted success, {best.name}", *success(result, best)))
    else:
        name = "Held, upper bound" if is_objective(result) else "Robust accuracy, upper bound"
        rows.append((name, result.held, result.examples))
        rows.append(("Attack success", result.fooled, result.clean_right))
    if result.certified is not None:
        rows.append(("Proved robust, lower bound", result.certified, result.examples))
    rows.append(("Undetermined", result.undetermined, result.examples))
    return tuple(
        Figure(name, percent(share(count, whole)), fraction(count, whole), interval(count, whole))
        for name, count, whole in rows
    )


def _sources(result: Result) -> list[tuple[str, str]]:
    """The paper of each attack, once for those that share it."""
    names: dict[str, list[str]] = {}
    for entry in result.attacks:
        if entry.source:
            names.setdefault(entry.source, []).append(entry.name)
    return [(", ".join(shared), source) for source, shared in names.items()]


def written(value: Any) -> str:
    """A term of the record in words."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {written(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(written, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value) or NONE


def rendered(template: str, **parts: Any) -> str:
    """A template of this package with its parts filled in: text of others is escaped, and all of the page is plain."""
    return plain(environment().get_template(template).render(**parts))


@cache
def environment() -> Environment:
    """Templates of this package, compiled once a process: text is escaped, and what is missing is an error."""
    made = Environment(
        loader=PackageLoader("signstep.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else one_line(str(value)),
    )
    made.filters["breaks"] = _breaks
    return made


def _breaks(cell: str | Markup) -> Markup:
    """The name of a row, which may be broken where options begin; no escaped character has a comma or a colon."""
    text = cell if isinstance(cell, Markup) else escape(one_line(cell))
    return text if "<" in text else Markup(re.sub(r"(?<=[,:])(?=\w)", "<wbr>", text))


def _axis(name: str, result: Result) -> str:
    counted = "" if unit(result.terms.get("eps", "")) == 1 else ", in 1/255"
    return f"{name} ({result.terms.get('norm', '')}{counted})"


def _curve_chart(result: Result, lines: tuple[Series, ...]) -> Markup:
    label, eps = result.terms.get("eps", ""), result.terms.get("eps_value")
    said = [
        f"{line.name}: {percent(line.points[0][1])} at {size(line.points[0][0], label)}"
        + (f" to {percent(line.points[-1][1])} at {size(line.points[-1][0], label)}" if len(line.points) > 1 else "")
        for line in lines
        if line.points
    ]
    return line_chart(
        "curve",
        f"{measure(result).capitalize()}, by size of the change",
        "; ".join(said) + ". The table beside it has all numbers.",
        [(line.role, line.points) for line in lines],
        mark=eps,
        x_label=_axis("eps", result),
        y_label=measure(result),
        unit=unit(label),
    )


def _histogram_chart(result: Result, bins: Histogram) -> Markup:
    label = result.terms.get("eps", "")
    return bar_chart(
        "smallest",
        "Smallest eps that fools, along the FGSM direction",
        f"{sum(bins.counts)} right answers fall at or below {size(bins.top, label)}, {bins.never} never do. The "
        "table beside it has all numbers.",
        bins.edges,
        bins.counts,
        bins.never,
        mark=result.terms.get("eps_value"),
        x_label=_axis("smallest eps", result),
        y_label="examples",
        unit=unit(label),
    )
