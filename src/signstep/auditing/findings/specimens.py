"""Small results made by hand, which provoke a finding or just do not.

All are of 1,000 examples or so, 900 of them right untouched, and healthy but for what is said.
"""

import re
from dataclasses import replace
from typing import Any

from signstep.auditing.detection import Detection, Judge
from signstep.auditing.record import AttackResult, CurvePoint, Examples, Record

CLEAN = "r" * 900 + "w" * 100
HEALTHY = {"random-sign": "h" * 1000, "fgsm": "f" * 300 + "h" * 700, "pgd": "f" * 400 + "h" * 600}

# What a recipe asks for, and its steps where the name says nothing; all others follow gradients for 20 steps.
_KINDS: dict[str, tuple[str, int]] = {
    "random-sign": ("nothing", 0),
    "square": ("scores", 0),
    "fgsm": ("gradients", 1),
}


def entry(name: str, verdicts: str, clean: str) -> AttackResult:
    """What an attack of this name did, from one letter for each example.

    Args:
        name: with options; ``steps`` among them is read.
        verdicts: f fooled, h held, u undetermined, - not run.
        clean: r right untouched, w wrong.
    """
    counts = {letter: sum(c == "r" and v == letter for c, v in zip(clean, verdicts, strict=True)) for letter in "fhu"}
    needs, steps = _KINDS.get(re.split("[: ]", name, maxsplit=1)[0], ("gradients", 20))
    if said := re.search(r"[:,]steps=(\d+)", name):
        steps = int(said[1])
    led = needs == "gradients"
    return AttackResult(
        name=name,
        fooled=counts["f"],
        held=counts["h"],
        undetermined=counts["u"],
        reached=None,
        already=None,
        right_after=counts["h"],
        distance=0.1,
        forwards=2.0,
        backwards=float(steps),
        seconds=0.1,
        steps=steps,
        gradients=len(clean) if led else 0,
        dead_gradients=0,
        zero=0.0,
        nonfinite=0.0,
        underflow=0.0,
        unverified=0,
        source="",
        entered=len(verdicts) - verdicts.count("-"),
        needs=needs,
        queries=None,
    )


def result(clean: str, columns: dict[str, str], **terms: object) -> Record:
    """A result from what each attack did to each example; ``terms`` replace those of a healthy one."""
    attacks = tuple(entry(name, column, clean) for name, column in columns.items())
    made = Record(
        model="m",
        data="d",
        examples=len(clean),
        clean_right=clean.count("r"),
        held=0,
        undetermined=0,
        attacks=attacks,
        curves={"fgsm": (CurvePoint(0.1, 10), CurvePoint(0.2, 20))},
        terms={
            "norm": "linf",
            "eps_value": 8 / 255,
            "box_span": 1.0,
            "goal": "untargeted",
            "labels": "given",
            "classes": 10,
            "input_space": {"budget": "raw"},
            "outputs_form": "logits",
            "random_model": False,
            **terms,
        },
        notes=(),
        versions={},
        seconds=1.0,
        partial=False,
        per_example=Examples(tuple(map(str, range(len(clean)))), clean, columns, (None,) * len(clean)),
    )
    return replace(made, held=made.worst_case.count("h"), undetermined=made.worst_case.count("u"))


def healthy(**terms: object) -> Record:
    """Noise fools nothing, FGSM 300 of 900 and PGD 400; no finding, but for what ``terms`` say."""
    return result(CLEAN, dict(HEALTHY), **terms)


def changed(name: str, column: str) -> Record:
    """The healthy one, with this column for one attack, which may be a further one."""
    return result(CLEAN, {**HEALTHY, name: column})


def with_attack(name: str, **changes: Any) -> Record:
    """The healthy one, with other figures of one of its attacks."""
    made = healthy()
    attacks = tuple(replace(attack, **changes) if attack.name == name else attack for attack in made.attacks)
    return replace(made, attacks=attacks)


def ladder(columns: dict[str, str], *, notes: tuple[str, ...] = ()) -> Record:
    """The attacks as rungs of a ladder; the columns say whom each met."""
    return replace(result(CLEAN, columns), ladder="custom", notes=notes)


def rungs(*fallen: int, names: tuple[str, ...]) -> Record:
    """A ladder on which each rung fells so many of the right examples still standing."""
    columns, gone = {}, 0
    for name, count in zip(names, fallen, strict=True):
        columns[name] = "-" * gone + "f" * count + "h" * (900 - gone - count) + "-" * 100
        gone += count
    return ladder(columns)


def watched(evaded: int) -> Record:
    """A detector that flags nothing untouched, and lets so many of 900 examples be evaded; 300 fall at half of eps."""
    plain = result(CLEAN, HEALTHY)
    calm = (1.0,) * 1000
    none: dict[str, tuple[float | None, ...]] = dict.fromkeys(HEALTHY, (None,) * 1000)
    judge = Judge("d", 99, 0, by_class=False, recipes=(), digests={}, clean=calm, attacked=none)
    letters = "h" * (900 - evaded) + "f" * evaded + "-" * 100
    found = Detection("bonferroni", 0.01, 0.0, (judge,), letters, letters.replace("f", "h"), {"sum": evaded})
    small = (0.25 * 8 / 255,) * 300 + (None,) * 700
    return replace(plain, detection=found, per_example=replace(plain.per_example, smallest_eps=small))
