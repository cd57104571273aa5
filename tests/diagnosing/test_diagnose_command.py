"""``signstep diagnose`` as it is typed."""

import json
from pathlib import Path

import pytest

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
