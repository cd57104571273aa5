"""The command line as its users type it: the demonstration, one's own model and data, and the wrong inputs."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from signstep.auditing.result import Result
from signstep.auditing.table import table
from signstep.cli import main
from signstep.version import VERSION

MODULE = """
import torch; from torch import nn

def net(width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 3))

class Slow(nn.Module):
    calls = 0
    def forward(self, x):
        Slow.calls += 1
        if Slow.calls > 6:
            raise KeyboardInterrupt
        return x.flatten(1)[:, :3]

class Broken(nn.Module):
    def forward(self, x):
        return x.flatten(1) @ 3

class Leaving(nn.Module):
    def forward(self, x):
        raise SystemExit(0)

class Missing(nn.Module):
    def forward(self, x):
        return open("nowhere")

class Last(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1
    @staticmethod
    def backward(ctx, gradient):
        raise ValueError("own")

class Backwards(nn.Module):
    def forward(self, x):
        return Last.apply(x.flatten(1)[:, :3])

def leaves():
    raise SystemExit(0)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model's module, weights and data, as the current folder."""
    (tmp_path / "mynets.py").write_text(MODULE)
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3))
    weights = {name: torch.randn(part.shape, generator=generator) for name, part in model.state_dict().items()}
    model.load_state_dict(weights)
    save_file(weights, tmp_path / "net.safetensors")
    x = torch.randint(0, 256, (40, 3, 2, 2), generator=generator)
    y = model(x / 255).argmax(1)
    np.savez(tmp_path / "set.npz", x=x.numpy().astype(np.uint8), y=y.numpy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if name == "mynets"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


OWN = ["audit", "--model", "mynets:net", "--model-arg", "width=6", "--weights", "net.safetensors", "--data", "set.npz"]


def test_the_demonstration_needs_no_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGNSTEP_CACHE", str(tmp_path / "cache"))
    assert main(["audit", "--limit", "60"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("Demonstration: a small convolutional network on 8x8 handwritten digits")
    assert out.startswith("At eps = 0.1 (linf) an attacker changes")
    assert Result.load("signstep-report/result.json").examples == 60


def test_ones_own_model_and_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*OWN, "--threat", "linf:8/255", "--attack", "fgsm,pgd:steps=5,restarts=2", "--out", "here"]) == 0
    out, err = capsys.readouterr()
    result = Result.load(place / "here" / "result.json")
    assert [entry.name for entry in result.attacks] == ["fgsm", "pgd:steps=5,restarts=2"]
    assert result.clean_accuracy == 1.0
    assert result.terms["eps"] == "8/255"
    assert "report: here/index.html" in err
    assert table(result) in out


def test_json_goes_to_standard_output(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del place
    assert main([*OWN, "--threat", "l2:0.5", "--json", "--curve", "0.1,0.2"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert [point["eps"] for point in plain["curves"]["fgsm"]] == [0.1, 0.2]


def test_further_options_reach_the_audit(place: Path) -> None:
    del place
    options = ["--mean", "0.5", "--std", "0.25,0.25,0.25", "--goal", "next", "--loss", "margin", "--seed", "3"]
    more = ["--limit", "10", "--grid", "255", "--curve", "none", "--batch-size", "4", "--predicted-labels"]
    assert main([*OWN, "--threat", "linf:16/255", *options, *more]) == 0
    result = Result.load("signstep-report/result.json")
    assert result.examples == 10
    assert result.curves == {}
    assert (result.terms["goal"], result.terms["loss"], result.terms["seed"]) == ("targeted", "margin", 3)
    assert result.terms["labels"] == "predicted"
    assert result.terms["input_space"]["std"] == [0.25, 0.25, 0.25]
    assert "grid of 255 steps" in result.terms["threat"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*OWN], "--threat is missing"),
        ([*OWN, "--threat", "linf"], "not of the form norm:eps"),
        ([*OWN, "--threat", "linf:-1"], "negative"),
        ([*OWN, "--threat", "linf:8"], "beyond the box's own diameter"),
        ([*OWN, "--threat", "l9:1"], "l9"),
        ([*OWN, "--threat", "linf:0.1", "--attack", "zap"], "--attack zap is not one of"),
        ([*OWN, "--threat", "linf:0.1", "--box", "1"], "--box 1 is not LOW,HIGH"),
        (
            [*OWN, "--threat", "linf:0.1", "--mean", "0.5"],
            "needs both --mean and --std; pass both (--std 1 or --mean 0 if unused)",
        ),
        ([*OWN, "--threat", "linf:0.1", "--mean", "a", "--std", "1"], "'a' is not a number"),
        ([*OWN, "--threat", "linf:0.1", "--goal", "5"], "--goal 5 is not one of untargeted, random"),
        ([*OWN, "--threat", "linf:0.1", "--loss", "hinge"], "--loss hinge is not one of"),
        ([*OWN, "--threat", "linf:0.1", "--device", "cuda:77"], "--device cuda:77 is not available"),
        ([*OWN, "--threat", "linf:0.1", "--resize", "9"], "--resize 9 is not HEIGHTxWIDTH"),
        ([*OWN, "--threat", "linf:0.1", "--task", "ranking"], "--task ranking is not one of"),
        ([*OWN, "--threat", "linf:0.1", "--tolerance", "1"], "--tolerance 1.0 is for --task regression"),
        ([*OWN, "--threat", "linf:0.1", "--out", "net.safetensors"], "cannot be written"),
        (["audit", "--model", "mynets:net"], "needs data"),
        (["audit", "--data", "set.npz"], "need a model"),
        (["audit", "--skip-bad"], "--skip-bad has no effect without --model"),
        ([*OWN, "--threat", "linf:0.1", "--batch-size", "many"], "--batch-size many"),
        (["audit", "--resize", "9x9"], "--resize has no effect without --model"),
        (["audit", "--model-arg", "a=1"], "--model-arg has no effect without --model"),
        ([*OWN, "--threat", "linf:0.1", "--attack", "fgsm,fgm"], "one or more different recipes"),
        ([*OWN, "--threat", "linf:0.1", "--task", "regression"], "--task regression needs --tolerance"),
        (["explain", "zap"], "nothing is known about 'zap'"),
    ],
)
def test_wrong_use_is_one_sentence_and_status_2(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    del place
    assert main(arguments) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


@pytest.mark.parametrize("wrong", [["--threads", "0"], ["--save-points", "-1"], ["--limit", "many"]])
def test_numbers_out_of_range(place: Path, capsys: pytest.CaptureFixture[str], wrong: list[str]) -> None:
    del place
    assert main([*OWN, "--threat", "linf:0.1", *wrong]) == 2
    assert wrong[0] in capsys.readouterr().err


def test_unknown_options_are_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--epsilon", "3"]) == 2
    assert "--epsilon" in capsys.readouterr().err


def test_an_interrupted_audit_is_marked_partial(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del place
    arguments = ["audit", "--model", "mynets:Slow", "--data", "set.npz", "--threat", "linf:0.1", "--batch-size", "20"]
    assert main([*arguments, "--attack", "random-sign", "--curve", "none"]) == 130
    assert "PARTIAL" in capsys.readouterr().out
    assert Result.load("signstep-report/result.json").partial


FAILING = {
    "mynets:Broken": r"error: the model raised TypeError: .* \(.*mynets\.py, line 17, in forward\)",
    "mynets:Leaving": r"error: the model raised SystemExit: 0 \(.*mynets\.py, line 21, in forward\)",
    "mynets:Missing": r"error: the model raised FileNotFoundError: .* \(.*mynets\.py, line 25, in forward\)",
    "mynets:Backwards": r"error: the model's backward pass raised ValueError: own \(.*mynets\.py, line 33, in backward",
    "mynets:leaves": r"error: mynets:leaves raised SystemExit: 0; .* \(.*mynets\.py, line 40, in leaves\)",
}


@pytest.mark.parametrize("model", FAILING)
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.usefixtures("place")
def test_a_model_that_fails_is_named_in_one_sentence(
    model: str, debug: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["audit", "--model", model, "--data", "set.npz", "--threat", "linf:0.1", "--attack", "fgsm"]
    assert main([*words, *(["--debug"] if debug else [])]) == (2 if model == "mynets:leaves" else 3)
    said = capsys.readouterr().err
    assert re.search(FAILING[model], said)
    assert ("Traceback" in said) == debug
    assert "internal error" not in said


def test_what_is_no_model_of_the_users_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(sys.modules["signstep.domains.image.case"], "demo", lambda **_: broken())
    assert main(["audit"]) == 3
    said = capsys.readouterr().err
    assert "ZeroDivisionError: ours" in said
    assert "internal error" in said


def test_list_and_explain_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "pgd" in capsys.readouterr().out
    assert main(["explain", "fgsm"]) == 0
    text = capsys.readouterr().out
    for line in ("(0.25, 0.45, 0.7, 0.85)", "gain 0.3500", "gain 0.2291", "gain 0.2000"):
        assert line in text
    closed, attained = (part.split()[-1] for part in text.split("closed form ")[-1].splitlines()[0].split(","))
    assert closed == attained
    assert main(["explain", "i-fgsm"]) == 0
    assert capsys.readouterr().out.startswith("bim: ")
    assert main(["--version"]) == 0
    assert VERSION in capsys.readouterr().out


@pytest.mark.parametrize("own", [True, False])
def test_memory_is_kept_only_in_a_process_of_the_command(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(sys.modules["signstep.cli.app"], "keep_memory", lambda: kept.append(True))
    monkeypatch.setattr("sys.argv", ["signstep", "--version"])
    assert main(None if own else ["--version"]) == 0
    assert kept == [True] * own
