"""Every command opens models through the one table: what a model declares is used, and nothing is declared twice."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples import CLASSES, data, net

import signstep as ss
from signstep.cli import main
from signstep.export import write_png

MODULE = """
import torch
import signstep as ss
from samples import net as made
from signstep.model import victims

NAMES = ("cat", "ape", "bee")

def bare():
    return made()

def declared():
    return ss.Model(made(), mean=(0.4, 0.5, 0.6), std=(0.5, 0.4, 0.25), name="ours")

def named():
    return ss.Model(made(), classes=NAMES)

def others():
    return ss.Model(made(), classes=("bee", "cat", "dog"))

def strangers():
    return ss.Model(made(), classes=("n01", "n02", "n03"))

def wide():
    return ss.Model(made(), shape=(3, 9, 9))

def kept():
    return ss.Model(made(), mode="keep")

def asked():
    net = made()
    return victims.from_numpy(lambda x: net(torch.from_numpy(x)).detach().numpy())

def labels():
    net = made()
    return victims.from_numpy(lambda x: net(torch.from_numpy(x)).argmax(1).numpy())
"""
THREAT = ("--data", "test.npz", "--threat", "linf:0.05")
MEAN = ("--mean", "0.4,0.5,0.6", "--std", "0.5,0.4,0.25")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models' module, and data that the bare one gets right."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "commanded.py").write_text(MODULE)
    x, _ = data(16)
    np.savez("test.npz", x=x.numpy(), y=net()(x).argmax(1).numpy())
    return tmp_path


def record(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "result.json").read_text())
    return found


def audited(folder: str, *words: str) -> dict[str, Any]:
    assert main(["audit", *words, "--out", folder]) == 0
    return record(folder)


def figures(plain: dict[str, Any]) -> tuple[Any, ...]:
    return plain["per_example"]["verdicts"], plain["per_example"]["answers"], plain["terms"]["input_space"]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    return said[0]


def test_what_a_model_declares_is_used_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    own = audited("own", "--model", "commanded:declared", *THREAT)
    typed = audited("typed", "--model", "commanded:bare", *MEAN, *THREAT)
    assert figures(own) == figures(typed)
    assert own["model"] == "ours"
    assert own["hashes"]["preprocessing"] == typed["hashes"]["preprocessing"]
    capsys.readouterr()
    assert main(["verify", "own", "--model", "commanded:declared", *THREAT[:2]]) == 0, capsys.readouterr().out
    assert main(["verify", "own", "--model", "commanded:bare", *THREAT[:2]]) == 1
    assert "configuration" in capsys.readouterr().out


def test_a_mode_of_its_own_is_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert audited("own", "--model", "commanded:kept", *THREAT, "--attack", "fgsm")["terms"]["mode"] == "keep"
    capsys.readouterr()
    assert main(["verify", "own", "--model", "commanded:kept", *THREAT[:2]]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "words", "said"),
    [
        ("declared", MEAN, r"--mean 0.4,0.5,0.6 says again what ours declares itself, 0.4, 0.5, 0.6; drop it"),
        ("declared", ("--mean", "0", "--std", "1"), r"--mean 0.0 says again what ours declares itself, 0.4, 0.5, 0.6"),
        (
            "wide",
            (),
            "the model takes examples of shape (3, 9, 9), these have (3, 6, 6); bring",
        ),
    ],
)
@pytest.mark.parametrize("command", ["audit", "attack", "train"])
def test_what_is_said_twice_or_does_not_fit_is_refused_by_every_command(
    command: str, model: str, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, command, "--model", f"commanded:{model}", *THREAT, *words)


def test_victims_are_audited_by_queries_and_their_report_verifies(capsys: pytest.CaptureFixture[str]) -> None:
    for name, attack in (("asked", "square:queries=500"), ("labels", "hop-skip-jump:queries=500")):
        plain = audited(name, "--model", f"commanded:{name}", *THREAT, "--limit", "4")
        assert [entry["name"] for entry in plain["attacks"]] == ["random-sign", attack]
        assert all(entry["backwards"] == 0 for entry in plain["attacks"])
        capsys.readouterr()
        assert main(["verify", name, "--model", f"commanded:{name}", *THREAT[:2]]) == 0, capsys.readouterr().out
    assert "has no weights to train" in refused(capsys, "train", "--model", "commanded:asked", *THREAT)


def test_a_victim_is_attacked_through_a_surrogate() -> None:
    words = ("--surrogate", "commanded:declared", *THREAT, "--attack", "fgsm")
    plain = audited("out", "--model", "commanded:asked", *words)
    assert plain["terms"]["gradients_from"] == "surrogate"
    x, y = (torch.from_numpy(part) for part in np.load("test.npz").values())
    surrogate = ss.open("commanded:declared")
    wanted = ss.audit(
        ss.open("commanded:asked"),
        (x, y),
        threat=ss.linf("0.05"),
        attacks=["fgsm"],
        search=ss.Search(surrogate=surrogate),
    )
    assert "".join(plain["per_example"]["verdicts"]["fgsm"]) == wanted.per_example.verdicts["fgsm"]


def test_options_say_how_a_bare_surrogate_is_read() -> None:
    words = ("--model", "commanded:bare", *MEAN, *THREAT, "--attack", "fgsm")
    same = audited("same", *words, "--surrogate", "commanded:bare")
    other = audited("other", *words, "--surrogate", "commanded:declared")
    assert figures(same)[0] == figures(other)[0]


def test_other_models_are_read_as_they_declare_themselves() -> None:
    words = ("--transfer-to", "own=commanded:declared", "--transfer-to", "plain=commanded:bare")
    plain = audited("out", "--model", "commanded:bare", *THREAT, *words, "--attack", "fgsm")
    shown = plain["per_example"]["transfers"]
    assert shown["plain"]["clean"] == "r" * 16
    assert shown["own"]["clean"] != "r" * 16


def test_transfer_and_compare_read_each_model_as_it_declares_itself(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["transfer", "--surrogate", "a=commanded:declared", "--victim", "b=commanded:bare", *THREAT]
    assert main([*words, *MEAN, "--out", "matrix"]) == 0
    cells = json.loads(Path("matrix/transfer.json").read_text())
    assert main([*words[:3], "--victim", "b=commanded:declared", *THREAT, "--out", "same"]) == 0
    assert [c["fooled"] for c in json.loads(Path("same/transfer.json").read_text())["cells"]] == [
        c["fooled"] for c in cells["cells"]
    ]
    two = ["transfer", "--surrogate", "a=commanded:declared", "--victim", "b=commanded:declared", *THREAT]
    assert "--mean 0.4,0.5,0.6 says again what every model here declares itself; drop it" in refused(
        capsys, *two, *MEAN
    )
    models = ["--model", "a=commanded:declared", "--model", "b=commanded:bare"]
    assert main(["compare", *models, *MEAN, *THREAT, "--ladder", "fgsm", "--out", "compared"]) == 0
    one, other = (record(f"compared/{name}/report") for name in "ab")
    assert figures(one) == figures(other)


# The order of the classes.


@pytest.fixture
def folders(here: Path) -> Callable[..., tuple[str, ...]]:
    """Images by class: of the model's own answer, under the names that it has for it."""

    def laid(names: tuple[str, ...]) -> tuple[str, ...]:
        x = torch.rand(9, 3, 6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float32)
        x = (x * 255).round() / 255
        for row in range(9):
            place = here / "photos" / names[row % CLASSES]
            place.mkdir(parents=True, exist_ok=True)
            write_png(x[row : row + 1], [place / f"{row}.png"], low=0.0, high=1.0)
        return ("--data", "photos", "--threat", "linf:0.05")

    return laid


def test_the_data_is_numbered_in_the_order_of_the_model(folders: Callable[..., tuple[str, ...]]) -> None:
    plain = audited("out", "--model", "commanded:named", *folders(("cat", "ape", "bee")), "--attack", "fgsm")
    assert plain["classes"] == ["cat", "ape", "bee"]
    assert sorted(plain["per_example"]["labels"]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    by_file = Path("names.txt")
    by_file.write_text("cat\nape\nbee\n")
    words = ("--classes", "names.txt", "--attack", "fgsm")
    typed = audited("typed", "--model", "commanded:bare", "--data", "photos", "--threat", "linf:0.05", *words)
    assert typed["per_example"]["labels"] == plain["per_example"]["labels"]
    assert main(["verify", "out", "--model", "commanded:named", "--data", "photos"]) == 0


def test_another_order_than_the_models_is_refused(
    folders: Callable[..., tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    data = folders(("ape", "bee", "cat"))
    Path("names.txt").write_text("ape\nbee\ncat\n")
    words = ("audit", "--model", "commanded:named", *data)
    said = refused(capsys, *words, "--classes", "names.txt")
    assert "number 0 is 'ape' there and 'cat' of the model; drop it" in said
    said = refused(capsys, "audit", "--model", "commanded:others", *data)
    assert (
        "photos (3 classes) has the class 'ape', which is none of the model's 3 ('bee'); name it as the model does"
        in said
    )
    said = refused(capsys, "compare", "--model", "a=commanded:named", "--model", "b=commanded:bare", *data)
    assert (
        "a numbers the classes of photos (3 classes) as cat, ape, bee, ..., and the data does not; pass --classes FILE"
        in said
    )


def test_names_that_have_nothing_in_common_are_noted(folders: Callable[..., tuple[str, ...]]) -> None:
    plain = audited("out", "--model", "commanded:strangers", *folders(("ape", "bee", "cat")), "--attack", "fgsm")
    assert any("no class of the data ('ape', ...) has a name of the model's ('n01', ...)" in n for n in plain["notes"])


def test_classes_that_are_fewer_and_have_no_name_of_the_models_are_refused(
    folders: Callable[..., tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A class folder that is missing would shift the numbers of all that follow."""
    words = folders(("ape", "bee", "cat"))
    shutil.rmtree("photos/bee")
    said = refused(capsys, "audit", "--model", "commanded:strangers", *words)
    assert (
        "has 2 classes, and none of them has a name of the model's 3 ('ape' beside 'n01'); pass --classes FILE" in said
    )


def test_a_mode_that_is_typed_holds_for_modules_and_is_in_the_record() -> None:
    for name, model in (("a", "commanded:bare"), ("b", "commanded:kept")):
        plain = audited(name, "--model", model, "--mode", "keep", *THREAT, "--attack", "fgsm")
        assert plain["terms"]["mode"] == "keep"
