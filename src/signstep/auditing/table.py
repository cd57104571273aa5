"""A result as plain text: the sentence first, then the table, then the terms."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from signstep.auditing.detection import told
from signstep.auditing.figures import Step, steps
from signstep.auditing.input_spaces import fit_of
from signstep.auditing.record import UPPER_BOUND, AttackResult, Record
from signstep.auditing.sections import Section
from signstep.certify.methods import LETTERS, TITLES
from signstep.engine.statistics import quantile
from signstep.plain import one_line


def table(result: Record) -> str:
    """The result for a terminal or a log, at most 100 columns."""
    lines = [sentence(result), ""]
    lines += [f"model   {result.model}", f"data    {result.data}"]
    lines += [f"threat  {result.terms['threat']}{_scales(result)}"]
    named = "levels" if is_objective(result) else "labels"
    lines += behind(result)
    lines += [f"goal    {result.terms['goal']}; {named}: {result.terms['labels']}; loss: {result.terms['loss']}", ""]
    low, high = result.interval(result.clean_right)
    word = clean_word(result).lower()
    lines += [
        f"{word} {_percent(result.clean_accuracy)}  ({result.clean_right} of {result.examples}; "
        f"95 % interval {_percent(low)} to {_percent(high)})",
        "",
    ]
    if result.ladder:
        lines += [f"ladder {result.ladder}: each rung attacks what the ones before have left standing", ""]
        lines += _ladder(result)
    else:
        lines += _grid(_header(result), [_row(result, entry) for entry in result.attacks] + [_worst(result)])
    lines += ["", *_wrap(text)] if (text := bounded(result)) else []
    lines += _queries(result)
    if result.curve:
        falls = "fall" if result.terms["goal"] == "untargeted" else "turn into the target"
        who = "examples" if is_objective(result) else "right answers"
        lines += ["", f"FGSM at other sizes, all from one gradient (share of {who} that {falls}):"]
        lines += _grid(
            ["eps", *(f"{point.eps:.4g}" for point in result.curve)],
            [["share", *(_percent(_share(point.fooled, result.clean_right), 1) for point in result.curve)]],
        )
        lines += [_smallest(result)]
    lines += [line for entry in result.attacks for line in _wrap(_nearest(entry))]
    lines += [line for entry in result.attacks for line in _wrap(_transfers(entry))]
    watched = told(result.detection, result.per_example.clean, result.per_example.verdicts, str(result.terms["eps"]))
    for section in (*watched, *result.sections):
        lines += ["", f"{section.title}:", *(line for text in section.text for line in _wrap(text))]
        lines += _section_rows(section)
    lines += ["", *_wrap(_checked(result)), *_wrap(UPPER_BOUND), *_wrap(claim(result))]
    for note in result.notes:
        lines += _wrap(f"Note: {note}.")
    if "requests" in result.terms:
        lines += _wrap(f"Sent to the endpoint: {requests_said(result.terms['requests'])}.")
    seconds = f"{result.seconds:.1f} s" if result.seconds < 120 else f"{result.seconds / 60:.1f} min"
    lines += [
        f"seed {result.terms['seed']}, {result.terms['device']}, {seconds}, signstep {result.versions['signstep']}"
    ]
    return "\n".join(map(one_line, lines))


def sentence(result: Record) -> str:
    """What was found, in one plain sentence."""
    if result.examples == 0:
        return "No example was seen: nothing can be said."
    start = "PARTIAL (interrupted): " if result.partial else ""
    size = (
        f"At eps = {result.terms['eps']} ({result.terms['norm']})" if result.terms["eps"] else "Within the threat model"
    )
    if result.terms["goal"] != "untargeted":
        best = max((entry.reached or 0 for entry in result.attacks), default=0)
        able = result.examples - max((entry.already or 0 for entry in result.attacks), default=0)
        reached = f"{best} of {able} examples that were not there before"
        return f"{start}{size} the strongest attack tried reaches its target on {reached}."
    if is_objective(result):
        tail = f"; {result.undetermined} are undetermined" if result.undetermined else ""
        return (
            f"{start}{size} an attacker brings {result.fooled} of {result.clean_right} examples to failure that had "
            f"not failed untouched{tail}."
        )
    if result.clean_right == 0:
        return f"{start}The model answers none of {result.examples} examples rightly: there is nothing to attack."
    tail = f"; {result.undetermined} are undetermined" if result.undetermined else ""
    return f"{start}{size} an attacker changes {result.fooled} of {result.clean_right} correct answers{tail}."


def bounded(result: Record) -> str:
    """Both ends of robust accuracy and what each is due to; "" where no bounds were taken."""
    if not result.bracket:
        return ""
    letters = result.per_example.bounds
    counts = [(letters.count(letter), TITLES[name]) for name, letter in LETTERS.items()]
    by = ", ".join(f"{count} by {title}" for count, title in counts if count)
    text = f"{result.bracket[:1].upper()}{result.bracket[1:]}. Proved: {by or 'none'}."
    if not result.contradictions:
        return text
    return (
        f"{text} CONTRADICTION: {len(result.contradictions)} of the proved examples are fooled by a point that the "
        f"model itself was asked about (the first is example {result.contradictions[0]}): one of the two is wrong."
    )


def behind(result: Record) -> list[str]:
    """The line on transformations that stood in front of the model, and whether the attacker knew of them."""
    stated = result.terms.get("defences")
    if not isinstance(stated, dict) or not isinstance(stated.get("chain"), list):
        return []
    knew = (
        "attacks knew of it" if stated.get("path") == "aware" else "ATTACKS DID NOT KNOW OF IT: who does may find more"
    )
    return [f"behind  {' then '.join(one_line(str(part)) for part in stated['chain'])}; {knew}"]


def is_objective(result: Record) -> bool:
    """Whether examples have no right answer, but a value that must stay below its level."""
    return str(result.terms.get("task", "")).startswith("objective")


def clean_word(result: Record) -> str:
    """What the share of examples that are right untouched is called."""
    if is_objective(result):
        return "Not failed untouched"
    return "Agreement with its own labels" if result.terms.get("labels") == "predicted" else "Clean accuracy"


def _checked(result: Record) -> str:
    bad = sum(entry.unverified for entry in result.attacks)
    if bad:
        return f"{bad} returned points failed verification; they were not counted."
    return (
        "Every returned point was scored by the model itself and checked in float64 against the threat model "
        f"(tolerance {result.terms['tolerance']:.2g})."
    )


def claim(result: Record) -> str:
    """The attacks that ran, and what their failure would not mean."""
    names = ", ".join(entry.name for entry in result.tried) or "none"
    if (comparable := complete_ladder(result)) is not None:
        return (
            f"The ladder {result.ladder} ran to its end: {comparable}. It is still an upper bound: no attack proves "
            "robustness."
        )
    if not any(iterated(entry) for entry in result.tried):
        return (
            f"Attacks tried: {names}. No attack of more than a single step was run, and FGSM alone never proves "
            "robustness: this is no claim of robustness."
        )
    if result.ladder in _COMPARABLE:
        return (
            f"Rungs climbed: {names}. Under these terms, or as far as it came, the figure of {result.ladder} has no "
            "published counterpart: this is no claim of robustness."
        )
    what = f"Rungs climbed: {names}" if result.ladder else f"Attacks tried: {names}"
    return f"{what}. None of them is of AutoAttack strength: this is no claim of robustness."


def iterated(entry: AttackResult) -> bool:
    """Whether it takes more than one step, along gradients or by many queries."""
    return entry.steps > 1 or asks(entry)


def asks(entry: AttackResult) -> bool:
    """Whether it only asks the model: for scores, or for labels."""
    return entry.needs in ("scores", "labels")


def complete_ladder(result: Record) -> str | None:
    """What the figure of a ladder may be set beside; None if it was none of those, or did not run to its end."""
    done = not result.partial and result.terms.get("shard") is None
    done = done and not result.set_aside and fit_of(result) is None
    return _COMPARABLE.get(result.ladder) if done and all(result.terms.get(k) in v for k, v in _TERMS.items()) else None


# What published AutoAttack figures are of: one label of several, true ones, a white box without randomness.
_TERMS: dict[str, tuple[object, ...]] = {
    "task": ("multiclass",),
    "goal": ("untargeted",),
    "labels": ("given",),
    "gradients_from": ("the model",),
    "norm": ("linf", "l2"),
    "random_model": (False,),
}

_AUTOATTACK = "AutoAttack (Croce & Hein 2020, arXiv:2003.01690)"
_COMPARABLE = {
    "autoattack@1": f"the composition and order of {_AUTOATTACK}, so its figure can be set beside published ones",
    "standard@1": (
        f"on two reference models it found at least what {_AUTOATTACK} finds, so its figure can be set beside "
        "published ones"
    ),
    "standard@2": (
        f"on two reference models it found at least what {_AUTOATTACK} finds, so its figure can be set beside "
        "published ones"
    ),
    "thorough@1": f"it ends with all attacks of {_AUTOATTACK}, so its figure can be set beside published ones",
    "thorough@2": f"it ends with all attacks of {_AUTOATTACK}, so its figure can be set beside published ones",
}


def _header(result: Record) -> list[str]:
    success = "fooled" if result.terms["goal"] == "untargeted" else "reached"
    return [
        "attack",
        success,
        "held" if is_objective(result) else "robust acc." if result.terms["goal"] == "untargeted" else "kept off",
        "95 % interval",
        "held there" if is_objective(result) else "acc. there",
        "undeterm.",
        "median size",
        "fwd+bwd",
        "seconds",
    ]


def _row(result: Record, entry: AttackResult) -> list[str]:
    if result.terms["goal"] == "untargeted":
        success = _percent(_share(entry.fooled, result.clean_right))
    else:
        success = _percent(_share(entry.reached or 0, result.examples - (entry.already or 0)))
    left = result.left_by(entry)
    low, high = result.interval(left)
    return [
        entry.name,
        success,
        _percent(_share(left, result.examples)),
        f"{_percent(low, 1)}..{_percent(high, 1)}",
        "-" if entry.right_after is None else _percent(_share(entry.right_after, result.examples)),
        str(entry.undetermined),
        "-" if entry.distance is None else f"{entry.distance:.4g}",
        f"{entry.forwards:.1f}+{entry.backwards:.1f}",
        f"{entry.seconds:.1f}",
    ]


_WIDTH = 100
_NAME = 25  # letters of a name that leave the table within its width
_RUNG = ["rung", "entered", "fallen", "robust acc.", "95 % interval", "fwd+bwd each", "seconds", "so far"]


def _ladder(result: Record) -> list[str]:
    """One row for each rung; long names stand above, under their numbers."""
    climbed, legend = steps(result), []
    names = [step.name for step in climbed]
    if max(map(len, names)) > _NAME:
        legend = [f"{number:>2}  {name}" for number, name in enumerate(names, start=1)] + [""]
        climbed = tuple(replace(step, name=f"{number:>2}") for number, step in enumerate(climbed, start=1))
    tried = {entry.name for entry in result.tried}
    rows = [_rung(result, step, ran=name in tried) for step, name in zip(climbed, names, strict=True)]
    return [*legend, *_grid(_RUNG, rows)]


def _rung(result: Record, step: Step, *, ran: bool) -> list[str]:
    """A rung; passes are for each example that entered it."""
    low, high = result.interval(step.held)
    return [
        step.name,
        str(step.entered) if ran else "not run",
        str(step.fallen) if ran else "-",
        _percent(_share(step.held, result.examples)),
        f"{_percent(low, 1)}..{_percent(high, 1)}",
        f"{step.forwards:.1f}+{step.backwards:.1f}",
        f"{step.seconds:.1f}",
        f"{step.elapsed:.1f}",
    ]


def _queries(result: Record) -> list[str]:
    """What attacks that only ask cost an attacker."""
    rows = [
        [entry.name, str(entry.entered), *(f"{count:.0f}" for count in entry.queries)]
        for entry in result.attacks
        if asks(entry) and entry.queries is not None
    ]
    if not rows:
        return []
    header = ["attack", "examples", "25 %", "50 %", "75 %"]
    return ["", "Queries for each example, until it fell or the attack gave up (quartiles):", *_grid(header, rows)]


def _nearest(entry: AttackResult) -> str:
    if entry.nearest is None:
        return ""
    first, middle, third = ("nowhere" if length is None else f"{length:.4g}" for length in entry.nearest)
    return f"Nearest point that fools, by {entry.name}: median {middle}, quartiles {first} and {third}."


def requests_said(requests: Mapping[str, Any]) -> str:
    """What an endpoint was asked, as records have it, in words.

    >>> requests_said({"sent": 1200, "retries": 3, "waited": 2.5, "most": 2000, "cost": 2.4, "currency": "EUR"})
    '1200 requests (3 of them repeated, of 2000 at most), 2.5 s of waiting, 2.4 EUR'
    """
    inside = [f"{requests['retries']} of them repeated"] if requests.get("retries") else []
    inside += [] if requests.get("most") is None else [f"of {requests['most']} at most"]
    more = f" ({', '.join(inside)})" if inside else ""
    parts = [f"{requests.get('sent')} requests{more}"]
    parts += [f"{requests['waited']:.1f} s of waiting"] if requests.get("waited") else []
    if requests.get("cost") is not None:
        parts.append(f"{requests['cost']:g} {requests.get('currency', '')}".strip())
    return ", ".join(parts)


def _transfers(entry: AttackResult) -> str:
    if not entry.transfers:
        return ""
    said = (f"{fooled} of {able} right on {other}" for other, (fooled, able) in entry.transfers.items())
    return f"Points of {entry.name} also fool {', '.join(said)}."


def _worst(result: Record) -> list[str]:
    low, high = result.interval(result.held)
    return [
        "worst case",
        _percent(result.success_rate) if result.terms["goal"] == "untargeted" else "",
        _percent(result.robust_accuracy),
        f"{_percent(low, 1)}..{_percent(high, 1)}",
        "",
        str(result.undetermined),
        "",
        "",
        "",
    ]


def _smallest(result: Record) -> str:
    right = [
        math.inf if eps is None else eps
        for eps, clean in zip(result.per_example.smallest_eps, result.per_example.clean, strict=True)
        if clean == "r"
    ]
    middle, who = quantile(right, 0.5), "examples" if is_objective(result) else "right answers"
    if middle is None:
        return ""
    if math.isinf(middle):
        return f"Half of the {who} survive FGSM at every size up to {result.curve[-1].eps:.4g}."
    return f"Half of the {who} fall to FGSM at eps {middle:.4g} or below."


def _scales(result: Record) -> str:
    eps, span = result.terms["eps_value"], result.terms["box_span"]
    if eps is None or span != 1.0 or result.terms["norm"] != "linf":
        return ""
    return f"  (eps = {eps:.4g} in input units = {eps * 255:.4g}/255)"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    header, rows = [*map(one_line, header)], [[*map(one_line, row)] for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        return "  ".join(
            [first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return [line(header), rule, *(line(row) for row in rows)]


def _section_rows(section: Section) -> list[str]:
    """The table of a section; one that is too wide has a paragraph for each row."""
    if not section.rows:
        return []
    grid = _grid(section.header, section.rows)
    if max(map(len, grid)) <= _WIDTH:
        return grid
    return [
        line
        for first, *rest in section.rows
        for line in textwrap.wrap(
            f"{first}: " + "; ".join(_said(name, cell) for name, cell in zip(section.header[1:], rest, strict=True)),
            _WIDTH,
            subsequent_indent="    ",
            break_long_words=False,
        )
    ]


def _said(name: str, cell: str) -> str:
    """A cell out of its table: text speaks for itself, a number needs its name."""
    return f"{name} {cell}" if cell[:1] in "+-−0123456789" or cell in ("none", "") else cell


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(one_line(text), _WIDTH, break_long_words=False)


def _share(count: int, whole: int) -> float:
    return count / whole if whole else math.nan


def _percent(share: float, digits: int = 2) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.{digits}f} %"
