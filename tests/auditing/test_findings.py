"""Every finding can be provoked, and stays silent on a result that gives no reason."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from signstep.auditing.findings import CATALOGUE, examine
from signstep.auditing.result import AttackResult, CurvePoint, Examples, Result
from signstep.errors import InputError


def entry(name: str, verdicts: str, clean: str, **changes: object) -> AttackResult:
    counts = {letter: sum(c == "r" and v == letter for c, v in zip(clean, verdicts, strict=True)) for letter in "fhu"}
    gradient = not name.startswith(("random-sign", "square"))
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
        backwards=float(gradient) if name == "fgsm" else (100.0 if "=100" in name else 20.0) * gradient,
        seconds=0.1,
        steps=0
        if name.startswith(("random-sign", "square"))
        else 1
        if name == "fgsm"
        else 100
        if "=100" in name
        else 20,
        gradients=len(clean) if gradient else 0,
        dead_gradients=0,
        zero=0.0,
        nonfinite=0.0,
        underflow=0.0,
        unverified=0,
        source="",
        entered=len(verdicts) - verdicts.count("-"),
        needs="nothing" if name == "random-sign" else "scores" if name.startswith("square") else "gradients",
        queries=None,
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


def ladder(columns: dict[str, str], **changes: object) -> Result:
    return replace(result(CLEAN, columns), ladder="custom", **changes)  # type: ignore[arg-type]


def codes(found: Result) -> list[str]:
    return [finding.code for finding in examine(found)]


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
    "SS110": lambda: changed("square", "h" * 380 + "f" * 60 + "h" * 560),
    "SS111": lambda: changed("smooth-pgd", "f" * 440 + "h" * 560),
    "SS112": lambda: ladder(
        {"pgd": "f" * 400 + "h" * 500 + "-" * 100, "apgd": "-" * 400 + "f" * 3 + "h" * 497 + "-" * 100}
    ),
    "SS113": lambda: changed("pgd:steps=100", "h" * 100 + "f" * 300 + "h" * 600),
    "SS114": lambda: ladder(
        {"pgd": "-" * 1000, "square": "f" * 400 + "h" * 500 + "-" * 100}, notes=("rung pgd was not run: no way back",)
    ),
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


def rungs(*fallen: int, names: tuple[str, ...]) -> Result:
    """A ladder on which each rung fells so many of those still standing."""
    columns, gone = {}, 0
    for name, count in zip(names, fallen, strict=True):
        columns[name] = "-" * gone + "f" * count + "h" * (900 - gone - count) + "-" * 100
        gone += count
    return ladder(columns)


def test_a_declared_transform_does_not_make_the_model_random() -> None:
    """Answers differ since the inputs do."""
    told = examine(healthy(random_model=True, transform="Noise(std=0.1)"))
    assert "SS202" not in [finding.code for finding in told]


def test_rungs_that_met_survivors_are_not_held_against_each_other() -> None:
    """FGSM first, then PGD on what is left: PGD fools fewer, which says nothing."""
    found = rungs(300, 60, 0, names=("fgsm", "pgd", "apgd"))
    assert found.attack("pgd").fooled < found.attack("fgsm").fooled
    assert codes(found) == []
    # The same columns without a ladder would be a broken PGD.
    assert "SS101" in codes(replace(found, ladder=""))


def test_noise_as_a_first_rung_is_not_held_against_the_gradients_after_it() -> None:
    found = rungs(100, 60, 0, names=("random-sign", "pgd", "apgd"))
    assert "SS106" not in codes(found)
    assert "SS106" in codes(replace(found, ladder=""))


def test_fgsm_on_a_ladder_is_held_against_everything_that_fell_after_it() -> None:
    assert "SS102" in codes(rungs(20, 300, 0, names=("fgsm", "pgd", "apgd")))
    assert "SS102" not in codes(rungs(200, 100, 0, names=("fgsm", "pgd", "apgd")))
    # As a later rung it met survivors only.
    assert "SS102" not in codes(rungs(300, 1, 0, names=("pgd", "fgsm", "apgd")))


@pytest.mark.parametrize(
    ("fallen", "names", "fires"),
    [
        ((400, 30, 0), ("pgd:steps=100", "square:queries=500", "apgd"), True),
        ((400, 30, 0), ("pgd", "square:queries=500", "apgd"), False),  # 20 steps say little about gradients
        (
            (400, 5, 0),
            ("pgd:steps=100", "square:queries=500", "apgd"),
            False,
        ),  # half a point: no more than noise of 1 %
        ((0, 400, 0), ("square:queries=500", "pgd", "apgd"), False),  # nothing before it had gradients
        ((400, 10, 10), ("pgd:steps=100", "square:queries=500", "square:queries=900"), True),  # together
        ((30, 400, 0), ("fgsm", "square:queries=500", "apgd"), False),  # one step is no rival
    ],
)
def test_queries_after_gradients(fallen: tuple[int, ...], names: tuple[str, ...], fires: bool) -> None:
    assert ("SS110" in codes(rungs(*fallen, names=names))) is fires


def test_queries_that_find_the_same_are_no_finding() -> None:
    assert codes(changed("square", "f" * 390 + "h" * 610)) == []
    # More in number, and yet nothing that the gradients together did not find.
    assert codes(result(CLEAN, {**HEALTHY, "apgd": "f" * 450 + "h" * 550, "square": "f" * 445 + "h" * 555})) == []


@pytest.mark.parametrize(
    ("fallen", "names", "fires"),
    [
        ((300, 100, 0), ("pgd", "smooth-pgd:steps=10", "apgd"), True),
        ((300, 30, 0), ("pgd", "smooth-pgd:steps=10", "apgd"), False),  # 5 % of 600 is what any restart may find
        ((300, 100, 0), ("smooth-pgd", "smooth-pgd:steps=10", "apgd"), False),  # nothing plain before it
    ],
)
def test_smoothed_gradients_after_plain_ones(fallen: tuple[int, ...], names: tuple[str, ...], fires: bool) -> None:
    assert ("SS111" in codes(rungs(*fallen, names=names))) is fires


def test_smoothed_gradients_that_find_a_little_more_are_no_finding() -> None:
    assert codes(changed("smooth-pgd", "f" * 405 + "h" * 595)) == []


@pytest.mark.parametrize(("last", "fires"), [(0, False), (1, True), (20, True)])
def test_the_last_rung_says_whether_a_ladder_had_settled(last: int, fires: bool) -> None:
    found = rungs(300, 60, last, names=("pgd", "apgd", "mt-pgd"))
    assert ("SS112" in codes(found)) is fires
    if fires:
        evidence = next(finding.evidence for finding in examine(found) if finding.code == "SS112")
        assert f"mt-pgd felled {last} of 540" in evidence
        assert "SS112" not in codes(replace(found, ladder=""))
        assert "SS112" not in codes(replace(found, partial=True))


def test_a_ladder_that_left_nothing_has_settled() -> None:
    assert "SS112" not in codes(rungs(800, 100, names=("pgd", "apgd")))


@pytest.mark.parametrize(
    ("weak", "strong", "fires"),
    [
        ("pgd", "pgd:steps=100", True),
        ("pgd:restarts=2", "pgd:restarts=10", True),
        ("pgd", "pgd:restarts=10", True),
        ("square:queries=100", "square:queries=5000", True),
        ("apgd:targets=3", "apgd:targets=9", True),
        ("pgd:step=0.1", "pgd:steps=100", False),  # another step is another attack
        ("pgd:restarts=10", "pgd:steps=100", False),  # more of one, less of the other
        ("square", "square:queries=100", False),  # which of them has more is not known here
        ("mi-fgsm", "apgd:steps=100", False),
    ],
)
def test_more_of_the_same_attack_should_find_no_less(weak: str, strong: str, fires: bool) -> None:
    columns = {"fgsm": HEALTHY["fgsm"], weak: "f" * 400 + "h" * 600, strong: "h" * 90 + "f" * 300 + "h" * 610}
    found = result(CLEAN, columns)
    assert ("SS113" in codes(found)) is fires
    assert "SS113" not in codes(replace(found, ladder="custom"))
    # A few examples more or less are chance.
    close = result(CLEAN, {**columns, strong: "h" * 3 + "f" * 399 + "h" * 598})
    assert "SS113" not in codes(close)


def test_rungs_that_nobody_was_left_for_are_not_set_aside() -> None:
    """An empty rung says nothing by itself, and one that was set aside for its norm leaves the others."""
    empty = {"square": "f" * 900 + "-" * 100, "pgd": "-" * 1000}
    assert "SS114" not in codes(ladder(empty))
    some = {"pgd": "f" * 400 + "h" * 500 + "-" * 100, "fab": "-" * 1000}
    found = ladder(some, notes=("rung fab was not run: it is not defined for this threat",))
    assert "SS114" not in codes(found)
    assert [entry.name for entry in found.tried] == ["pgd"]
    # Only rungs of the record are read from its notes.
    assert ladder(some, notes=("rung another was not run: why",)).set_aside == {}


def test_attacks_on_different_inputs_are_not_held_against_each_other() -> None:
    """FGSM on the image fools more than PGD on the words, which says nothing; on the same input it would."""
    clean = "r" * 1000
    many, few = "f" * 400 + "h" * 600, "h" * 900 + "f" * 100
    apart = {"fgsm on image": many, "pgd on image": many, "fgsm on text": few, "pgd on text": few}
    assert "SS101" not in codes(result(clean, apart))
    assert "SS101" in codes(result(clean, {**apart, "fgsm on text": many}))
    assert "SS102" not in codes(result(clean, {"fgsm on image": few, "pgd on text": "f" * 800 + "h" * 200}))
    more = {"pgd:restarts=3 on text": few, "pgd:restarts=2 on image": many, "pgd:restarts=1 on text": "h" * 1000}
    assert "SS113" not in codes(result(clean, more))
    assert "SS113" in codes(result(clean, {**more, "pgd:restarts=1 on text": many}))
    assert "SS102" in codes(result(clean, {"fgsm on text": few, "pgd on text": "f" * 800 + "h" * 200}))
