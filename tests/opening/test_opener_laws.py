"""Laws for every row of the table of openers, its own and those to come."""

from pathlib import Path
from typing import Any

import pytest
import torch
from samples import CLASSES, SAMPLES, SHAPE, data
from torch import Tensor

import signstep as ss
from signstep.errors import InputError, LoadError, SignstepError
from signstep.model.opening import OPENERS, Opener, open_model
from signstep.model.opening.table import opener_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of libraries
ROWS = list(OPENERS.own)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the rows that pass through modules which are no part of another one that is running."""
    counted, depth = [0], [0]
    inner = torch.nn.Module.__call__

    def call(self: torch.nn.Module, *args: Any, **named: Any) -> Any:
        counted[0] += len(args[0]) if depth[0] == 0 else 0
        depth[0] += 1
        try:
            return inner(self, *args, **named)
        finally:
            depth[0] -= 1

    monkeypatch.setattr(torch.nn.Module, "__call__", call)
    return counted


def test_every_row_has_a_sample() -> None:
    assert set(SAMPLES) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_an_opened_model_audits_as_the_same_model_by_factory(name: str, here: Path) -> None:
    sample = SAMPLES[name](here)
    opened = ss.open(sample.spec, **sample.options)
    x, y = data()
    asked = getattr(opened.network, "gradients", True) is False
    attacks, eps = (["square:queries=100"], 0.1) if asked else (["fgsm", "pgd:steps=4"], 0.05)
    found, wanted = (
        ss.audit(model, (x, y), threat=ss.linf(eps), attacks=attacks, curve=False) for model in (opened, sample.twin)
    )
    assert found.worst_case == wanted.worst_case
    assert [entry.fooled for entry in found.attacks] == [entry.fooled for entry in wanted.attacks]
    assert 0 < found.robust_accuracy < 1 or found.clean_accuracy < 1
    torch.testing.assert_close(opened(x), sample.twin(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ROWS)
def test_what_is_opened_says_where_it_came_from(name: str, here: Path) -> None:
    sample = SAMPLES[name](here)
    first, again = (ss.open(sample.spec, **sample.options) for _ in range(2))
    assert first.title == again.title
    assert first.name
    assert first.notes
    assert all(note and "\n" not in note for note in first.notes)
    assert first.hashes
    assert dict(first.hashes) == dict(again.hashes)
    assert all(len(digest) == 64 for digest in first.hashes.values())
    assert opener_of(sample.spec) is OPENERS.own[name]


@pytest.mark.parametrize("name", ROWS)
def test_opening_costs_one_pass_over_few_rows_at_most_and_leaves_the_generators(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, counted = SAMPLES[name](here), rows_passed(monkeypatch)
    before = torch.get_rng_state()
    ss.open(sample.spec, **sample.options)
    assert counted[0] <= (64 if name == "onnx" else 0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ROWS)
def test_a_file_that_broke_off_is_one_sentence_before_any_work(name: str, here: Path) -> None:
    sample = SAMPLES[name](here)
    if sample.broken is None:
        return
    sample.broken()
    with pytest.raises(LoadError) as caught:
        ss.open(sample.spec, **sample.options)
    one_sentence(caught.value)


@pytest.mark.parametrize("name", ROWS)
def test_what_a_row_does_not_take_is_refused_by_name(name: str, here: Path) -> None:
    sample, row = SAMPLES[name](here), OPENERS.own[name]
    if not row.weights:
        with pytest.raises(InputError, match=r"got weights=w\.pt; leave them out"):
            ss.open(sample.spec, weights="w.pt", **sample.options)
    if not row.args:
        with pytest.raises(InputError, match=r"got arguments \{'a': 1\}; leave them out"):
            ss.open(sample.spec, args={"a": 1}, **sample.options)


@pytest.mark.parametrize("name", ROWS)
def test_data_of_another_shape_is_refused_where_the_shape_is_known(name: str, here: Path) -> None:
    sample = SAMPLES[name](here)
    model = ss.open(sample.spec, shape=SHAPE, **sample.options)
    if model.shape is None:
        return
    with pytest.raises(InputError) as caught:
        ss.open(sample.spec, shape=(SHAPE[0], 60, 60), **sample.options)
    one_sentence(caught.value)


@pytest.mark.parametrize("name", ROWS)
def test_rows_say_what_they_are(name: str) -> None:
    row = OPENERS.own[name]
    assert row.name == name
    assert row.title
    assert row.example
    assert opener_of(row.example.replace("FILE", "file").replace("module:factory", "a:b")) is row


def test_no_two_rows_take_one_spelling() -> None:
    prefixes = [prefix for row in OPENERS.own.values() for prefix in row.prefixes]
    suffixes = [suffix for row in OPENERS.own.values() for suffix in row.suffixes]
    assert len(set(prefixes)) == len(prefixes)
    assert len(set(suffixes)) == len(suffixes)


def one_sentence(error: SignstepError) -> None:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 400
    assert any(mark in text for mark in (":", ";")), "it says what to do"


# Rows from outside.


def of_scores(wanted: Any) -> ss.Model:
    scores = torch.eye(CLASSES, dtype=torch.float32)
    return ss.Model(lambda x: x.flatten(1)[:, :CLASSES] @ scores, name=f"mine: {wanted.rest}")


def test_rows_can_be_added() -> None:
    row = Opener("registry", "of a model registry", "registry:NAME", of_scores, prefixes=("registry:",))
    with OPENERS.lent(row):
        assert ss.open("registry:champion").title == "mine: champion"
        with pytest.raises(InputError, match="whole model with its own weights, got weights=w"):
            ss.open("registry:champion", weights="w")
    with pytest.raises(InputError, match=r"module:factory|has no champion|no module registry"):
        ss.open("registry:champion")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (3, "has no name"),
        (Opener("x", "", "", of_scores, prefixes=("hf:",)), "let it take 'x:'"),
        (Opener("x", "", "", of_scores, suffixes=("mine",)), "endings such as .x"),
        (Opener("x", "", "", of_scores), "it opens nothing"),
        (Opener("factory", "", "", of_scores, prefixes=("factory:",)), "is taken"),
    ],
)
def test_rows_that_cannot_be_used(row: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        OPENERS.add(row)


def test_what_is_no_row_is_said_to_be_none() -> None:
    with pytest.raises(InputError, match=r"it is a int; name a signstep.model"):
        OPENERS.add(3, name="y")


def test_a_model_that_is_open_is_not_opened() -> None:
    def net(x: Tensor) -> Tensor:
        return x

    with pytest.raises(InputError, match=r"spec is a function; pass a name or a path, or ss.Model"):
        open_model(net)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="mode='train'"):
        open_model("torch.nn:Identity", mode="train")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shape="):
        open_model("torch.nn:Identity", shape=(0,))
