"""Classifiers of images of the transformers library: what their folders say is used, and what is missing is said."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples import SHAPE, data, halved, needs, saved_vit, vit
from torch import nn

import signstep as ss
from signstep.cli import main
from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.model.opening.huggingface import class_names
from signstep.model.opening.image_processor import preparation
from signstep.model.opening.pretrained import quiet

PLACE = Path("vit")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    needs("transformers", "PIL")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edited(path: Path, **changes: Any) -> None:
    """A file of JSON with other entries; None drops one."""
    plain = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in plain.items() if value is not None}))


# What a processor does.


def resnet(folder: Path, processor: Any) -> nn.Module:
    """A small network for images of any size, with any processor."""
    import transformers

    settings: dict[str, Any] = {"embedding_size": 4, "hidden_sizes": [4], "depths": [1], "num_labels": 3}
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        network: Any = transformers.ResNetForImageClassification(transformers.ResNetConfig(**settings))
        network.eval()
        network.save_pretrained(folder)
        processor.save_pretrained(folder)
    made: nn.Module = network
    return made


HALF = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
SQUARE = {"size": {"height": 32, "width": 32}}
CROP = {"crop_size": {"height": 32, "width": 32}}
EDGE = {"size": {"shortest_edge": 36}}
PROCESSORS: dict[str, tuple[str, dict[str, Any], tuple[int | None, int | None]]] = {
    "height and width": ("ViTImageProcessor", {**SQUARE, **HALF}, (32, 32)),
    "no rescaling": ("ViTImageProcessor", {**SQUARE, "do_rescale": False, "image_mean": [120.0] * 3}, (32, 32)),
    "no normalisation": ("ViTImageProcessor", {**SQUARE, "do_normalize": False}, (32, 32)),
    "neither": ("ViTImageProcessor", {**SQUARE, "do_normalize": False, "do_rescale": False}, (32, 32)),
    "another factor": ("ViTImageProcessor", {**SQUARE, **HALF, "rescale_factor": 1 / 127.5}, (32, 32)),
    "no resizing": ("ViTImageProcessor", {"do_resize": False, **HALF}, (None, None)),
    "one number": ("ViTImageProcessor", {**SQUARE, "image_mean": 0.3, "image_std": 0.2}, (32, 32)),
    "shortest edge, cropped": (
        "CLIPImageProcessor",
        {**EDGE, **CROP},
        (32, 32),
    ),
    "shortest edge alone": (
        "CLIPImageProcessor",
        {**EDGE, "do_center_crop": False},
        (None, None),
    ),
    "a share cropped": ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.875}, (32, 32)),
    "normalised twice": ("EfficientNetImageProcessor", {**SQUARE, **HALF, "include_top": True}, (32, 32)),
    "an offset": (
        "EfficientNetImageProcessor",
        {**SQUARE, **HALF, "rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False},
        (32, 32),
    ),
    "blue first": ("MobileViTImageProcessor", {**EDGE, **CROP}, (32, 32)),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_raw_pixels_reach_the_network_as_the_processor_would_pass_them(name: str) -> None:
    """The law: what a `Model` answers to raw pixels is what the network answers to the processor's."""
    import transformers

    kind, settings, size = PROCESSORS[name]
    with quiet():
        processor = getattr(transformers, kind)(**settings)
    network = resnet(PLACE, processor)
    model = ss.open("hf:vit")
    assert model.shape == (3, *size)
    edge = 36 if name == "shortest edge alone" else 32
    levels = np.random.default_rng(0).integers(0, 256, size=(4, 3, edge, edge), dtype=np.uint8)
    flat = np.broadcast_to(levels[:, :, :1, :1], levels.shape)  # of one colour each: their size changes nothing
    seen = processor(images=[image.transpose(1, 2, 0) for image in flat], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        wanted = network(torch.as_tensor(seen, dtype=torch.float32)).logits
        found = model(torch.from_numpy(flat.copy()).float() / 255)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_mean_and_std_are_those_of_the_file_to_the_last_bit() -> None:
    values = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    network = saved_vit(PLACE, **values)
    model, (x, y) = ss.open("hf:vit"), data()
    assert (model.mean, model.std) == (tuple(values["image_mean"]), tuple(values["image_std"]))
    twin = ss.Model(network, mean=values["image_mean"], std=values["image_std"])
    one, other = (ss.attack(m, x, y, threat=ss.linf(0.05), recipe="pgd:steps=3") for m in (model, twin))
    assert isinstance(one.x, torch.Tensor)
    assert isinstance(other.x, torch.Tensor)
    assert torch.equal(one.x, other.x)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("ImageGPTImageProcessor", {"clusters": [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]}, "no pixel_values; pass a factory"),
        ("DonutImageProcessor", {"size": {"height": 48, "width": 32}}, "so it pads or masks; pass a factory"),
    ],
)
def test_a_processor_that_does_something_else_is_refused(kind: str, settings: Mapping[str, Any], said: str) -> None:
    import transformers

    with quiet():
        resnet(PLACE, getattr(transformers, kind)(**settings))
    with pytest.raises(LoadError, match=said):
        preparation(PLACE, 3, trust=False)


def test_a_grey_network_gets_one_channel() -> None:
    import transformers

    config = transformers.ViTConfig(
        image_size=6, patch_size=3, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_channels=1
    )
    with torch.random.fork_rng(devices=[]), quiet():
        transformers.ViTForImageClassification(config).save_pretrained(PLACE)
        processor = transformers.ViTImageProcessor(size={"height": 6, "width": 6}, image_mean=[0.1], image_std=[0.3])
        processor.save_pretrained(PLACE)
    model = ss.open("hf:vit")
    assert (model.shape, model.mean, model.std) == ((1, 6, 6), (0.1,), (0.3,))
    with pytest.raises(InputError, match=r"of shape \(1, 6, 6\), these have \(3, 6, 6\); pass grey images"):
        ss.open("hf:vit", shape=(3, 6, 6))


# What a folder holds.


def test_what_a_folder_says_is_declared() -> None:
    saved_vit(PLACE)
    model = ss.open("hf:vit")
    assert model.title == "vit (ViTForImageClassification)"
    assert model.classes == ("ape", "bee", "cat")
    assert model.shape == SHAPE
    assert set(model.hashes) == {"weights", "config"}
    assert model.notes == ("normalised by its processor: mean 0.4, 0.5, 0.6, std 0.5, 0.5, 0.5",)


def test_several_labels_at_once_are_a_task() -> None:
    saved_vit(PLACE)
    edited(PLACE / "config.json", problem_type="multi_label_classification")
    assert ss.open("hf:vit").task == "multilabel"


def test_weights_in_half_precision_are_converted_and_noted() -> None:
    network = saved_vit(PLACE).bfloat16()
    with quiet():
        network.save_pretrained(PLACE)  # type: ignore[operator]
    model = ss.open("hf:vit")
    assert {part.dtype for part in model.module.parameters()} == {torch.float32}
    assert model.notes[-1] == "weights stored as bfloat16 converted to float32"


def test_weights_of_a_training_go_into_the_same_architecture() -> None:
    from safetensors.torch import save_file

    network = saved_vit(PLACE)
    with torch.no_grad():
        network.classifier.bias.add_(1.0)  # type: ignore[union-attr, operator]
    save_file(network.state_dict(), "trained.safetensors")
    (PLACE / "model.safetensors").unlink()  # they are not needed then
    model, (x, _) = ss.open("hf:vit", weights="trained.safetensors"), data()
    torch.testing.assert_close(model.module(x).logits, network(x).logits)
    assert model.title == "vit (ViTForImageClassification) with trained.safetensors"


def missing_shard(place: Path) -> None:
    table = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (place / "model.safetensors").rename(place / "model-00001-of-00002.safetensors")
    (place / "model.safetensors.index.json").write_text(json.dumps(table))


def outside_shard(place: Path) -> None:
    (place / "model.safetensors").rename("elsewhere.safetensors")
    table = {"weight_map": {"a": "../elsewhere.safetensors"}}
    (place / "model.safetensors.index.json").write_text(json.dumps(table))


def headless(place: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(place / "model.safetensors")
    save_file({n: w for n, w in weights.items() if "classifier" not in n}, place / "model.safetensors")


def renumbered(place: Path) -> None:
    edited(place / "config.json", id2label={"0": "ape", "1": "bee", "3": "cat"}, label2id=None)


def contradicting(place: Path) -> None:
    edited(place / "config.json", label2id={"ape": 2, "bee": 1, "cat": 0})


def no_head(place: Path) -> None:
    edited(place / "config.json", architectures=["ViTModel"])


SPOILED: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "no config": (lambda p: (p / "config.json").unlink(), LoadError, "vit has no config.json; pass a folder"),
    "no JSON": (lambda p: (p / "config.json").write_text("{"), LoadError, "is not JSON"),
    "no object": (lambda p: (p / "config.json").write_text("[]"), LoadError, "holds no JSON object"),
    "no architecture": (lambda p: edited(p / "config.json", architectures=None), LoadError, "names no architecture"),
    "an unknown one": (
        lambda p: edited(p / "config.json", architectures=["NewForImageClassification"]),
        LoadError,
        r"names NewForImageClassification, which transformers [\d.]+ does not have; install",
    ),
    "an unknown type": (
        lambda p: edited(p / "config.json", model_type="nope"),
        LoadError,
        "cannot be read by",
    ),
    "no processor": (
        lambda p: (p / "preprocessor_config.json").unlink(),
        LoadError,
        r"vit has no preprocessor_config.json, which says how images are normalised; download it too, or pass",
    ),
    "half a processor": (
        lambda p: halved(p / "preprocessor_config.json"),
        LoadError,
        "processor of vit cannot be",
    ),
    "no weights": (
        lambda p: (p / "model.safetensors").unlink(),
        LoadError,
        "has no model.safetensors; download",
    ),
    "half the weights": (
        lambda p: halved(p / "model.safetensors"),
        LoadError,
        "holds no ViTForImageClassification",
    ),
    "no safetensors": (lambda p: (p / "model.safetensors").write_bytes(b"abc"), LoadError, "no readable safetensors"),
    "a shard missing": (missing_shard, LoadError, "lacks model-00002-of-00002.safetensors, one of 2 files of weights"),
    "a shard elsewhere": (outside_shard, LoadError, "which is no file of its own folder"),
    "no head": (
        headless,
        LoadError,
        r"lack 2 tensors of \w+ \(classifier.bias, classifier.weight\)",
    ),
    "labels with a gap": (renumbered, LoadError, r"id2label in vit/config.json has the numbers 0, 1, 3, and 3 outputs"),
    "labels in two orders": (contradicting, LoadError, r"'ape' is 0 in id2label, 2 in label2id; correct it"),
    "no classifier": (no_head, InputError, "holds a ViTModel, which is no classifier of images; pass one whose name"),
    "code of its own": (
        lambda p: edited(p / "config.json", auto_map={"AutoModel": "net.Net"}),
        InputError,
        r"names Python code of the folder's own \(auto_map\), which loading would run; pass trust=True",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_partial_or_damaged_folder_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, kind, said = SPOILED[name]
    saved_vit(PLACE)
    spoil(PLACE)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("transformers asked at the keyboard"))
    with pytest.raises(kind, match=said) as caught:
        ss.open("hf:vit")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("BertForSequenceClassification", "which reads text; pass the domain text and a table"),
        ("CLIPModel", "which reads images with text; pass the domain multimodal"),
        ("DetrForObjectDetection", "which finds objects; pass a factory"),
        ("SegformerForSemanticSegmentation", "which labels pixels; pass a factory"),
        ("LlamaForCausalLM", "which writes text"),
    ],
)
def test_other_models_are_named_with_the_way_to_go(architecture: str, said: str) -> None:
    saved_vit(PLACE)
    edited(PLACE / "config.json", architectures=[architecture])
    with pytest.raises(InputError, match=said):
        ss.open("hf:vit")


def test_pickled_weights_need_trust() -> None:
    network = saved_vit(PLACE)
    (PLACE / "model.safetensors").unlink()
    torch.save(network.state_dict(), PLACE / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model.bin is a pickle, and loading one can run code; .*trust=True"):
        ss.open("hf:vit")
    x, _ = data()
    torch.testing.assert_close(ss.open("hf:vit", trust=True).module(x).logits, network(x).logits)


def test_names_that_are_numbers_are_no_names() -> None:
    assert class_names({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, PLACE) == ()
    assert class_names({"id2label": {"1": "no", "0": "yes"}, "label2id": {"yes": 0, "no": "1"}}, PLACE) == ("yes", "no")
    assert class_names({}, PLACE) == ()


# The hub.


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
def test_a_name_without_a_folder_is_the_hubs_and_offline_that_is_said() -> None:
    with pytest.raises(LoadError) as caught:
        ss.open("hf:nobody/nothing")
    assert "there is no folder nobody/nothing, and the hub cannot be asked for one" in str(caught.value)
    assert "download the model, and pass hf:FOLDER" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_what_the_hub_has_left_in_its_cache_is_used_offline(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    revision = "0123456789abcdef0123456789abcdef01234567"
    cache = here / "cache" / "models--somebody--vit"
    network = saved_vit(cache / "snapshots" / revision)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
    model, (x, _) = ss.open("hf:somebody/vit"), data()
    torch.testing.assert_close(model.module(x).logits, network(x).logits)
    assert model.title == "somebody/vit (ViTForImageClassification)"
    assert f"from the hub, revision {revision}" in model.notes


@pytest.mark.parametrize("name", ["./none", "a/b/c", "~/none", "", "x y"])
def test_a_path_that_is_none_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(LoadError, match=r"there is no folder .*; pass one that transformers' save_pretrained"):
        ss.open(f"hf:{name}")


def test_what_the_hub_answers_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    for kind, said in (
        ("RepositoryNotFoundError", "the hub has no model a/b"),
        ("RevisionNotFoundError", "the hub's a/b has no revision c"),
        ("GatedRepoError", "is gated; accept its terms there, and set HF_TOKEN"),
        ("ConnectError", r"the hub cannot be asked for one \(ConnectError\)"),
    ):

        def fails(*_: object, kind: str = kind, **__: object) -> str:
            raise type(kind, (Exception,), {})("a page of HTML\nand more")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
        with pytest.raises(LoadError, match=said) as caught:
            ss.open("hf:a/b@c")
        assert "HTML" not in str(caught.value)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    saved_vit(PLACE)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"needs the package transformers; run pip install 'signstep\[hf\]'"):
        ss.open("hf:vit")


# The commands.


def test_a_folder_is_audited_verified_trained_and_transferred(capsys: pytest.CaptureFixture[str]) -> None:
    network = saved_vit(PLACE)
    x, _ = data(16)
    y = network((x - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / 0.5).logits.argmax(1)
    np.savez("test.npz", x=x.numpy(), y=y.numpy())
    words = ("--data", "test.npz", "--threat", "linf:0.05")
    Path("byfactory.py").write_text("from samples import vit\n")
    typed = ("--mean", "0.4,0.5,0.6", "--std", "0.5,0.5,0.5")
    assert main(["audit", "--model", "hf:vit", *words, "--out", "one"]) == 0
    assert main(["audit", "--model", "byfactory:vit", *typed, *words, "--out", "other"]) == 0
    one, other = (json.loads(Path(f"{name}/result.json").read_text()) for name in ("one", "other"))
    assert one["clean_right"] == 16
    assert one["per_example"]["verdicts"] == other["per_example"]["verdicts"]
    assert one["terms"]["input_space"] == other["terms"]["input_space"]
    assert one["classes"] == ["ape", "bee", "cat"]
    capsys.readouterr()
    assert main(["verify", "one", "--model", "hf:vit", "--data", "test.npz"]) == 0, capsys.readouterr().out
    assert main(["verify", "one", "--model", f"hf:{Path('one')}", "--data", "test.npz"]) == 2
    assert "lies inside the report" in capsys.readouterr().err
    assert main(["audit", "--model", "hf:vit", *typed, *words]) == 2
    assert "--mean 0.4,0.5,0.6 says again what vit (ViTForImageClassification) declares" in capsys.readouterr().err
    pairs = ("--surrogate", "a=hf:vit", "--victim", "b=byfactory:vit", *typed)
    assert main(["transfer", *pairs, *words, "--out", "matrix"]) == 0
    trained = ("--epochs", "1", "--ladder", "none", "--out", "trained", "--batch-size", "8")
    assert main(["train", "--model", "hf:vit", *words, *trained]) == 0
    again = ("--weights", "trained/weights.safetensors", "--attack", "fgsm", "--out", "again")
    assert main(["audit", "--model", "hf:vit", *words, *again]) == 0


def test_images_of_another_size_are_refused_until_they_are_resized(capsys: pytest.CaptureFixture[str]) -> None:
    from signstep.export import write_png

    saved_vit(PLACE)
    for number, name in enumerate(("bee", "cat")):
        place = Path("photos") / name
        place.mkdir(parents=True)
        write_png(torch.full((1, 3, 9, 9), number / 2), [place / "1.png"], low=0.0, high=1.0)
    words = ["audit", "--model", "hf:vit", "--data", "photos", "--threat", "linf:0.05", "--attack", "fgsm"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "takes examples of shape (3, 6, 6), these have (3, 9, 9); bring images there with --resize 6x6" in said
    assert main([*words, "--resize", "6x6"]) == 0
    record = json.loads(Path("signstep-report/result.json").read_text())
    assert record["classes"] == ["ape", "bee", "cat"]
    assert sorted(record["per_example"]["labels"]) == [1, 2], "numbered as the model's id2label does"


def test_the_vit_of_the_tests_tells_classes_apart() -> None:
    x, _ = data()
    assert len(set(vit()(x).logits.argmax(1).tolist())) > 1
