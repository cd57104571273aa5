"""Laws over (kind of fault x form of the input): what is wrong for good costs one request, the rest is waited out."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import torch
from api_server import CLASSES, FORMS, LASTING, PASSING, SECRET, Api, data, described, scores, served

import signstep as ss
from signstep.errors import GradientError, InputError, LoadError, ModelError, SignstepError, VictimError
from signstep.model.victims.address import Address
from signstep.model.victims.described import description
from signstep.model.victims.endpoint import HttpVictim

IMAGES = ("png", "multipart", "base64")


@pytest.fixture
def api() -> Iterator[Api]:
    with served() as one:
        yield one


class Watch:
    """A clock that does not wait."""

    def __init__(self) -> None:
        self.time, self.naps = 1000.0, list[float]()

    def now(self) -> float:
        return self.time

    def wall(self) -> datetime:
        return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.time += seconds


def victim(api: Api, plain: dict[str, Any], **limits: Any) -> tuple[HttpVictim, Watch]:
    watch = Watch()
    plain = {**plain, "limits": {**plain.get("limits", {}), **limits}}
    return HttpVictim.of(Address.of(api.url), description(plain), watch), watch


def one_sentence(error: SignstepError) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 450, text
    assert ";" in text, text
    assert SECRET not in text
    return text


@pytest.mark.parametrize("form", FORMS)
def test_inputs_arrive_as_they_were(api: Api, form: str) -> None:
    x, _ = data()
    asked, _ = victim(api, described(form))
    torch.testing.assert_close(asked(x), torch.from_numpy(scores(x.numpy())), rtol=1e-6, atol=1e-6)
    batch = FORMS[form].get("batch", 1)
    assert asked.requests == api.count == -(-len(x) // batch)
    if form in IMAGES:  # to the bit
        sent = torch.cat([torch.from_numpy(one) for one in api.images]).float()
        assert torch.equal((sent * 255).round(), (x * 255).round())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", LASTING)
def test_what_is_wrong_for_good_costs_one_request_and_is_one_sentence(
    api: Api, fault: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", SECRET)
    api.after = (0, fault)
    plain = {**described(form), "headers": {"Authorization": "Bearer $API_TOKEN"}}
    model = ss.open(api.url, endpoint=plain)
    x, y = data()
    with pytest.raises(VictimError) as caught:
        ss.audit(model, (x, y), threat=ss.linf("8/255", grid=255), attacks=["square:queries=20"])
    said = one_sentence(caught.value)
    assert api.url in said
    assert api.count == 1
    assert api.headers[0]["authorization"] == f"Bearer {SECRET}"
    with pytest.raises(VictimError):
        model(x)
    assert api.count == 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_waited_out_and_counted(api: Api, fault: str, form: str) -> None:
    api.plan = {1: fault, 2: fault}
    asked, watch = victim(api, described(form), backoff=2.0)
    x, _ = data(1)
    torch.testing.assert_close(asked(x), torch.from_numpy(scores(x.numpy())), rtol=1e-6, atol=1e-6)
    spent = asked.spent()
    assert (spent.requests, spent.retries, api.count) == (3, 2, 3)
    assert 1 <= watch.naps[0] <= 2 <= watch.naps[1] <= 4
    assert spent.waited == sum(watch.naps)
    again, later = victim(api, described(form), backoff=2.0)
    api.plan = {4: fault, 5: fault}
    again(x)
    assert later.naps == watch.naps  # the same on every run


@pytest.mark.parametrize("fault", PASSING)
def test_what_does_not_pass_is_given_up(api: Api, fault: str) -> None:
    api.after = (0, fault)
    asked, watch = victim(api, described(), retries=2, backoff=1.0, longest_wait=1.2)
    with pytest.raises(VictimError, match="did not answer in 3 attempts") as caught:
        asked(data()[0])
    one_sentence(caught.value)
    assert api.count == 3
    assert len(watch.naps) == 2
    assert max(watch.naps) <= 1.2


def test_an_unreadable_answer_after_readable_ones_may_pass(api: Api) -> None:
    x, _ = data(1)
    asked, _ = victim(api, described())
    asked(x)
    api.plan = {2: "html", 3: "no json"}
    asked(x)
    assert api.count == 4
    api.after = (4, "nan")
    with pytest.raises(VictimError, match=r"4 attempts; the last one: an answer that cannot be read"):
        asked(x)


@pytest.mark.parametrize("asks", ["3", "date"])
def test_retry_after_is_obeyed(api: Api, asks: str) -> None:
    api.retry_after = "3" if asks == "3" else format_datetime(Watch().wall() + timedelta(seconds=3), usegmt=True)
    api.plan = {1: "429"}
    asked, watch = victim(api, described(), backoff=0.1)
    asked(data(1)[0])
    assert watch.naps == [3.0]


@pytest.mark.parametrize("asks", ["61", "9" * 30, "Fri, 02 Jan 2099 03:04:05 GMT"])
def test_a_server_that_asks_for_more_than_the_cap_is_left_alone(api: Api, asks: str) -> None:
    api.retry_after = asks
    api.after = (0, "503")
    asked, watch = victim(api, described())
    with pytest.raises(VictimError, match="asks to be left alone, Retry-After") as caught:
        asked(data(1)[0])
    one_sentence(caught.value)
    assert (api.count, watch.naps) == (1, [])


@pytest.mark.parametrize("asks", ["soon", "-5", "1.5.2", "Fri, 02 Jan 1999 03:04:05 GMT", "\t"])
def test_a_retry_after_that_asks_for_nothing_delays_little(api: Api, asks: str) -> None:
    api.retry_after = asks
    api.plan = {1: "429"}
    asked, watch = victim(api, described(), backoff=0.25)
    asked(data(1)[0])
    assert sum(watch.naps) <= 0.25


def test_the_rate_is_kept(api: Api) -> None:
    asked, watch = victim(api, described("png"), requests_per_second=4.0)
    asked(data(5)[0])
    assert watch.naps == pytest.approx([0.25] * 4)


def test_nobody_there_is_said_at_once() -> None:
    with served() as api:
        url = api.url
    model = ss.open(url, endpoint=described())
    with pytest.raises(VictimError, match="nobody listens there") as caught:
        model(data(1)[0])
    one_sentence(caught.value)


@pytest.mark.parametrize("kind", ["scores", "logits", "probabilities", "labels", "label names", "named", "pairs"])
def test_every_kind_of_answer_is_read(api: Api, kind: str) -> None:
    x, y = data()

    def soft(row: Any) -> Any:
        made = torch.from_numpy(row).softmax(0).tolist()
        return [round(value, 6) for value in made]

    forms: dict[str, tuple[Any, dict[str, Any]]] = {
        "scores": (lambda row: {"scores": row.tolist()}, {}),
        "logits": (lambda row: {"scores": row.tolist()}, {"is": "logits"}),
        "probabilities": (lambda row: {"scores": soft(row)}, {"is": "probabilities"}),
        "labels": (lambda row: {"scores": int(row.argmax())}, {"is": "labels"}),
        "label names": (lambda row: {"scores": [{"label": CLASSES[row.argmax()]}]}, {"is": "labels", "name": "label"}),
        "named": (lambda row: {"scores": dict(zip(CLASSES, row.tolist(), strict=True))}, {}),
        "pairs": (
            lambda row: {"scores": [{"label": CLASSES[k], "score": row[k]} for k in row.argsort()[::-1]]},
            {"name": "label", "value": "score"},
        ),
    }
    api.answer, answer = forms[kind]
    model = ss.open(api.url, endpoint=described("array", **answer))
    found = model(x)
    assert (found if "label" in kind else found.argmax(1)).tolist() == y.tolist()
    recipe = "hop-skip-jump:queries=60" if "label" in kind else "square:queries=60"
    outcome = ss.attack(model, x, y, threat=ss.linf(0.4), recipe=recipe)
    assert int(outcome.fooled.sum()) > 0


@pytest.mark.parametrize(
    ("answered", "answer", "said"),
    [
        ("owl", {"is": "labels"}, r"the class 'owl', which is none of answer\.classes"),
        (7, {"is": "labels"}, r"has the label 7, and the labels are 0 to 2"),
        (-1, {"is": "labels"}, "has the label -1"),
        ([1.0, 2.0], {"is": "labels"}, "has a list of 2 where a label should be"),
        ([1, 2, 3, 4], {}, r"has 4 scores, and answer\.classes names 3"),
        ([0.2, 1.7, 0.1], {"is": "probabilities"}, r"has 1\.7, which is no probability; write answer\.is = 'logits'"),
        ({"cat": 1, "dog": 2}, {}, "has 2 scores"),
        ({"cat": 1, "dog": 2, "owl": 2}, {}, "the class 'owl'"),
        ([{"label": "cat", "p": 1}], {"name": "label", "value": "score"}, "without 'score'"),
        (True, {}, "has true where a score should be"),
        ("\x1b[2Jowl", {"is": "labels"}, r"\\u001b\[2Jowl"),
    ],
)
def test_answers_that_do_not_fit_name_the_key(api: Api, answered: Any, answer: dict[str, Any], said: str) -> None:
    api.answer = lambda _: {"scores": answered}
    model = ss.open(api.url, endpoint=described("array", **answer))
    with pytest.raises(VictimError, match=said) as caught:
        model(data()[0])
    one_sentence(caught.value)
    assert api.count == 1


def test_gradients_are_refused_before_anything_is_asked(api: Api) -> None:
    x, y = data()
    model = ss.open(api.url, endpoint=described())
    of_labels = ss.open(api.url, endpoint=described(**{"is": "labels"}))
    for recipe in ("fgsm", "pgd:steps=3", "apgd", "deepfool"):
        with pytest.raises(GradientError, match=r"square or hop-skip-jump.*surrogate") as caught:
            ss.attack(model, x, y, threat=ss.linf(0.1), recipe=recipe)
        one_sentence(caught.value)
        with pytest.raises(GradientError):
            ss.audit(model, (x, y), threat=ss.linf(0.1), attacks=[recipe])
    with pytest.raises(ModelError, match=r"needs scores.*use hop-skip-jump"):
        ss.audit(of_labels, (x, y), threat=ss.linf(0.1), attacks=["square"])
    with pytest.raises(GradientError):
        ss.transfer([model], [model], (x, y), threat=ss.linf(0.1))
    with pytest.raises(GradientError):
        model(x.requires_grad_())
    assert api.count == 0


def test_a_surrogate_lends_its_gradients(api: Api) -> None:
    from api_server import Net

    x, y = data()
    model = ss.open(api.url, endpoint=described("png"))
    search = ss.Search(surrogate=Net(0.1))
    outcome = ss.attack(model, x, y, threat=ss.linf("32/255", grid=255), recipe="pgd:steps=5", search=search)
    assert int(outcome.fooled.sum()) > 0
    assert int(outcome.undetermined.sum()) == 0


def test_a_steady_endpoint_is_looked_at_once_more_and_no_more(api: Api) -> None:
    x, y = data()
    model = ss.open(api.url, endpoint=described("array", **{"is": "scores"}))
    result = ss.audit(model, (x, y), threat=ss.linf(0.1), attacks=["random-sign"], curve=False)
    assert not result.terms["random_model"]
    # two requests of 4 and 2 rows for the inputs, one look more, two for the control's verdict
    assert api.count == 5 == result.terms["requests"]["sent"]


def test_an_endpoint_that_changes_its_mind_is_a_random_model(api: Api) -> None:
    x, y = data(4)
    api.plan = dict.fromkeys(range(2, 400, 2), "fickle")
    model = ss.open(api.url, endpoint=described())
    result = ss.audit(model, (x, y), threat=ss.linf(0.1), attacks=["random-sign"], curve=False)
    assert result.terms["random_model"]
    assert result.terms["requests"]["contradictions"] > 0
    assert any("changed its mind" in note for note in result.notes)
    assert any("most of 32 held-out passes" in note for note in result.notes)


@pytest.mark.parametrize(
    ("x", "form", "said"),
    [
        (torch.rand(2, 3, 4, 4) * 3, "png", r"request\.pixels = \[0\.0, 1\.0\].*drop mean= and std="),
        (torch.rand(2, 48), "png", r"are no images.*request\.as = 'array'"),
        (torch.rand(2, 5), "record", r"has 5 numbers, and request\.fields names 48"),
    ],
)
def test_inputs_that_do_not_go_that_way_cost_nothing(api: Api, x: torch.Tensor, form: str, said: str) -> None:
    model = ss.open(api.url, endpoint=described(form))
    with pytest.raises(InputError, match=said):
        ss.attack(model, x, threat=ss.linf(0.1, box=None), recipe="square:queries=5")
    assert api.count == 0


def test_another_size_is_refused_before_anything_is_asked(api: Api) -> None:
    plain = described("png")
    plain["request"]["shape"] = [3, 8, 8]
    with pytest.raises(InputError, match=r"8, 8"):
        ss.attack(ss.open(api.url, endpoint=plain), *data(), threat=ss.linf(0.1), recipe="square:queries=5")
    assert api.count == 0


def test_the_answer_has_a_cap_that_can_be_raised(api: Api) -> None:
    api.plan = {1: "enormous"}
    model = ss.open(api.url, endpoint=described())
    with pytest.raises(VictimError, match="longer than 4194304 bytes; raise the cap"):
        model(data(1)[0])
    with ss.caps(text=100), pytest.raises(VictimError, match="longer than 100 bytes"):
        ss.open(api.url, endpoint=described())(data()[0])


def test_a_description_that_is_not_there(api: Api) -> None:
    with pytest.raises(LoadError, match=r"the description none\.toml does not exist"):
        ss.open(api.url, endpoint="none.toml")
    with pytest.raises(InputError, match="does not say what it takes and answers; describe it in a file"):
        ss.open(api.url)
    assert json.dumps(api.bodies and 1) == "[]"
