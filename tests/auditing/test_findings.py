"""Every finding is provoked by its own result, and silent on one that just does not have it, or gives no reason."""

from dataclasses import replace

import pytest

from signstep.auditing.findings import CATALOGUE, FINDINGS, Finding, FindingRow, Rule, examine
from signstep.auditing.findings.specimens import CLEAN, HEALTHY, changed, healthy, ladder, result, rungs
from signstep.auditing.record import Record
from signstep.errors import InputError


def codes(found: Record) -> list[str]:
    return [finding.code for finding in examine(found)]


def test_a_healthy_result_has_no_findings() -> None:
    assert [str(finding) for finding in examine(healthy())] == []


# What happened at all, and not how often.
WITHOUT_FIGURES = ("SS109", "SS202", "SS203", "SS204", "SS205")


@pytest.mark.parametrize("row", FINDINGS.values(), ids=FINDINGS)
def test_each_finding_is_provoked_and_just_not(row: FindingRow) -> None:
    evidence = str(row.look(row.provoked()))
    assert Finding(row.code, row.rule.title, evidence, row.rule.meaning, row.rule.remedy) in examine(row.provoked())
    assert any(character.isdigit() for character in evidence) is (row.code not in WITHOUT_FIGURES)
    assert row.look(row.just_not()) == ""
    assert row.code not in codes(row.just_not())


@pytest.mark.parametrize("row", FINDINGS.values(), ids=FINDINGS)
def test_just_not_is_next_to_provoked(row: FindingRow) -> None:
    """The same kind of result: what the two differ in is what the finding goes by."""
    with_it, without = row.provoked(), row.just_not()
    assert with_it != without
    assert bool(with_it.ladder) is bool(without.ladder)
    assert {entry.name for entry in with_it.attacks} <= {entry.name for entry in without.attacks}
    assert set(codes(without)) <= set(codes(with_it))


@pytest.mark.parametrize("rule", CATALOGUE.values(), ids=CATALOGUE)
def test_each_rule_is_written_in_whole_sentences(rule: Rule) -> None:
    assert rule.title
    assert rule.meaning.endswith(".")
    assert rule.remedy.endswith((".", ")."))
    assert "  " not in f"{rule.title} {rule.meaning} {rule.remedy}"


def test_the_catalogue_is_in_the_order_of_codes_whoever_adds_a_row() -> None:
    assert list(CATALOGUE) == sorted(FINDINGS)
    seldom = Rule("OUR110", "a rule of somebody else's", "It is there.", "Look.")
    looked = FindingRow(seldom, _many, healthy, lambda: result("r" * 500, {}))
    with FINDINGS.lent(looked):
        assert CATALOGUE["OUR110"] == seldom
        assert list(CATALOGUE).index("OUR110") == 0
        assert codes(healthy()) == ["OUR110"]
        assert examine(healthy(), {"OUR110": "known"})[0].ignored == "known"
    assert list(CATALOGUE) == sorted(FINDINGS)


def _many(record: Record) -> str:
    return f"{record.examples} examples" if record.examples > 500 else ""


def test_a_finding_is_ignored_with_its_reason() -> None:
    (finding,) = examine(healthy(random_model=True), ignore={"SS202": "dropout is part of the product"})
    assert finding.ignored == "dropout is part of the product"
    assert "ignored: dropout" in str(finding)


@pytest.mark.parametrize(("ignore", "message"), [({"SS999": "x"}, "no finding"), ({"SS101": " "}, "without a reason")])
def test_ignoring_needs_a_code_and_a_reason(ignore: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        examine(healthy(), ignore=ignore)


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
