"""``signstep compare``: several results side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import signstep as ss
from signstep.auditing.result import Result
from signstep.cli import main
from signstep.data.digits import digits
from signstep.networks.small import digits_cnn

NET = "signstep.networks.small:digits_cnn"
QUICK = ["--set", "epochs=1", "--ladder", "fgsm", "--audit-limit", "40", "--limit", "120"]


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
        result = ss.audit(ss.Model(model, name=name), (x, y), threat=ss.linf(0.1), attacks=["fgsm"], curve=False)
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
    assert "more than chance (p = " in lines[6]
    assert lines[6].endswith("(exact McNemar, Holm for 3 pairs)")
    assert "(0 lost, 0 won): not more than chance (p = 1) of 60" in lines[7]


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
    assert "note: a.json -> b.json: threat differs" in capsys.readouterr().out


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["good"], "pass two or more"),
        ([], "pass two or more"),
        (["good", "good"], "comes twice"),
        (["good", "x"], "x"),
        (["good", "poor", "--against", "best"], "--against best is none of"),
        (["good", "poor", "--data", "digits"], "--data has no effect without --model or --recipe"),
        (["good", "--model", f"a={NET}", "--test", "t.npz"], "--test has no effect without --recipe"),
        (["good", "--model", f"a={NET}"], "needs data to be audited on"),
        (["good", "--model", f"good={NET}", "--data", "digits", "--threat", "linf:0.1"], "comes twice"),
        (["good", "--model", "a=net", "--data", "digits"], "is not NAME=MODULE:FACTORY"),
        (["--recipe", "n-fgms", "--recipe", "natural"], "did you mean 'n-fgsm'"),
        (["--recipe", "a b=natural", "--recipe", "a-b=n-fgsm"], "are the same as folders"),
        (["--recipe", "natural", "--recipe", "noise", "--set", "epoch=1"], "--set 'epoch=1'"),
        (["--recipe", "natural", "--recipe", "noise", "--against", "n-fgsm"], "--against"),
    ],
)
def test_wrong_use(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words]) == 2
    assert said in capsys.readouterr().err
    assert not Path("signstep-compare").exists()


@pytest.mark.usefixtures("place")
def test_results_can_be_written_down(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "good", "poor", "--against", "good", "--out", "page"]) == 0
    assert sorted(path.name for path in Path("page").iterdir()) == ["compare.json", "compare.md", "compare.svg"]
    assert capsys.readouterr().out.count(" -> poor: robust") == 1


@pytest.mark.usefixtures("place")
def test_models_are_audited_on_the_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(digits_cnn().state_dict(), "w.pt")
    more = ["--data", "digits", "--threat", "linf:0.1", "--ladder", "fgsm", "--audit-limit", "30"]
    models = ["--model", f"one={NET}@w.pt", "--model", f"gelu={NET}:activation=gelu,spectral=true@w2.pt"]
    torch.save(digits_cnn(activation="gelu", spectral=True).state_dict(), "w2.pt")
    assert main(["compare", *models, *more, "--out", "first"]) == 0
    out, err = capsys.readouterr()
    assert "one -> gelu: robust" in out
    assert "training s" not in out
    assert "note:" not in out
    assert "w2.pt" in err
    found = [Result.load(f"first/{name}/report/result.json") for name in ("one", "gelu")]
    assert found[0].per_example.ids == found[1].per_example.ids
    assert found[0].examples == 30
    assert found[0].hashes["weights"] != found[1].hashes["weights"]
    # A result of the same examples can stand beside them.
    assert main(["compare", "before=first/one", *models[:2], *more, "--out", "second", "--json"]) == 0
    pair = json.loads(capsys.readouterr().out)["pairs"][0]
    assert (pair["before"], pair["after"], pair["lost"], pair["won"], pair["notes"]) == ("before", "one", 0, 0, [])


@pytest.mark.usefixtures("place")
def test_recipes_are_trained_from_the_same_weights(capsys: pytest.CaptureFixture[str]) -> None:
    recipes = ["--recipe", "natural", "--recipe", "same=natural", "--recipe", "noisy=noise:epochs=2,smoothing=0.2"]
    assert main(["compare", *recipes, *QUICK, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert list(first["results"]) == ["natural", "same", "noisy"]
    assert (first["pairs"][0]["lost"], first["pairs"][0]["won"]) == (0, 0)
    assert first["results"]["noisy"]["training_steps"] == 2 * first["results"]["natural"]["training_steps"]
    one, same = (load_file(f"signstep-compare/{name}/weights.safetensors") for name in ("natural", "same"))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert "one training run each" in first["notes"][0]
    # What was trained is not trained again.
    written = Path("signstep-compare/noisy/log.csv").stat().st_mtime_ns
    assert main(["compare", *recipes, *QUICK]) == 0
    out, err = capsys.readouterr()
    assert "went on from step" in err
    assert "training s  passes a step" in out
    assert Path("signstep-compare/noisy/log.csv").stat().st_mtime_ns >= written
    page = Path("signstep-compare/compare.md").read_text()
    assert "![Clean against robust accuracy](compare.svg)" in page
    assert main(["compare", *recipes, *QUICK, "--set", "rate=0.1"]) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.usefixtures("place")
def test_every_model_with_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    models = ["--model", f"relu={NET}", "--model", f"silu={NET}:activation=silu"]
    more = [*models, "--data", "digits", "--threat", "linf:0.1", *QUICK, "--json"]
    assert main(["compare", *more, "--recipe", "natural", "--out", "a"]) == 0
    assert list(json.loads(capsys.readouterr().out)["results"]) == ["relu", "silu"]
    assert main(["compare", *more, "--recipe", "natural", "--recipe", "fgsm", "--against", "relu, fgsm"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert list(record["results"]) == ["relu, natural", "relu, fgsm", "silu, natural", "silu, fgsm"]
    assert len(record["pairs"]) == 3
    assert (Path("signstep-compare") / "silu-fgsm" / "report" / "index.html").is_file()


def test_rows_that_differ_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = digits("train")
    np.savez(place / "own.npz", x=x[:100].numpy(), y=y[:100].numpy())
    more = ["--model", f"a={NET}", "--data", "own.npz", "--threat", "linf:0.1", "--set", "epochs=1", "--ladder", "fgsm"]
    seeds = ["--recipe", "natural", "--recipe", "other=natural:seed=1"]
    assert main(["compare", *more, *seeds]) == 2
    assert "hold out other rows" in capsys.readouterr().err
    np.savez(place / "test.npz", x=x[100:140].numpy(), y=y[100:140].numpy())
    assert main(["compare", *more, *seeds, "--test", "test.npz"]) == 0
    assert main(["compare", *more, *seeds[:2], "--recipe", "noise", "--out", "held"]) == 0
    assert "by which the weights were chosen" in capsys.readouterr().out
