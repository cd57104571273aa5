"""Every finding can be provoked, and stays silent on a result that gives no reason."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from signstep.auditing.findings import CATALOGUE, examine
from signstep.auditing.result import AttackResult, CurvePoint, Examples, Result
from signstep.errors import InputError


def entry(name: str, verdicts: str, clean: str, **changes: object) -> AttackResult:
    counts = {letter: sum(c == "r" and v == letter for c, v in zip(clean, verdicts, strict=True)) for letter in "fhu"}
    gradient = name not in ("random-sign",)
    plain = AttackResult(
        name=name,
        fooled=counts["f"],
        held=counts["h"],
        undetermined=counts["u"],
        reached=None,
        already=None,
        right_after=counts["h"],
        distance=0.1,
        forwards=2.0,
        backwards=float(gradient) if name == "fgsm" else 20.0 * gradient,
        seconds=0.1,
        steps=0 if name == "random-sign" else 1 if name == "fgsm" else 20,
        gradients=len(clean) if gradient else 0,
        dead_gradients=0,
        zero=0.0,
        nonfinite=0.0,
        underflow=0.0,
        unverified=0,
        source="",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def result(clean: str, columns: dict[str, str], **terms: object) -> Result:
    """A healthy result of 1,000 examples, but for what the test changes."""
    attacks = tuple(entry(name, column, clean) for name, column in columns.items())
    plain = Result(
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
    return replace(plain, held=plain.worst_case.count("h"), undetermined=plain.worst_case.count("u"))


CLEAN = "r" * 900 + "w" * 100
HEALTHY = {"random-sign": "h" * 1000, "fgsm": "f" * 300 + "h" * 700, "pgd": "f" * 400 + "h" * 600}


def healthy(**terms: object) -> Result:
    return result(CLEAN, dict(HEALTHY), **terms)


def changed(name: str, column: str) -> Result:
    return result(CLEAN, {**HEALTHY, name: column})


def with_attack(name: str, **changes: object) -> Result:
    plain = healthy()
    attacks = tuple(
        replace(attack, **changes) if attack.name == name else attack  # type: ignore[arg-type]
        for attack in plain.attacks
    )
    return replace(plain, attacks=attacks)


PROVOKED: dict[str, Callable[[], Result]] = {
    "SS101": lambda: changed("pgd", "h" * 100 + "f" * 210 + "h" * 690),
    "SS102": lambda: changed("fgsm", "f" * 20 + "h" * 980),
    "SS103": lambda: replace(healthy(), curves={"fgsm": (CurvePoint(0.1, 500), CurvePoint(0.2, 300))}),
    "SS104": lambda: with_attack("fgsm", dead_gradients=100),
    "SS105": lambda: with_attack("fgsm", right_after=950),
    "SS106": lambda: changed("random-sign", "f" * 500 + "h" * 500),
    "SS107": lambda: healthy(eps_value=0.5),
    "SS108": lambda: with_attack("pgd", unverified=3),
    "SS109": lambda: result(CLEAN, {"random-sign": HEALTHY["random-sign"], "fgsm": HEALTHY["fgsm"]}),
    "SS201": lambda: healthy(eps_value=0.07),
    "SS202": lambda: healthy(random_model=True),
    "SS203": lambda: healthy(outputs_form="lost"),
    "SS204": lambda: healthy(labels="predicted"),
    "SS205": lambda: healthy(input_space={"budget": "normalised"}),
    "SS301": lambda: result("r" * 50, {"fgsm": "f" * 25 + "h" * 25, "pgd": "f" * 25 + "h" * 25}),
    "SS302": lambda: result("r" * 100 + "w" * 900, {"fgsm": "h" * 1000, "pgd": "h" * 1000}),
    "SS303": lambda: replace(healthy(), partial=True),
}


def test_a_healthy_result_has_no_findings() -> None:
    assert [str(finding) for finding in examine(healthy())] == []


def test_every_rule_is_provoked_here() -> None:
    assert list(PROVOKED) == list(CATALOGUE)


@pytest.mark.parametrize("code", CATALOGUE)
def test_each_finding_can_be_provoked(code: str) -> None:
    found = {finding.code: finding for finding in examine(PROVOKED[code]())}
    assert code in found
    assert any(character.isdigit() for character in found[code].evidence) or code in (
        "SS109",
        "SS202",
        "SS203",
        "SS204",
        "SS205",
    )
    assert found[code].meaning.endswith(".")
    assert found[code].remedy.endswith((".", ")."))


def test_a_finding_is_ignored_with_its_reason() -> None:
    (finding,) = examine(healthy(random_model=True), ignore={"SS202": "dropout is part of the product"})
    assert finding.ignored == "dropout is part of the product"
    assert "ignored: dropout" in str(finding)


@pytest.mark.parametrize(("ignore", "message"), [({"SS999": "x"}, "no finding"), ({"SS101": " "}, "without a reason")])
def test_ignoring_needs_a_code_and_a_reason(ignore: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        examine(healthy(), ignore=ignore)
