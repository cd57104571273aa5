"""Attacking one's own guard: each attacker at a service of its own kind of clean inputs, and what the report says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from guard_bench import clean, made, service
from test_pages import running

import signstep as ss
from signstep.guard.app import make_app
from signstep.guard.attackers import NAMES
from signstep.guard.challenge import Battle, Challenged, challenge, last
from signstep.guard.facts import Facts, gathered, settings_of
from signstep.guard.report import report_json, report_page
from signstep.guard.standards import AISVS, LINES, judged
from signstep.guard.store import Store

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def fought(tmp_path_factory: pytest.TempPathFactory) -> tuple[Challenged, Facts]:
    folder = tmp_path_factory.mktemp("challenge")
    guard = made(folder / "guard.db")
    whole = service(guard)
    store = Store(f"sqlite:///{folder}/guard.db")
    settings_of(whole).keep(store)
    x = torch.from_numpy(clean(200, seed=20))
    y = (x.flatten(1).mean(1) > 0.5).long()
    near = (x.flatten(1).mean(1) - 0.5).abs() < 0.04
    order = torch.cat([near.nonzero().flatten(), (~near).nonzero().flatten()])
    with running(make_app(whole)) as url:
        battle = Battle(
            url, store, guard.model, x[order], y[order], ss.linf(0.1), NAMES, examples=1, queries=30, clean=30
        )
        found = challenge(battle)
        with pytest.raises(ss.SignstepError, match="attacker"):
            challenge(replace(battle, attackers=("magic",)))
        with pytest.raises(ss.SignstepError, match="examples"):
            challenge(replace(battle, examples=190))
    facts = gathered(store)
    assert last(store) == found
    store.close()
    return found, facts


def test_transfer_wins_at_once_and_queries_set_off_alarms(fought: tuple[Challenged, Facts]) -> None:
    found, _ = fought
    by_name = {one.name: one for one in found.attacked}
    assert tuple(by_name) == NAMES
    assert (by_name["pgd"].successes, by_name["pgd"].queries) == (1, 1)
    assert by_name["pgd"].before_alarm == 1  # one query: no chart has seen anything
    assert by_name["square"].successes == 1
    assert by_name["square"].queries > 2
    assert "steps" in by_name["hop"].alarms
    assert by_name["slow"].queries % 10 == 0  # nine clean inputs with each
    assert found.clean.queries == 30
    assert found.clean.alarms == {}
    assert found.clean.actions == {"accept": 30}


def test_every_decision_of_an_attacker_is_accounted_for(fought: tuple[Challenged, Facts]) -> None:
    found, facts = fought
    for one in (found.clean, *found.attacked):
        assert sum(one.actions.values()) == one.queries
        assert one.before_alarm <= one.successes <= one.targets or one.name == "clean"
        assert (one.first_alarm is None) == (not one.alarms)
    assert facts.decisions == sum(one.queries for one in (found.clean, *found.attacked))
    assert facts.keys == 0  # those of the challenge are revoked


def test_a_challenge_survives_json_and_nothing_else_is_read(fought: tuple[Challenged, Facts]) -> None:
    found, _ = fought
    assert Challenged.from_json(found.to_json()) == found
    for text in ("", "[]", "{}", found.to_json().replace('"queries"', '"wishes"')):
        with pytest.raises(ss.SignstepError):
            Challenged.from_json(text)
    assert [line.split()[0] for line in str(found).splitlines()] == ["attacker", "clean", *NAMES]


IDENTS = ("11.2.2", "11.2.3", "11.3.1", "11.4.1", "11.4.2", "11.4.3", "12.2.1", "12.2.2", "12.2.5", "12.3.1")


def test_the_table_of_standards_is_frozen() -> None:
    assert tuple(line.ident for line in LINES if line.standard == AISVS) == IDENTS
    assert len({(line.standard, line.ident) for line in LINES}) == len(LINES)
    nothing = {line.ident: line for line in judged(Facts())}
    # Of a guard that has done nothing only what it always does is there.
    assert {ident for ident, line in nothing.items() if line.by} == {"11.2.3", "11.3.1", "12.2.1", "12.3.1"}
    assert nothing["AML.T0024"].said == "not covered"


def test_each_line_hangs_on_what_it_names(fought: tuple[Challenged, Facts]) -> None:
    _, facts = fought
    for ident, changed in {
        "11.2.2": {"rate": 5.0},
        "11.2.3": {"scores": True},
        "11.4.1": {"detectors": ()},
        "11.4.2": {"shadow": True},
        "11.4.3": {"review": 0.0, "low_confidence": 0.0},
        "12.2.2": {"challenge": None},
        "12.2.5": {"keys_only": True},
    }.items():
        one, other = (
            {line.ident: bool(line.by) for line in judged(state)}
            for state in (facts, replace(facts, **changed))  # type: ignore[arg-type]
        )
        assert one[ident] != other[ident], ident


def test_the_report_says_both_and_claims_nothing(fought: tuple[Challenged, Facts], tmp_path: Path) -> None:
    _, facts = fought
    evil = replace(facts, model="<script>alert(1)</script>")
    page, plain = report_page(evil), json.loads(report_json(facts))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")  # it fetches nothing
    assert "not covered" in page
    assert "No compliance is claimed" in page
    assert plain["note"] == "No compliance is claimed."
    assert len(plain["lines"]) == len(LINES)
    assert not list(tmp_path.iterdir())
    assert np.isfinite(plain["facts"]["made"])
