"""Decisions, as tables: what is known about an input, what the operator chose, what is done."""

import dataclasses

import pytest

import signstep as ss
from signstep.guard.breaker import Breaker
from signstep.guard.decide import CODES, Action, Rules, Seen, decide

ODD = Seen(Action.REJECT, 0.001, "knn", 0.99)
DOUBTFUL = Seen(Action.REVIEW, 0.015, "knn", 0.99)
UNSURE = Seen(Action.ACCEPT, 0.5, "knn", 0.3)
CLEAN = Seen(Action.ACCEPT, 0.5, "knn", 0.99)
BROKEN = dataclasses.replace(CLEAN, faults=("it has numbers that are not finite",))
FAILED = Seen(error="the detector fell over")
SUSPECT = dataclasses.replace(CLEAN, alarm="flags")

TABLE = [
    # seen, rules, what holds the guard back, decided, action, codes of the reasons
    (CLEAN, Rules(), (), "accept", "accept", []),
    (ODD, Rules(), (), "reject", "reject", ["detector"]),
    (DOUBTFUL, Rules(), (), "review", "review", ["detector"]),
    (UNSURE, Rules(), (), "accept", "accept", []),
    (UNSURE, Rules(low_confidence=0.5), (), "review", "review", ["low-confidence"]),
    (dataclasses.replace(ODD, confidence=0.2), Rules(low_confidence=0.5), (), "reject", "reject",
     ["detector", "low-confidence"]),
    (BROKEN, Rules(), (), "reject", "reject", ["input"]),
    (BROKEN, Rules(shadow=True), (), "reject", "reject", ["input"]),
    (ODD, Rules(shadow=True), (), "reject", "accept", ["detector", "shadow"]),
    (DOUBTFUL, Rules(shadow=True), (), "review", "accept", ["detector", "shadow"]),
    (CLEAN, Rules(shadow=True), (), "accept", "accept", []),
    (ODD, Rules(), ("breaker",), "reject", "accept", ["detector", "breaker"]),
    (ODD, Rules(), ("new-model",), "reject", "accept", ["detector", "new-model"]),
    (FAILED, Rules(), (), "reject", "reject", ["error"]),
    (FAILED, Rules(fail="open"), (), "accept", "accept", ["error"]),
    (SUSPECT, Rules(), (), "accept", "accept", ["client"]),
    (SUSPECT, Rules(suspects="review"), (), "review", "review", ["client"]),
    (SUSPECT, Rules(suspects="reject"), (), "reject", "reject", ["client"]),
]  # fmt: skip


@pytest.mark.parametrize("row", range(len(TABLE)))
def test_what_is_done(row: int) -> None:
    seen, rules, held, decided, action, codes = TABLE[row]
    verdict = decide(seen, rules, held=held)
    assert (verdict.decided, verdict.action) == (decided, action)
    assert [reason.code for reason in verdict.reasons] == codes
    assert all(reason.code in CODES and len(reason.text) > 10 for reason in verdict.reasons)


def test_every_reason_is_in_the_table() -> None:
    assert {code for *_, codes in TABLE for code in codes} == set(CODES)


def test_the_small_p_value_is_said_with_its_detector() -> None:
    (reason,) = decide(ODD, Rules()).reasons
    assert "knn" in reason.text
    assert "0.001" in reason.text


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"fail": "maybe"}, "fail"), ({"review": "x"}, "review"), ({"suspects": "x"}, "suspects"),
     ({"low_confidence": 1.5}, "low_confidence"), ({"breaker_share": -1.0}, "breaker_share"),
     ({"breaker_clients": 1}, "breaker_clients")],
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused_by_name(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ss.SignstepError) as raised:
        Rules(**wrong)  # type: ignore[arg-type]
    assert raised.value.argument == named


def test_one_client_never_opens_the_breaker_and_most_of_them_do() -> None:
    breaker = Breaker(0.5, 20)
    for number in range(19):
        breaker.saw(f"clean {number}", flagged=False)
    for _ in range(5000):
        breaker.saw("flood", flagged=True)
    assert state(breaker) == "closed"
    changed = [breaker.saw(f"clean {number}", flagged=True) for number in range(19)]
    assert state(breaker) == "open"
    assert sum(changed) == 1
    # It closes at half of the share, not at once below it.
    for number in range(9):
        breaker.saw(f"clean {number}", flagged=False)
    assert state(breaker) == "open"
    for number in range(9, 19):
        breaker.saw(f"clean {number}", flagged=False)
    assert state(breaker) == "closed"


def state(breaker: Breaker) -> str:
    return "open" if breaker.open else "closed"


def test_too_few_clients_open_nothing() -> None:
    breaker = Breaker(0.5, 20)
    for number in range(19):
        breaker.saw(f"{number}", flagged=True)
    assert not breaker.open
    assert breaker.saw("19", flagged=True)
