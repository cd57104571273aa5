"""Classifiers of torchvision and timm: the input space that these state is used. Nothing is downloaded here."""

import json
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from samples import IMAGENET, data, needs, seeded

import signstep as ss
from signstep.cli import main
from signstep.errors import InputError, LoadError, MissingExtraError

NAME, SHAPE = "torchvision:mobilenet_v3_small", (3, 224, 224)
RANDOM: dict[str, Any] = {"args": {"weights": None}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# With the libraries.


@pytest.mark.vision
def test_the_published_weights_state_the_input_space() -> None:
    needs("torchvision")
    model = ss.open(NAME, shape=SHAPE, **RANDOM)
    assert (model.mean, model.std, model.shape) == (IMAGENET["mean"], IMAGENET["std"], SHAPE)
    assert model.title == NAME
    assert len(model.classes) == 1000
    assert model.classes[0] == "tench"
    assert model.notes[0] == "normalised as MobileNet_V3_Small_Weights.IMAGENET1K_V1 is"
    assert "its weights are random, drawn with seed 0" in model.notes
    with pytest.raises(InputError, match=r"these have \(3, 32, 32\); bring images there with resize=\(224, 224\)"):
        ss.open(NAME, shape=(3, 32, 32), **RANDOM)


@pytest.mark.vision
def test_another_head_and_a_file_of_weights() -> None:
    needs("torchvision")
    import torchvision.models
    from safetensors.torch import save_file

    network = seeded(lambda: torchvision.models.get_model("mobilenet_v3_small", weights=None, num_classes=4))
    with torch.no_grad():
        next(network.parameters()).mul_(1.5)
    save_file(network.state_dict(), "trained.safetensors")
    model = ss.open(NAME, weights="trained.safetensors", args={"num_classes": 4})
    x, _ = data(2, SHAPE)
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in IMAGENET.values())
    torch.testing.assert_close(model(x), network((x - mean) / std), rtol=1e-4, atol=1e-5)
    assert model.classes == ()
    assert model.title == f"{NAME} with trained.safetensors"
    with pytest.raises(LoadError, match="does not fit the model"):
        ss.open(NAME, weights="trained.safetensors")


@pytest.mark.vision
def test_the_weights_of_the_library_are_fetched_or_the_place_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("torchvision")
    import torchvision.models

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", offline)
    with pytest.raises(LoadError, match=r"cannot be made \(OSError: no route to host\); download https://.*\.pth"):
        ss.open(NAME)
    network = seeded(lambda: torchvision.models.get_model("mobilenet_v3_small", weights=None))
    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", lambda *_, **__: network.state_dict())
    for given in ({}, {"weights": "IMAGENET1K_V1"}):
        model = ss.open(NAME, args=given)
        assert "weights IMAGENET1K_V1 of torchvision" in model.notes
    with pytest.raises(InputError, match=r"has no weights 'BEST'; pass one of IMAGENET1K_V1, DEFAULT or none"):
        ss.open(NAME, args={"weights": "BEST"})


@pytest.mark.vision
def test_names_and_arguments_that_there_are_none_of() -> None:
    needs("torchvision", "timm")
    with pytest.raises(InputError, match=r"no classifier 'resnet19'; did you mean torchvision:resnet18\?|resnet1"):
        ss.open("torchvision:resnet19")
    with pytest.raises(InputError, match=r"timm has no classifier 'test_resnett'; did you mean timm:test_resnet"):
        ss.open("timm:test_resnett")
    with pytest.raises(InputError, match="torchvision has no classifier 'fcn_resnet50'"):
        ss.open("torchvision:fcn_resnet50")
    with pytest.raises(InputError, match=r"model_args='width' is none of timm:test_resnet; pass pretrained"):
        ss.open("timm:test_resnet", args={"width": 3})


@pytest.mark.vision
def test_timm_states_the_input_space() -> None:
    needs("timm")
    import timm

    model = ss.open("timm:test_resnet", args={"pretrained": False, "num_classes": 4})
    stated = timm.data.resolve_model_data_config(timm.create_model("test_resnet", pretrained=False))
    assert (model.mean, model.std, model.shape) == (stated["mean"], stated["std"], stated["input_size"])
    x, _ = data(2, (3, 160, 160))
    assert model(x).shape == (2, 4)
    network = seeded(lambda: timm.create_model("test_resnet", pretrained=False))
    torch.save(network.state_dict(), "trained.pth")
    again = ss.open("timm:test_resnet", weights="trained.pth")
    assert again.title == "timm:test_resnet with trained.pth"
    assert set(again.hashes) == {"weights"}


@pytest.mark.vision
@pytest.mark.parametrize(
    ("spec", "arg", "size"), [(NAME, "weights=none", 224), ("timm:test_resnet", "pretrained=false", 160)]
)
def test_they_are_audited_by_a_command_and_verified(
    spec: str, arg: str, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("torchvision", "timm")
    x, _ = data(3, (3, size, size))
    np.savez("test.npz", x=x.numpy(), y=np.arange(3))
    words = ["--model", spec, "--model-arg", arg, "--data", "test.npz"]
    assert main(["audit", *words, "--threat", "linf:4/255", "--attack", "fgsm", "--curve", "none"]) == 0
    record = json.loads(Path("signstep-report/result.json").read_text())
    assert record["model"] == spec
    assert record["terms"]["input_space"]["mean"] is not None
    capsys.readouterr()
    assert main(["verify", "signstep-report", *words]) == 0, capsys.readouterr().out
    assert main(["audit", *words, "--threat", "linf:4/255", "--mean", "0.5", "--std", "0.5"]) == 2
    assert f"--mean 0.5 says again what {spec} declares itself" in capsys.readouterr().err


# Without them.


def test_what_is_missing_or_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    for name in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises((MissingExtraError, LoadError), match=rf"{name}.*signstep\[vision\]|{name} imports"):
            ss.open(f"{name}:resnet18")
        monkeypatch.delitem(sys.modules, name)
    broken = here / "elsewhere" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(str(broken.parent))
    with pytest.raises(LoadError, match=r"torchvision does not import beside torch .*nms does not exist"):
        ss.open("torchvision:resnet18")


def test_the_row_uses_what_the_library_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row on a stand-in for the library, where this does not import."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))
    network(torch.zeros(1, 3, 8, 8))

    class Weights:
        DEFAULT: Any = None
        name = "IMAGENET1K_V1"
        url = "https://example.org/net.pth"
        meta: ClassVar[dict[str, Any]] = {"categories": ["ape", "bee", "cat"]}

        def transforms(self) -> Any:
            return types.SimpleNamespace(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], crop_size=[8])

    class Table(type):
        def __iter__(cls) -> Any:
            return iter([Weights.DEFAULT])

    table = Table("Table", (Weights,), {})
    Weights.DEFAULT = table()
    models = types.SimpleNamespace(
        list_models=lambda module: ["net"],  # noqa: ARG005
        get_model_weights=lambda name: table,  # noqa: ARG005
        get_model=lambda name, weights=None, **_: network,  # noqa: ARG005
    )
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))
    model = ss.open("torchvision:net", shape=(3, 8, 8))
    assert (model.mean, model.std, model.shape) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (3, 8, 8))
    assert model.classes == ("ape", "bee", "cat")
    with pytest.raises(InputError, match="torchvision has no classifier 'nett'; did you mean torchvision:net"):
        ss.open("torchvision:nett")
