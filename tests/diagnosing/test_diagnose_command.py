"""``signstep diagnose`` as it is typed."""

import json
from pathlib import Path

import pytest

from signstep.auditing.result import Result
from signstep.cli import main

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, levels):
        super().__init__()
        self.levels = levels
        self.weight = nn.Parameter(torch.tensor([[4.0, -1.0, 0.5, 2.0], [-2.0, 3.0, 1.0, -1.0]]))

    def forward(self, x):
        x = (x * self.levels).round() / self.levels if self.levels else x
        return x @ self.weight.T


def net():
    return Net(3)


def plain():
    return Net(0)


def points():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(24, 4, generator=generator)
    return [(x, plain()(x).argmax(1))]
"""
COMMON = ["--data", "diagnosednets:points", "--threat", "linf:0.2", "--examples", "12"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "diagnosednets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_masked_model_fails_the_gate_and_the_record_is_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["diagnose", "--model", "diagnosednets:net", *COMMON, "--fail-on", "inflated", "--out", "kept", "--json"]
    assert main(words) == 1
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert record["verdict"]["word"] == "inflated"
    assert record == json.loads((place / "kept" / "diagnosis.json").read_text(encoding="utf-8"))
    assert "gate failed: inflated" in said.err
    for command in record["commands"]:
        assert command.startswith(
            "signstep audit --model diagnosednets:net --data diagnosednets:points --threat linf:0.2"
        )
        assert "--examples" not in command
        assert "--fail-on" not in command


def test_a_student_that_a_command_names_is_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the command runs."""
    words = ["diagnose", "--model", "diagnosednets:net", *COMMON, "--attack", "random-sign", "--out", "kept"]
    assert main(words) == 0
    said = capsys.readouterr().out
    if (place / "kept" / "student.safetensors").exists():
        assert f"@{Path('kept') / 'student.safetensors'}" in said


def test_a_plain_model_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--model", "diagnosednets:plain", *COMMON, "--fail-on", "inflated"]) == 0
    assert "verdict   real " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--fail-on", "real"], "--fail-on real; pass inflated or undetermined"),
        (["--goal", "random"], "--goal random has no meaning here"),
        (["--attack", "pgdd"], "did you mean 'pgd'?"),
        (["--examples", "0"], "--examples 0; pass a number from 1 to 128"),
        (["--out", "diagnosednets.py"], "--out diagnosednets.py"),
    ],
)
def test_what_makes_no_sense_is_said_in_options(more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--model", "diagnosednets:plain", *COMMON, *more]) == 2
    assert said in capsys.readouterr().err


# The audit with a diagnosis.

SMALL = ["--data", "diagnosednets:points", "--threat", "linf:0.2", "--limit", "12", "--attack", "fgsm,pgd:steps=4"]


def test_an_audit_with_a_diagnosis_has_it_in_record_and_page_and_fails_its_gate(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "audit",
        "--model",
        "diagnosednets:net",
        *SMALL,
        "--diagnose",
        "--fail-on",
        "inflated",
        "--show",
        "gradients",
    ]
    assert main([*words, "--out", "report"]) == 1
    said = capsys.readouterr()
    assert "gate failed: inflated by " in said.err
    result = Result.load(place / "report" / "result.json")
    assert result.diagnosis is not None
    assert result.diagnosis.attack == "pgd:steps=4"
    assert result.diagnosis.seen == result.examples == 12
    assert [(gate.kind, gate.passed) for gate in result.gates] == [("inflated", False)]
    assert all("--limit 12" in command for command in result.diagnosis.commands_text)
    page = (place / "report" / "index.html").read_text(encoding="utf-8")
    for part in ("Is the number real?", "Sizes of gradients", "asked not to be inflated"):
        assert part in page
    assert main(["verify", "report", "--model", "diagnosednets:net", "--data", "diagnosednets:points"]) in (0, 1)
    assert "diagnosis: inflated; it agrees with the record" in capsys.readouterr().out


def test_an_audit_of_a_ladder_is_diagnosed_under_the_ladder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "--model", "diagnosednets:plain", *SMALL[:-2], "--ladder", "quick", "--diagnose"]
    assert main([*words, "--fail-on", "inflated", "--out", "report"]) == 0
    capsys.readouterr()
    result = Result.load(place / "report" / "result.json")
    assert result.diagnosis is not None
    assert result.diagnosis.attack == result.ladder == "quick@1"
    assert result.gates[0].passed


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--fail-on", "inflated"], "--fail-on inflated asks about a diagnosis; pass --diagnose too"),
        (["--show", "stain"], "--show stain asks about a diagnosis"),
        (["--diagnose", "--show", "stains"], "did you mean 'stain'?"),
        (["--diagnose", "--fail-on", "real"], "pass inflated or undetermined"),
        (["--diagnose", "--goal", "next"], "--goal next has no meaning for a diagnosis; drop --diagnose"),
        (["--diagnose", "--budget", "normalised"], "--budget normalised has no meaning for a diagnosis"),
        (
            ["--diagnose", "--detect", "squeeze", "--reject", "0.1", "--clean", "c.npz"],
            "--detect squeeze is a policy",
        ),
        (["--diagnose", "--shard", "0/2"], "--shard 0/2 has too few examples"),
    ],
)
def test_options_that_do_not_fit_are_said(more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--model", "diagnosednets:plain", *SMALL, *more]) == 2
    assert said in capsys.readouterr().err
