"""``signstep compare``: several results side by side."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import signstep as ss
from signstep.cli import main


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(60, 4, generator=generator), torch.randint(2, (60,), generator=generator)
    x[:, 0] = torch.where(y == 0, 0.8, 0.2) + 0.3 * (x[:, 0] - 0.5)
    for name, other in (("good", 0.05), ("poor", 4.0)):
        model = nn.Linear(4, 2)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0, other, 0, 0], [-1.0, -other, 0, 0]]))
            model.bias.copy_(torch.tensor([-0.5, 0.5]) * (1 + other))
        result = ss.audit(model, (x, y), threat=ss.linf(0.1), attacks=["fgsm"], curve=False, describe_model=name)
        (tmp_path / name / "report").mkdir(parents=True)
        result.save(tmp_path / name / "report" / "result.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("place")
def test_a_table_and_a_sentence_for_each_pair(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "good", "poor", "again=good/report/result.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["clean", "acc."]
    assert [line.split()[0] for line in lines[2:5]] == ["good", "poor", "again"]
    assert len(lines) == 9
    assert lines[6].startswith("good -> poor: robust ")
    assert ": more than chance (exact McNemar" in lines[6]
    assert "0 lost, 0 won: not more than chance" in lines[7]


@pytest.mark.usefixtures("place")
def test_numbers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "good", "poor", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["results"]["good"]["robust_accuracy"] > record["results"]["poor"]["robust_accuracy"]
    assert record["results"]["good"]["passes_per_example"] > 1
    assert record["pairs"][0]["lost"] > record["pairs"][0]["won"]


def test_other_terms_are_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(60, dtype=torch.int64)
    for name, eps in (("a", 0.1), ("b", 0.2)):
        ss.audit(nn.Linear(4, 2), (x, y), threat=ss.linf(eps), attacks=["fgsm"], curve=False).save(
            place / f"{name}.json"
        )
    assert main(["compare", "a.json", "b.json"]) == 0
    assert "note: threat differs" in capsys.readouterr().out


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("words", "said"), [(["good"], "pass two or more"), (["good", "good"], "comes twice"), (["good", "x"], "x")]
)
def test_wrong_use(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words]) == 2
    assert said in capsys.readouterr().err
