import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import nn

from signstep.errors import InputError, LoadError
from signstep.model.opening import open_model, parse_args

SOURCE = """
import torch
from torch import nn

def build(width=3, *, bias: bool = True):
    return nn.Linear(2, width, bias=bias)

class Net(nn.Linear):
    def __init__(self):
        super().__init__(2, 3)
        self.drop = nn.Dropout()

ready = nn.Linear(2, 5)
number = 7

def gives_text():
    return "no model"

def fails():
    raise RuntimeError("out of ideas")

def late():
    import {name}_part
    return {name}_part.ready
"""
NUMBERS = count()


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a fresh module in the current folder."""
    name = f"signstep_test_zoo_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(SOURCE.format(name=name))
    (tmp_path / f"{name}_part.py").write_text("from torch import nn\nready = nn.Linear(1, 1)\n")
    monkeypatch.chdir(tmp_path)
    yield name
    for loaded in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[loaded]


def test_functions_classes_and_models_are_found_in_the_current_folder(zoo: str) -> None:
    path = list(sys.path)
    for name, outputs in (("build", 3), ("Net", 3), ("ready", 5), ("late", 1)):
        loaded = open_model(f"{zoo}:{name}")
        assert isinstance(loaded.module, nn.Linear)
        assert loaded.module.out_features == outputs
        assert not any(module.training for module in loaded.module.modules())
        assert loaded.title == f"{zoo}:{name}"
        assert loaded.notes == ("no file of weights given: the model is as the factory made it",)
        assert set(loaded.hashes) == {"weights", "code"}
    assert sys.path == path


def test_arguments_reach_the_factory(zoo: str) -> None:
    model = open_model(f"{zoo}:build", args={"width": 9, "bias": False}).module
    assert isinstance(model, nn.Linear)
    assert model.out_features == 9
    assert [name for name, _ in model.named_parameters()] == ["weight"]


def test_initial_weights_repeat_and_the_global_generator_is_left_alone(zoo: str) -> None:
    before = torch.get_rng_state()
    one, two = (open_model(f"{zoo}:build").module for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("spec", ["resnet", "zoo:", ":build", "zoo:build()", "zoo:a:b", "a b:build", ""])
def test_malformed_specs(spec: str) -> None:
    with pytest.raises(InputError, match=r"a model is written module:factory, got .*; write my_model:build"):
        open_model(spec)


@pytest.mark.parametrize("spec", ["my_zoo/nets.py:build", "./my_zoo/nets.py:build", "my_zoo/nets:build"])
def test_a_path_in_place_of_a_module(spec: str) -> None:
    with pytest.raises(InputError, match=r"as Python imports it, e.g. my_zoo.nets:build"):
        open_model(spec)


def test_no_such_module(zoo: str) -> None:
    with pytest.raises(InputError, match=f"there is no module {zoo}x to import from .*; did you mean {zoo}"):
        open_model(f"{zoo}x:build")
    with pytest.raises(InputError, match=r"there is no module wholly_other .*; run from the folder that holds it"):
        open_model("wholly_other.part:build")
    with pytest.raises(InputError, match=f"there is no module {zoo}.part to import"):
        open_model(f"{zoo}.part:build")


def test_a_module_that_imports_something_missing(zoo: str) -> None:
    Path(f"{zoo}_needy.py").write_text("import absent_package\n")
    with pytest.raises(LoadError, match=f"the module {zoo}_needy imports absent_package, which is not installed"):
        open_model(f"{zoo}_needy:build")


def test_a_module_that_fails(zoo: str) -> None:
    Path(f"{zoo}_broken.py").write_text("def build(:\n")
    with pytest.raises(LoadError, match=f"importing {zoo}_broken failed with SyntaxError"):
        open_model(f"{zoo}_broken:build")


def test_no_such_name(zoo: str) -> None:
    with pytest.raises(InputError, match=r"has no biuld; did you mean build\?"):
        open_model(f"{zoo}:biuld")
    with pytest.raises(InputError, match=r"has no xyz; it defines build, Net, gives_text, fails, late"):
        open_model(f"{zoo}:xyz")


def test_something_that_is_no_factory(zoo: str) -> None:
    with pytest.raises(InputError, match=r"number is a int; name a function or class that returns an nn.Module"):
        open_model(f"{zoo}:number")
    with pytest.raises(InputError, match=r"gives_text returned a str; the factory must return a torch.nn.Module"):
        open_model(f"{zoo}:gives_text")


def test_arguments_that_do_not_fit(zoo: str) -> None:
    with pytest.raises(InputError, match=r"takes \(width=3, \*, bias: bool = True\), got widht=4 \(.*'widht'\)"):
        open_model(f"{zoo}:build", args={"widht": 4})
    with pytest.raises(InputError, match=r"ready is a finished model and takes no arguments, got width=4"):
        open_model(f"{zoo}:ready", args={"width": 4})


def test_a_factory_that_raises(zoo: str) -> None:
    with pytest.raises(LoadError, match=r"fails raised RuntimeError: out of ideas; called with no arguments"):
        open_model(f"{zoo}:fails")
    with pytest.raises(LoadError, match=r"build raised TypeError: .*; called with width='wide'"):
        open_model(f"{zoo}:build", args={"width": "wide"})


def test_arguments_from_text() -> None:
    pairs = [
        "a=3",
        "b=1e-3",
        "c=true",
        "d=False",
        "e=none",
        "f=batch",
        "g='7'",
        "h=x=y",
        "i=",
        "j=(1, 2)",
        "k=3or",
        "l=08",
    ]
    assert parse_args(pairs) == {
        "a": 3,
        "b": 0.001,
        "c": True,
        "d": False,
        "e": None,
        "f": "batch",
        "g": "7",
        "h": "x=y",
        "i": "",
        "j": (1, 2),
        "k": "3or",
        "l": "08",
    }
    assert parse_args([]) == {}


@pytest.mark.parametrize("pair", ["width", "=3", "3a=1", "a b=1", ""])
def test_malformed_arguments(pair: str) -> None:
    with pytest.raises(InputError, match=f"model_args='{pair}' is not NAME=VALUE"):
        parse_args([pair])


def test_repeated_arguments() -> None:
    with pytest.raises(InputError, match=r"model_args='a' is given twice: 1 and '2'"):
        parse_args(["a=1", "a=2"])
