import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from signstep.cli.first import refuse_missing
from signstep.data import open_data
from signstep.errors import InputError, LoadError
from signstep.model.opening import open_model
from signstep.model.opening.weights import load_weights

SHARED = Path(__file__).parents[2] / ".." / "shared"
HAS_SHARED = (SHARED / "models").is_dir() and (SHARED / "data").is_dir()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.last = nn.Linear(2, 2)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(3, 3)
        self.out = self.into


def trained() -> dict[str, Tensor]:
    return {name: torch.rand_like(value) if value.ndim else value for name, value in Net().state_dict().items()}


def loaded(content: object, folder: Path) -> tuple[Net, tuple[str, ...]]:
    path = folder / "net.pt"
    torch.save(content, path)
    model = Net()
    return model, load_weights(model, path)


def same(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    state = model.state_dict()
    return all(torch.equal(state[name], value) for name, value in weights.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".th"])
def test_weights_of_all_suffixes(tmp_path: Path, suffix: str) -> None:
    weights, path, model = trained(), tmp_path / f"net{suffix}", Net()
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    assert load_weights(model, path) == ()
    assert same(model, weights)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_checkpoints_are_unwrapped_and_it_is_noted(tmp_path: Path, key: str) -> None:
    weights = trained()
    model, notes = loaded({"epoch": 3, "best": 0.9, key: OrderedDict(weights)}, tmp_path)
    assert same(model, weights)
    assert notes == (f"weights taken from the entry '{key}'",)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "_orig_mod.module."])
def test_prefixes_are_removed_and_it_is_noted(tmp_path: Path, prefix: str) -> None:
    weights = trained()
    model, notes = loaded({"state_dict": {f"{prefix}{name}": value for name, value in weights.items()}}, tmp_path)
    assert same(model, weights)
    assert notes[0] == "weights taken from the entry 'state_dict'"
    assert [f"the prefix '{part}.' removed from all names" for part in prefix.split(".")[:-1]] == list(notes[1:])


def test_a_prefix_that_belongs_to_the_model_stays(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    inner = nn.Linear(2, 2)
    model = nn.ModuleDict({"model": nn.Linear(2, 2)})
    torch.save({f"model.{name}": value for name, value in inner.state_dict().items()}, path)
    assert load_weights(model, path) == ()
    assert same(model["model"], inner.state_dict())


def test_missing_counters_shared_tensors_and_other_precisions(tmp_path: Path) -> None:
    weights = {name: value for name, value in trained().items() if "tracked" not in name}
    model, notes = loaded({name: value.half() for name, value in weights.items()}, tmp_path)
    assert same(model, {name: value.half().float() for name, value in weights.items()})
    assert notes == (
        "1 BatchNorm counter(s) missing, which do not matter",
        "weights stored as float16 converted to the model's own precision",
    )
    path, tied = tmp_path / "tied.safetensors", Tied()
    save_file({"into.weight": torch.ones(3, 3), "into.bias": torch.ones(3)}, path)
    load_weights(tied, path)
    assert tied.out.weight.eq(1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"last.bias": None}, r"does not fit the model: 1 missing \(last.bias\); pass the architecture"),
        ({"more": torch.ones(1)}, r"1 not in the model \(more\)"),
        ({"last.bias": torch.ones(7)}, r"1 of another shape \(last.bias \(7,\) instead of \(2,\)\)"),
        (
            {"last.bias": None, "last.weight": None, "first.bias": None, "first.weight": None},
            r"4 missing \(.*, \.\.\.\)",
        ),
        ({"last.bias": torch.tensor([1, float("nan")])}, "last.bias holds 1 NaN or infinite value"),
        ({"norm.running_var": torch.tensor([float("inf")] * 2)}, "norm.running_var holds 2 NaN or infinite value"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, change: dict[str, Tensor | None], message: str) -> None:
    weights = {name: value for name, value in (trained() | change).items() if value is not None}
    with pytest.raises(LoadError, match=message):
        loaded(weights, tmp_path)


def test_a_misfit_is_reported_for_the_best_reading(tmp_path: Path) -> None:
    weights = {f"module.{name}": value for name, value in trained().items() if name != "last.bias"}
    with pytest.raises(LoadError, match=r"model: 1 missing \(last.bias\); pass"):
        loaded({"state_dict": weights}, tmp_path)


def test_the_model_is_left_alone_when_the_weights_are_refused(tmp_path: Path) -> None:
    model, path = Net(), tmp_path / "net.pt"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(trained() | {"last.bias": torch.tensor([1, float("nan")])}, path)
    with pytest.raises(LoadError):
        load_weights(model, path)
    assert same(model, before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Net(), r"holds Python objects \(.*Net\) besides tensors, and unpickling those can run code; save the weights"),
        ({"state_dict": trained(), "args": Path()}, r"holds Python objects \(pathlib.*\) besides tensors"),
        (torch.ones(3), "holds no named tensors; save the weights alone"),
        ({"epoch": 3}, "holds no named tensors; save the weights alone"),
        ({}, "holds no named tensors; save the weights alone"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        loaded(content, tmp_path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(
        LoadError, match=r"is a TorchScript program, and loading one runs code from it; save the weights"
    ):
        load_weights(nn.Linear(2, 2), path)


@pytest.mark.parametrize(("suffix", "kind"), [(".safetensors", "readable safetensors"), (".pt", "PyTorch weights")])
def test_damaged_files(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"net{suffix}"
    if suffix == ".pt":
        torch.save(trained(), path)
    else:
        save_file(trained(), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"some words, no weights", b""):
        path.write_bytes(content)
        with pytest.raises(LoadError, match=f"is no {kind} file"):
            load_weights(Net(), path)


def test_a_missing_file() -> None:
    with pytest.raises(LoadError, match=r"the weights file none.pt does not exist"):
        open_model("signstep.networks.small:digits_cnn", weights="none.pt")


@pytest.mark.parametrize("place", ["s3://bucket/w.safetensors", "https://host/w.pt", "file:///w.pt"])
def test_a_uri_is_no_weights_file(place: str) -> None:
    said = "is a URI, and only a file on this machine is read here; download it and pass its path"
    with pytest.raises(LoadError, match=f"^the weights file {place} {said}"):
        open_model("signstep.networks.small:digits_cnn", weights=place)
    with pytest.raises(LoadError, match=f"^weights='{place}' {said}"):
        refuse_missing("weights", Path(place))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".th", ".ckpt", ".bin"])
def test_weights_need_an_architecture(suffix: str) -> None:
    with pytest.raises(
        InputError, match=f"net{suffix} holds weights, which need an architecture; pass 'module:factory', weights="
    ):
        open_model(f"net{suffix}")


@pytest.mark.skipif(not HAS_SHARED, reason="needs ../shared/models and ../shared/data beside the checkout")
@pytest.mark.parametrize(
    ("factory", "weights", "data", "accuracy"),
    [
        ("mnist_cnn", "mnist_standard", "mnist", 0.9882),
        ("cifar10_small", "cifar10_small_n_fgsm", "cifar10/test_first1000.npz", 0.625),
    ],
)
def test_the_reference_models_score_as_documented(factory: str, weights: str, data: str, accuracy: float) -> None:
    path = SHARED / "models" / f"{weights}.safetensors"
    loaded = open_model(f"signstep.networks.small:{factory}", weights=path)
    assert loaded.hashes["weights"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.notes, loaded.title) == ((), f"signstep.networks.small:{factory} with {path}")
    with torch.no_grad():
        right = [(loaded.module(x).argmax(1) == y) for x, y in open_data(SHARED / "data" / data, batch_size=500)]
    assert torch.cat(right).double().mean().item() == pytest.approx(accuracy, abs=1e-9)


@pytest.mark.skipif(not HAS_SHARED, reason="needs ../shared/models beside the checkout")
def test_a_public_checkpoint_is_unwrapped() -> None:
    path = SHARED / "models" / "cifar10_resnet20.th"
    with pytest.raises(LoadError, match=r"does not fit the model: .* missing \(first.weight, first.bias, norm.weight"):
        load_weights(Net(), path)
    content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    skeleton = _Skeleton({name.removeprefix("module."): value for name, value in content["state_dict"].items()})
    notes = load_weights(skeleton, path)
    assert notes == ("weights taken from the entry 'state_dict'", "the prefix 'module.' removed from all names")


class _Skeleton(nn.Module):
    """A module with the given names and shapes."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        for name, value in weights.items():
            *path, last = name.split(".")
            module: nn.Module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            module.register_buffer(last, torch.zeros_like(value))
