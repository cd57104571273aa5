"""The guard around a model: what a client meets, what is kept, and that nothing about an input changes its passes."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guard_bench import Counted, clean, made, odd

import signstep as ss
from signstep.detectors.digests import model_digest
from signstep.guard.calibration import Calibration
from signstep.guard.decide import Rules
from signstep.guard.guard import Guard, best
from signstep.guard.rows import Decided, unpacked
from signstep.guard.store import Keep


def log(guard: Guard) -> list[Decided]:
    assert guard.store is not None
    return [Decided.of(row) for row in guard.store.read(guard.store.tables.log())]


def test_an_answer_leads_to_the_log_and_withholds_what_it_should(tmp_path: Path) -> None:
    with made(tmp_path / "guard.db") as guard:
        accepted, held, refused = (guard(odd(first), client="key-17") for first in (0.1, 0.85, 0.95))
        assert (accepted.action, accepted.label, accepted.name) == ("accept", 0, "dark")
        assert accepted.confidence == pytest.approx(0.98, abs=0.02)
        for answer, action in ((held, "review"), (refused, "reject")):
            assert (answer.action, answer.label, answer.scores, answer.confidence) == (action, None, None, None)
            assert "bright" in answer.reasons[0].text
        assert all(one.stored for one in (accepted, held, refused))
        rows = {row.id: row for row in log(guard)}
        assert set(rows) == {accepted.id, held.id, refused.id}
        kept = rows[held.id]
        assert (kept.label, kept.client, kept.queue) == (0, "key-17", "open")
        assert kept.p_value == pytest.approx(0.015)
        assert kept.input is not None
        assert (unpacked(kept.input) == odd(0.85)[0].numpy()).all()
        assert rows[accepted.id].input is None  # by default those that were simply accepted are not kept


def test_marked_answers_are_given_and_queued_all_the_same(tmp_path: Path) -> None:
    with made(tmp_path / "guard.db", Rules(review="mark")) as guard:
        answer = guard(odd(0.85))
        assert (answer.action, answer.label) == ("review", 0)
        assert log(guard)[0].queue == "open"


def test_shadow_mode_decides_and_withholds_nothing(tmp_path: Path) -> None:
    with made(tmp_path / "guard.db", Rules(shadow=True)) as guard:
        answer = guard(odd(0.95))
        assert (answer.action, answer.decided, answer.label) == ("accept", "reject", 0)
        assert [reason.code for reason in answer.reasons] == ["detector", "shadow"]
        assert log(guard)[0].decided == "reject"


def test_whatever_is_sent_costs_the_same_passes_of_the_same_size() -> None:
    guard = made()
    network = guard.model.module
    assert isinstance(network, Counted)
    nan, far = odd(0.1), odd(0.1)
    nan[0, 0, 1, 1], far[0, 0, 1, 1] = float("nan"), 1e9
    counts = []
    for x in (odd(0.1), odd(0.85), odd(0.95), nan, far):
        network.passes.clear()
        guard(x)
        counts.append(list(network.passes))
    assert counts == [[1]] * 5
    assert [guard(x).reasons[0].code for x in (nan, far)] == ["input"] * 2


def test_another_model_begins_in_shadow(tmp_path: Path) -> None:
    with made(tmp_path / "guard.db") as guard:
        assert guard(odd(0.95)).action == "reject"
        network = guard.model.module
        assert isinstance(network, Counted)
        with torch.no_grad():
            network.weight.add_(1)
        answer = guard(odd(0.95))
        assert (answer.action, answer.decided) == ("accept", "reject")
        assert answer.reasons[-1].code == "new-model"
        assert log(guard)[0].digest == model_digest(guard.model)
        with torch.no_grad():
            network.weight.sub_(1)
        assert guard(odd(0.95)).action == "reject"


@pytest.mark.parametrize(("fail", "action", "label"), [("closed", "reject", None), ("open", "accept", 0)])
def test_what_cannot_be_judged_is_refused_or_answered_as_was_chosen(fail: Any, action: str, label: int | None) -> None:
    guard = made(rules=Rules(fail=fail))
    decide = guard.policy.decide

    def fails_at_one(x: torch.Tensor) -> Any:
        if bool((x[:, 0, 0, 1] == 0.625).any()):
            raise ZeroDivisionError
        return decide(x)

    guard.policy.decide = fails_at_one  # type: ignore[method-assign]
    bad = odd(0.1)
    bad[0, 0, 0, 1] = 0.625
    told: list[str] = []
    guard.heard.troubles.append(told.append)
    answers = guard.many(torch.cat([odd(0.1), bad, odd(0.95)]), ["a", "b", "c"])
    assert [one.action for one in answers] == ["accept", action, "reject"]
    assert (answers[1].label, answers[1].reasons[0].code) == (label, "error")
    assert told == ["an input could not be judged: ZeroDivisionError"]


def test_most_clients_flagged_stop_the_refusing_and_it_is_an_alarm(tmp_path: Path) -> None:
    with made(tmp_path / "guard.db") as guard:
        actions = [guard(odd(0.9 + number / 1000), client=f"c{number}").action for number in range(1, 25)]
        assert actions[:20] == ["reject"] * 20
        assert set(actions[20:]) == {"accept"}
        assert guard.held == ("breaker",)
        assert guard.store is not None
        (alarm,) = guard.store.read(guard.store.tables.alarm_log())
        assert (alarm["kind"], alarm["client"]) == ("breaker", "")
        assert len(guard.store.read(guard.store.tables.log(ident=alarm["decision"]))) == 1


def test_a_client_under_an_alarm_is_treated_as_was_chosen(tmp_path: Path) -> None:
    with made(tmp_path / "guard.db", Rules(suspects="reject", breaker_clients=30)) as guard:
        rows = torch.from_numpy(clean(30, seed=3))
        rows[:, 0, 0, 0] = 0.95
        for row in rows[:20]:
            guard(row, client="prober")
        assert guard.watch.alarm_of("prober") == "flags"
        answer = guard(odd(0.1), client="prober")
        assert (answer.action, answer.reasons[0].code) == ("reject", "client")
        assert guard(odd(0.1), client="other").action == "accept"


@pytest.mark.parametrize("keep", ["all", "flagged", "none"])
def test_inputs_are_kept_as_was_chosen(keep: str, tmp_path: Path) -> None:
    with made(tmp_path / "guard.db", keep=Keep(inputs=keep)) as guard:
        guard(odd(0.1)), guard(odd(0.95))
        kept = [row.input is not None for row in reversed(log(guard))]
        assert kept == {"all": [True, True], "flagged": [False, True], "none": [False, False]}[keep]
        assert all(len(row.fingerprint) == 32 for row in log(guard))


def test_without_a_store_it_decides_and_says_that_nothing_is_stored() -> None:
    answer = made()(odd(0.95))
    assert (answer.action, answer.stored) == ("reject", False)


def test_answers_wait_for_their_commit(tmp_path: Path) -> None:
    with made(tmp_path / "guard.db") as guard:
        assert guard.store is not None
        waiting: Future[bool] = Future()
        guard.store.append = lambda *_: waiting  # type: ignore[method-assign]
        (judged,) = guard.judge(odd(0.1), ["a"])
        assert not judged.stored.done()


def test_calibrations_survive_their_folder_and_no_others_are_read(tmp_path: Path) -> None:
    rows = clean(300)
    known = Calibration.of(rows, "d" * 64, box=(0.0, 1.0), unsure_rows=3, detectors=("detector-0.safetensors",))
    known.save(tmp_path)
    found = Calibration.load(tmp_path)
    assert found.walks is not None
    assert known.walks is not None
    assert (found.walks.lengths == known.walks.lengths).all()
    plain = {**vars(found), "walks": None}
    assert plain == {**vars(known), "walks": None}
    assert (tmp_path / "calibration.json").stat().st_mode & 0o077 == 0
    text = (tmp_path / "calibration.json").read_text()
    for old, new in (
        ('"format": 1', '"format": 2'), ('"rows": 300', '"rows": -1'), ("detector-0.safetensors", "../detector"),
        ('"rows": 300', '"rows": "300"'), ('"unsure_rows": 3', '"unsure_rows": 301'), ('"shape"', '"forms"'),
        ('"similar": 0', '"similar": -'), ('"seed": ', '"seed": 1.5e400, "x": '),
    ):  # fmt: skip
        assert old in text
        (tmp_path / "calibration.json").write_text(text.replace(old, new))
        with pytest.raises(ss.SignstepError):
            Calibration.load(tmp_path)
    (tmp_path / "calibration.json").write_text(text)
    (tmp_path / "steps.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ss.SignstepError, match="damaged"):
        Calibration.load(tmp_path)


@pytest.mark.parametrize("wrong", [torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 5, 5), torch.zeros(4)])
def test_inputs_of_another_shape_are_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(ss.SignstepError):
        made()(wrong)


def test_probabilities_logits_and_single_scores_are_read_as_they_are() -> None:
    for scores, outputs, label, confidence in (
        ([0.0, 2.0], "auto", 1, 0.881), ([0.2, 0.8], "auto", 1, 0.8), ([0.2, 0.8], "logits", 1, 0.646),
        ([3.0], "auto", 1, 0.953), ([0.3], "probabilities", 0, 0.7), ([1e300, -1e300], "auto", 0, 1.0),
    ):  # fmt: skip
        found = best(np.asarray(scores), outputs)
        assert found[0] == label
        assert found[1] == pytest.approx(confidence, abs=1e-3)
