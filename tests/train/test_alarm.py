"""The alarm on made-up evidence: what it calls, what it leaves alone, and what it says."""

from dataclasses import replace

import pytest

from signstep.train import Event, Reading, judge
from signstep.train.log import log_text

HEALTHY = Reading(
    step=100,
    epoch=1.0,
    attempt=0,
    recipe="fgsm",
    examples=64,
    loss=1.0,
    clean_loss=0.3,
    adversarial_loss=0.9,
    clean=60,
    fgsm=45,
    pgd=42,
    weight_cosine=0.95,
    input_cosine=0.9,
)
COLLAPSED = replace(
    HEALTHY,
    step=200,
    clean=55,
    fgsm=62,
    pgd=1,
    clean_loss=0.4,
    adversarial_loss=0.05,
    weight_cosine=0.1,
    input_cosine=0.05,
)


def test_a_healthy_model_is_left_alone() -> None:
    call = judge(HEALTHY)
    assert (call.collapsed, call.healthy, call.reasons) == (False, True, ())


def test_a_collapse_is_called_in_words_with_all_signs() -> None:
    call = judge(COLLAPSED, [HEALTHY])
    assert call.collapsed
    assert not call.healthy
    text = str(call)
    for words in (
        "Collapse at step 200: of 64 held-out rows the model answers 62 rightly under FGSM and 1 under PGD",
        "the step carries the label",
        "above clean accuracy (62 and 55 rows)",
        "PGD accuracy was 66 % before",
        "no longer nearly linear",
        "another direction than robustness",
    ):
        assert words in text


def test_no_earlier_reading_is_needed() -> None:
    assert judge(COLLAPSED).collapsed


@pytest.mark.parametrize(("fgsm", "pgd"), [(20, 11), (6, 0), (40, 21), (9, 3)])
def test_small_or_uncertain_gaps_are_no_collapse(fgsm: int, pgd: int) -> None:
    assert not judge(replace(HEALTHY, fgsm=fgsm, pgd=pgd)).collapsed


def test_a_beginning_is_no_collapse_but_no_place_to_come_back_to() -> None:
    beginning = replace(HEALTHY, clean=40, fgsm=16, pgd=1)
    call = judge(beginning)
    assert not call.collapsed
    assert not call.healthy


def test_what_persists_is_a_collapse() -> None:
    beginning = replace(HEALTHY, clean=40, fgsm=16, pgd=1)
    assert judge(replace(beginning, step=200), [beginning]).collapsed
    # A model that is slowly becoming robust may look so for a while.
    slow = replace(HEALTHY, clean=60, fgsm=34, pgd=13)
    assert not judge(replace(slow, step=200), [slow]).collapsed


def test_a_model_that_answered_everything_alike_has_lost_nothing() -> None:
    constant = replace(HEALTHY, clean=10, fgsm=10, pgd=10)
    assert not judge(replace(HEALTHY, clean=25, fgsm=16, pgd=0), [constant]).collapsed
    robust_before = replace(HEALTHY, clean=30, fgsm=20, pgd=16)
    assert judge(replace(HEALTHY, clean=25, fgsm=16, pgd=0), [robust_before]).collapsed


def test_signs_alone_call_nothing() -> None:
    odd = replace(HEALTHY, clean=40, fgsm=45, adversarial_loss=0.1, weight_cosine=-0.5, input_cosine=0.0)
    assert not judge(odd).collapsed


def test_an_event_says_what_was_done() -> None:
    event = Event(200, ("Collapse.",), "recover", 100, "fgsm", "n-fgsm")
    assert str(event) == "Collapse. Went back to step 100 and on with n-fgsm instead of fgsm."
    assert "stopped there" in str(replace(event, action="stop"))


def test_the_log_has_a_line_for_each_reading() -> None:
    lines = log_text([HEALTHY, COLLAPSED]).splitlines()
    assert lines[0].startswith("step,epoch,attempt,recipe,examples,loss")
    assert lines[2].startswith("200,1,0,fgsm,64,1,0.4,0.05,55,62,1")


def test_a_model_that_answers_everything_alike_is_no_place_to_come_back_to() -> None:
    assert judge(HEALTHY).healthy
    alike = replace(HEALTHY, clean=6, fgsm=6, pgd=6)
    assert not judge(alike).collapsed
    assert not judge(alike).healthy
