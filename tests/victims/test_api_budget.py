"""The bound on requests is never exceeded: whatever fails, whatever is retried, however often it is asked."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from api_server import FORMS, PASSING, SECRET, Net, data, described, served
from test_api_faults import Watch, victim

import signstep as ss
from signstep.errors import VictimError
from signstep.model.victims.address import Address
from signstep.model.victims.described import description
from signstep.model.victims.endpoint import HttpVictim
from signstep.model.victims.pace import Limits, Pace

pytestmark = pytest.mark.filterwarnings("ignore:eps=")


def constant(answered: Any) -> Callable[[Any], Any]:
    return lambda _: answered


@pytest.mark.parametrize("seed", range(12))
def test_no_plan_of_faults_gets_more_requests_than_the_bound(seed: int) -> None:
    drawn = random.Random(seed)
    most = drawn.randint(1, 25)
    with served() as api:
        api.plan = {number: drawn.choice([*PASSING, "html", "nan"]) for number in range(1, 200) if drawn.random() < 0.3}
        form = drawn.choice(list(FORMS))
        asked, _ = victim(api, described(form), retries=drawn.randint(0, 6), max_requests=most)
        for _ in range(30):
            try:
                asked(data(drawn.randint(1, 9), seed=drawn.randint(0, 3))[0])
            except VictimError:
                asked.revive()
        spent = asked.spent()
        assert api.count == spent.requests <= most
        assert spent.retries < max(1, spent.requests)


@pytest.mark.parametrize("most", [1, 2, 7, 13, 14, 20, 40, 90])
@pytest.mark.parametrize("recipe", ["square:queries=60", "nes:queries=60,samples=4", "random-sign"])
def test_an_audit_keeps_to_it_and_counts_everybody(most: int, recipe: str) -> None:
    x, y = data(5)
    with served() as api:
        api.plan = {3: "503", 9: "429", 16: "drop"}
        plain = described("png")
        plain["limits"] = {"backoff": 0.0, "max_requests": most}
        model = ss.open(api.url, endpoint=plain)
        try:
            result = ss.audit(model, (x, y), threat=ss.linf("24/255", grid=255), attacks=[recipe], curve=False)
        except VictimError:
            result = None
        if result is None:
            assert most < 5 + 3  # not even the untouched examples could be asked about
            assert api.count <= most
            return
        assert api.count == result.terms["requests"]["sent"] <= most
        if result.partial:
            assert result.fooled + result.undetermined == result.clean_right
            assert any(f"max_requests={most} allows no more" in note for note in result.notes)


@pytest.mark.parametrize("most", [1, 2, 3, 8, 14, 100])
def test_a_transfer_keeps_to_it(most: int) -> None:
    x, y = data(5)
    with served() as api:
        api.plan = {4: "503", 7: "drop"}
        plain = described("png")
        plain["limits"] = {"backoff": 0.0, "max_requests": most}
        model = ss.open(api.url, endpoint=plain)
        try:
            matrix = ss.transfer({"mine": Net(0.1)}, {"theirs": model}, (x, y), threat=ss.linf("24/255", grid=255))
        except VictimError:
            assert most < 6
            assert api.count <= most
            return
        assert api.count == matrix.requests["theirs"]["sent"] <= most
        assert matrix.partial == (most < 20)
        assert matrix.cell("mine", "theirs").right == matrix.clean["theirs"] <= matrix.seen.get("theirs", 5)


def test_a_question_that_cannot_be_paid_in_whole_is_not_begun() -> None:
    with served() as api:
        asked, _ = victim(api, described("png"), max_requests=4)
        with pytest.raises(VictimError, match=r"5 more are needed for the next question, and max_requests=4"):
            asked(data(5)[0])
        assert api.count == 0
        asked(data(4)[0])
        assert api.count == 4
        with pytest.raises(VictimError, match="was asked 4 times, and max_requests=4 allows no more"):
            asked(data(1)[0])


def test_an_interruption_counts_the_request_that_was_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from signstep.model.victims.wire import Wire

    with served() as api:
        asked, _ = victim(api, described("png"))
        monkeypatch.setattr(Wire, "send", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(VictimError, match="it was interrupted"):
            asked(data(2)[0])
        assert asked.interrupted
        assert asked.requests == 1


def test_waits_double_are_capped_and_are_the_same_each_time() -> None:
    limits = Limits(backoff=1.0, longest_wait=6.0)

    def waits() -> list[float | None]:
        pace = Pace(limits, Watch())
        return [pace.before_repetition(number, None) for number in range(1, 40)]

    first = waits()
    assert first == waits()
    for number, wait in enumerate(first):
        whole = min(6.0, 2.0**number)
        assert wait is not None
        assert whole / 2 <= wait <= whole


def test_prices_add_up() -> None:
    with served() as api:
        asked, _ = victim(api, described("png"), price=0.002, currency="USD")
        asked(data(3)[0])
        assert asked.spent().cost == pytest.approx(0.006)
        before = asked.spent()
        asked(data(2)[0])
        assert asked.spent().since(before).plain()["cost"] == pytest.approx(0.004)


def test_shards_of_an_audit_add_up_what_was_sent(tmp_path: Path) -> None:
    x, y = data(6)
    with served() as api:
        found = []
        for number in range(2):
            model = ss.open(api.url, endpoint=described("png"))
            run = ss.Run(shard=(number, 2))
            found.append(
                ss.audit(
                    model, (x, y), threat=ss.linf("9/255", grid=255), attacks=["random-sign"], curve=False, run=run
                )
            )
        merged = ss.merge(found)
        assert merged.terms["requests"]["sent"] == api.count
        merged.save(tmp_path / "result.json")
        assert ss.Result.load(tmp_path / "result.json") == merged


def test_secrets_are_in_no_message_whatever_the_server_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every spelling in which a server may say it again."""
    import base64
    import json
    import urllib.parse

    monkeypatch.setenv("API_TOKEN", SECRET)
    forms = (
        SECRET,
        urllib.parse.quote(SECRET, safe=""),
        urllib.parse.quote(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
    )
    plain = {**described("array"), "headers": {"X-Key": "$API_TOKEN", "X-Other": "literal-secret-99"}}
    plain["query"] = {"key": "${API_TOKEN}"}
    plain["request"]["with"] = {"auth": {"token": "$API_TOKEN"}, "price": "5$$"}
    for form in (*forms, "literal-secret-99"):
        for answered in ({"scores": form}, {form: 1}, {"scores": {form: 1.0}}):
            with served() as api:
                api.answer = constant(answered)
                model = ss.open(api.url, endpoint=plain)
                with pytest.raises(VictimError) as caught:
                    model(data(2)[0])
                assert not any(one in str(caught.value) for one in (*forms, "literal-secret-99")), str(caught.value)
                assert "***" in str(caught.value)
                sent = json.loads(api.bodies[0])
                assert sent["auth"] == {"token": SECRET}
                assert sent["price"] == "5$"
                assert api.headers[0]["x-key"] == SECRET
                assert api.paths[0].endswith(f"?key={urllib.parse.quote_plus(SECRET)}")
                told = f"{model!r} {model.title} {model.notes} {dict(model.hashes)} {model.network!r}"
                assert not any(one in told for one in (*forms, "literal-secret-99"))


def test_what_is_secret_or_costs_decides_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(**changed: object) -> str:
        return description({**described("array"), **changed}).digest

    monkeypatch.setenv("API_TOKEN", SECRET)
    one = digest(headers={"X-Key": "$API_TOKEN"})
    monkeypatch.setenv("API_TOKEN", "another-one")
    assert one == digest(headers={"X-Key": "$API_TOKEN"}, limits={"max_requests": 5}) == digest()
    assert one != digest(request={"as": "array", "at": "inputs[]"})
    asked = HttpVictim.of(Address.of("https://host.example/p"), description(described("png")))
    assert torch.equal(torch.tensor(asked.requests), torch.tensor(0))
