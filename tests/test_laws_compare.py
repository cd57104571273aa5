"""Each option of ``compare`` changes what comes of it, or is refused by name.

The options are those that the command has: a new one is tried by being there, with a value given for it here. What is
looked at is the comparison as JSON and the terms of each record; where both stay as they are an option has no effect.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

import signstep as ss
from signstep.cli import app, main

GROUP: Any = typer.main.get_command(app)
OPTIONS = [
    text.removeprefix("--")
    for option in GROUP.commands["compare"].params
    for text in option.opts
    if text.startswith("--") and text != "--help"
]

NETS = """
import torch
import signstep as ss
from torch import nn

class Net(nn.Module):
    def __init__(self, seed, outputs=3):
        super().__init__()
        self.body = nn.Linear(12, outputs)
        self.drop = nn.Dropout(0.5)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for part in self.body.parameters():
                part.copy_(torch.randn(part.shape, generator=generator) * 3)

    def forward(self, x):
        scores = self.body(x.flatten(1))
        return {"first": scores, "other": self.drop(scores.flip(1))}

def one():
    return Net(0)

def two():
    return Net(1)

def said():
    return ss.Model(Net(0), mean=0.1, std=0.7, inputs="raw", output="first", outputs="logits", task="multiclass")

def said_too():
    return ss.Model(Net(1), mean=0.1, std=0.7, inputs="raw", output="first", outputs="logits", task="multiclass")
"""

_TERMS = "--data set.npz --threat linf:0.1 --ladder fgsm,pgd"
PLAIN = f"--model a=comparenets:one --model b=comparenets:two --output first {_TERMS}"
SAID = f"--model a=comparenets:said --model b=comparenets:said_too {_TERMS}"

# A value that must show, or that must be refused.
GIVEN = {
    "model": "c=comparenets:one",
    "recipe": "n-fgsm",
    "set": "epochs=1",
    "against": "b",
    "test": "set.npz",
    "limit": "5",
    "threat": "linf:0.3",
    "box": "none",
    "ladder": "random-sign,fgsm",
    "audit-limit": "7",
    "seed": "7",
    "out": "elsewhere",
    "json": None,
    "trust": None,
    "no-trust": None,
    "task": "multilabel",
    "tolerance": "0.1",
    "mean": "0.4",
    "std": "0.5",
    "inputs": "normalised",
    "output": "other",
    "outputs": "probabilities",
    "mode": "keep",
    "data": "less.npz",
    "label-column": "y",
    "classes": "names.txt",
    "skip-bad": None,
    "ignore-label": "2",
    "max-pixels": "3",
    "split": "train",
    "resize": "2x2",
    "device": "cuda:77",
    "threads": "2",
    "workers": "1",
    "on": "mars",
    "partition": "gpu",
    "resume": None,
}
# Options whose effect is none that a comparison shows, with what is seen of it instead.
ELSEWHERE = {
    "out": "the folder",
    "json": "standard output",
    "threads": "torch's number of threads",
    "trust": "files that can run code, which there are none of: loading asks for it",
    "no-trust": "the default",
}


@pytest.fixture(name="place")
def models_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "comparenets.py").write_text(NETS)
    (tmp_path / "names.txt").write_text("x\ny\nz\n")
    rng = np.random.default_rng(0)
    for name, rows in (("set.npz", 30), ("less.npz", 20)):
        made: dict[str, Any] = {}
        for split in ("test", "train"):
            made[f"x_{split}"] = rng.random((rows, 3, 2, 2), dtype=np.float32)
            made[f"y_{split}"] = rng.integers(0, 3, rows)
        np.savez(tmp_path / name, **made)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "comparenets", raising=False)
    return tmp_path


def words_of(base: str, option: str) -> list[str]:
    words = base.split()
    flag, value = f"--{option}", GIVEN[option]
    if flag in words and flag != "--model":
        at = words.index(flag)
        del words[at : at + 2]
    if option in ("mean", "std"):
        words += ["--std" if option == "mean" else "--mean", "1" if option == "mean" else "0"]
    return [*words, flag, *([] if value is None else [value])]


def outcome(words: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """What a comparison says and under which terms, without what takes time; or the sentence that refuses it."""
    threads = torch.get_num_threads()
    folder = Path(words[words.index("--out") + 1])
    try:
        status = main(["compare", *words, "--json"])
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr()
    if status != 0:
        assert status == 2
        return said.err.strip().splitlines()[-1]
    records = [ss.Result.load(path) for path in sorted(folder.glob("*/report/result.json"))]
    return _untimed(json.loads(said.out)), [record.terms for record in records]


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(part) for key, part in value.items() if "seconds" not in key}
    return [_untimed(part) for part in value] if isinstance(value, list) else value


def test_every_option_is_tried() -> None:
    assert set(OPTIONS) <= set(GIVEN)
    assert set(ELSEWHERE) <= set(GIVEN)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("option", [name for name in OPTIONS if name not in ELSEWHERE and name != "recipe"])
def test_an_option_of_compare_changes_something_or_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = outcome([*PLAIN.split(), "--out", "first"], capsys)
    assert not isinstance(plain, str), plain
    given = outcome([*words_of(PLAIN, option), "--out", "second"], capsys)
    if isinstance(given, str):
        assert f"--{option}" in given or str(GIVEN[option]) in given
    else:
        assert given != plain


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("option", ["mean", "std", "output", "outputs", "task"])
def test_what_all_models_declare_is_not_said_again(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = outcome([*words_of(SAID, option), "--out", "away"], capsys)
    assert isinstance(given, str)
    assert "says again what every model here declares itself; drop it" in given


@pytest.mark.usefixtures("place")
def test_what_one_of_them_declares_may_be_said_for_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = SAID.replace("b=comparenets:said_too", "b=comparenets:two") + " --output first"
    assert not isinstance(outcome([*words.split(), "--out", "mixed"], capsys), str)


@pytest.mark.usefixtures("place")
def test_mode_reaches_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    _, terms = outcome([*SAID.split(), "--mode", "keep", "--out", "kept"], capsys)
    assert [row["mode"] for row in terms] == ["keep", "keep"]


@pytest.mark.parametrize(
    "option", [name for name in OPTIONS if name not in ("model", "recipe", "against", "out", "json")]
)
def test_results_alone_heed_nothing_else(option: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "one").mkdir()
    value = GIVEN[option]
    assert main(["compare", "one", "two", f"--{option}", *([] if value is None else [value])]) == 2
    said = capsys.readouterr().err
    flag = "--trust" if option == "no-trust" else f"--{option}"
    assert f"{flag} has no effect without --model or --recipe" in said
    assert "No such" not in said


def test_a_model_that_is_not_there_is_said_before_the_first_is_audited(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in ("b=comparenets:twoo", "b=comparenets:two@missing.pt"):
        words = PLAIN.replace("b=comparenets:two", wrong)
        assert main(["compare", *words.split(), "--out", "away"]) == 2
        assert "auditing" not in capsys.readouterr().err
        assert not (place / "away").exists()
