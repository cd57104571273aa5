"""A factory may return a module, an `ss.Model`, a victim, an estimator, or any callable; other things are named."""

from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import data, needs

import signstep as ss
from signstep.errors import InputError, ModelError
from signstep.model.opening import open_model
from signstep.model.victims.arrays import Array
from signstep.model.victims.estimator import EstimatorVictim

NUMBERS = count()
W = np.random.default_rng(0).normal(size=(108, 3))


def scores(x: Array) -> Array:
    found: Array = x.reshape(len(x), -1) @ W
    return found


SOURCE = """
import numpy as np
import torch
from torch import nn
import signstep as ss
from signstep.model import victims

W = np.random.default_rng(0).normal(size=(108, 3))

def scores(x):
    return x.reshape(len(x), -1).astype(float) @ W

def module():
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 3))

def declared():
    return ss.Model(module(), mean=0.5, std=0.25, classes=("a", "b", "c"), name="mine", mode="keep")

ready = ss.Model(module(), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
victim = victims.from_numpy(scores)

def asked():
    return victims.from_numpy(scores)

def function():
    weight = torch.from_numpy(W).float()
    return lambda x: x.flatten(1) @ weight

def array_function():
    return scores

def answers(x):
    return scores(x)

def state():
    return module().state_dict()

def nothing():
    return None

class Keras:
    __module__ = "keras.src.models"
    def predict(self, x): return x
    def __call__(self, x): return x
def keras():
    return Keras()

class Pipeline:
    __module__ = "transformers.pipelines.base"
    def __call__(self, x): return x
pipe = Pipeline()
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"signstep_test_returns_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_declaration_holds(mine: str) -> None:
    model = open_model(f"{mine}:declared")
    assert (model.mean, model.std, model.classes, model.title, model.mode) == (
        0.5,
        0.25,
        ("a", "b", "c"),
        "mine",
        "keep",
    )
    assert model.module.training, "mode='keep' is declared"
    assert set(model.hashes) == {"code", "weights"}
    assert open_model(f"{mine}:ready").mean == (0.5, 0.5, 0.5)


def test_weights_go_into_the_network_of_a_declaration(mine: str) -> None:
    from safetensors.torch import save_file

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, 3))
    save_file(network.state_dict(), "w.safetensors")
    model = open_model(f"{mine}:declared", weights="w.safetensors")
    x, _ = data()
    torch.testing.assert_close(model(x), network((x - 0.5) / 0.25))
    assert model.title == "mine with w.safetensors"
    with pytest.raises(InputError, match=r"weights='w.safetensors' need an nn.Module, and .* a ArrayVictim"):
        open_model(f"{mine}:asked", weights="w.safetensors")


@pytest.mark.parametrize("name", ["victim", "asked"])
def test_victims_are_asked(mine: str, name: str) -> None:
    model = open_model(f"{mine}:{name}")
    x, y = data()
    outcome = ss.attack(model, x, y, threat=ss.linf(0.3), recipe="square:queries=30")
    assert int(outcome.backwards.sum()) == 0
    assert model.notes == ()


def test_any_callable_is_a_model(mine: str) -> None:
    model, (x, y) = open_model(f"{mine}:function"), data()
    assert int(ss.attack(model, x, y, threat=ss.linf(0.3)).fooled.sum()) > 0


@pytest.mark.usefixtures("mine")
def test_an_estimator_is_asked_for_its_best_answer() -> None:
    needs("sklearn")
    Path("fittedhere.py").write_text("from samples import fitted as build\nready = build()\n")
    made, model = (open_model(f"fittedhere:{name}") for name in ("build", "ready"))
    assert made.classes == model.classes == ("ape", "bee", "cat")
    assert "gives no gradients" in model.notes[0]
    x, _ = data()
    assert isinstance(model.network, EstimatorVictim)
    told = model.network.estimator.predict(x.flatten(1).numpy())
    assert [model.classes[place] for place in model(x).argmax(1)] == told.tolist()
    with pytest.raises(InputError, match=r"was fitted with 108 features, an input of shape \(3, 3, 3\) has 27"):
        model(x[:, :, :3, :3])


@pytest.mark.usefixtures("mine")
def test_labels_that_are_no_positions_are_said() -> None:
    needs("sklearn")
    Path("oddlabels.py").write_text(
        "from sklearn.dummy import DummyClassifier\n"
        "def build():\n    return DummyClassifier().fit([[0], [1]], [3, 7])\n"
        "def unfitted():\n    return DummyClassifier()\n"
    )
    assert open_model("oddlabels:build").notes[1] == "labels count positions in its classes_: 3, 7"
    with pytest.raises(InputError, match="has no classes_; fit it first"):
        open_model("oddlabels:unfitted")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "answers",
            r"takes \(x\), got no arguments .* signstep.model.victims.from_numpy of it where it works on arrays",
        ),
        ("state", r"returned a state dict; return the module with these weights, or pass weights=FILE"),
        ("nothing", "returned a NoneType; the factory must return a torch.nn.Module"),
        ("keras", "is a Keras of keras; export it to ONNX"),
        ("pipe", "is a transformers pipeline, which hides its gradients; pass 'hf:FOLDER'"),
        ("W", "is a ndarray; name a function or class that returns an nn.Module"),
    ],
)
def test_what_is_no_model_is_named_with_the_way_out(mine: str, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_model(f"{mine}:{name}")


def test_a_function_on_arrays_is_told_when_it_is_asked(mine: str) -> None:
    x, y = data()
    with pytest.raises(ModelError, match=r"cannot be called with tensors \(.*astype.*victims.from_numpy"):
        ss.attack(open_model(f"{mine}:array_function"), x, y, threat=ss.linf(0.1))
    with pytest.raises(ModelError, match=r"returned an array of shape \(24, 3\); pass .*victims.from_numpy"):
        ss.attack(lambda x: scores(x.detach().numpy()), x, y, threat=ss.linf(0.1))
