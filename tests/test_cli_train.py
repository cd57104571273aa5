"""``signstep train`` as its users type it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from signstep.auditing.result import Result
from signstep.cli import main
from signstep.data.digits import digits
from signstep.networks.small import digits_cnn

QUICK = ["train", "--epochs", "2", "--ladder", "quick@1", "--audit-limit", "40", "--limit", "200"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_digits_are_trained_on_audited_and_written_down(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--average", "0.9"]) == 0
    out, err = capsys.readouterr()
    assert "robust acc." in out
    assert "n-fgsm, noise of 2 eps" in err
    assert "clean 1" in err or "clean 2" in err or "PGD" in err
    folder = place / "signstep-model"
    model = digits_cnn()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    result = Result.load(folder / "report" / "result.json")
    assert (result.examples, result.ladder) == (40, "quick@1")
    with torch.no_grad():
        x, y = digits("test")
        assert int((model.eval()(x[:40]).argmax(1) == y[:40]).sum()) == result.clean_right
    card = (folder / "MODEL_CARD.md").read_text()
    for words in (
        "de Jorge et al. 2022",
        "SHA-256 of the data",
        "No collapse was called",
        "best at step",
        "curves.svg",
    ):
        assert words in card
    assert str(result).splitlines()[0] in card
    assert (folder / "curves.svg").read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert (folder / "log.csv").read_text().startswith("step,epoch")
    # What is done is not done again, and the configuration in the folder is that of the run.
    assert main(["--config", str(folder / "signstep.toml"), "train"]) == 0
    assert "went on from step 4" in capsys.readouterr().err
    # Another run does not go on from it.
    assert main([*QUICK, "--rate", "0.001"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_a_card_has_both_ends_where_bounds_are_asked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["train", "--epochs", "1", "--limit", "200", "--audit-limit", "8", "--ladder", "quick@1"]
    assert main([*quick, "--threat", "linf:0.01", "--bounds", "crown"]) == 0
    assert "Robust accuracy in [" in capsys.readouterr().out
    result = Result.load(place / "signstep-model" / "report" / "result.json")
    assert result.certified_accuracy is not None
    assert not result.contradictions
    card = (place / "signstep-model" / "MODEL_CARD.md").read_text()
    assert result.bracket[1:] in card
    assert f"none fewer than the {100 * result.certified_accuracy:.1f} % that were proved" in card
    # Asked for without an audit, or under no name, they are refused before anything is trained.
    assert main([*quick[:-1], "none", "--bounds", "crown", "--out", "two"]) == 2
    assert "--bounds crown is for the final audit" in " ".join(capsys.readouterr().err.split())
    assert main([*quick, "--bounds", "hull", "--out", "two"]) == 2
    assert not (place / "two").exists()


def test_own_data_and_rows_that_were_trained_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = digits("train")
    np.savez(place / "train.npz", x=x[:150].numpy(), y=y[:150].numpy())
    np.savez(place / "test.npz", x=x[140:180].numpy(), y=y[140:180].numpy())
    own = ["train", "--model", "signstep.networks.small:digits_cnn", "--data", "train.npz", "--threat", "l2:0.5"]
    quick = [*own, "--epochs", "1", "--ladder", "quick@1", "--recipe", "pgd-at:steps=2"]
    assert main([*quick, "--test", "test.npz", "--out", "one"]) == 0
    assert "10 of the 40 examples of the audit were trained on" in (place / "one" / "MODEL_CARD.md").read_text()
    assert main([*quick, "--out", "two"]) == 0
    assert "The audit saw the validation rows" in (place / "two" / "MODEL_CARD.md").read_text()
    assert main([*quick, "--test", "train.npz", "--out", "three"]) == 2
    assert "all of its 150 examples are trained on" in capsys.readouterr().err
    assert not (place / "three").exists()


def test_rows_on_disk_and_a_declared_normalisation_train_the_same_weights(place: Path) -> None:
    quick = [*QUICK[:-1], "100", "--mean", "0.3", "--std", "0.4"]
    assert main([*quick, "--out", "one"]) == 0
    assert main([*quick, "--out", "two", "--on-disk"]) == 0
    one, two = (load_file(place / name / "weights.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert set(one) == set(digits_cnn().state_dict()), "the weights of the model itself"
    assert not list((place / "two").glob("rows*"))
    result = Result.load(place / "one" / "report" / "result.json")
    assert "0.3" in str(result.terms["input_space"])
    model = digits_cnn()
    model.load_state_dict(one)
    x, y = digits("test")
    with torch.no_grad():
        right = int((model.eval()((x[:40] - 0.3) / 0.4).argmax(1) == y[:40]).sum())
    assert right == result.clean_right


def test_options_stand_in_a_file_under_their_names(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "signstep.toml").write_text("[train]\ncompile = true\non_disk = true\nepochs = 0\n")
    assert main(["train"]) == 2
    assert "--epochs 0" in capsys.readouterr().err


def test_a_collapse_that_stops_training_is_a_status(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forced = ["--recipe", "fgsm", "--threat", "linf:0.3", "--epochs", "14", "--check-every", "10"]
    assert main(["train", *forced, "--on-collapse", "stop", "--ladder", "none"]) == 1
    assert "Collapse at step" in capsys.readouterr().err
    card = (place / "signstep-model" / "MODEL_CARD.md").read_text()
    assert "Training stopped there" in card
    assert 'class="mark"' in (place / "signstep-model" / "curves.svg").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "n-fgms"], "did you mean 'n-fgsm'"),
        (["--cure", "hope"], "is not one of natural"),
        (["--epochs", "0"], "--epochs 0"),
        (["--optimiser", "lion"], "--optimiser lion"),
        (["--model", "nets:net"], "belong together"),
        (["--threat", "linf:none"], "needs a ball"),
        (["--validation", "0"], "--on-collapse"),
        (["--autocast", "float8"], "--autocast float8"),
        (["--mean", "0.5"], "std is missing"),
    ],
)
def test_wrong_use_is_told_in_one_sentence(
    words: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert not (place / "signstep-model").exists()


def test_an_interrupted_run_goes_on(place: Path) -> None:
    command = [sys.executable, "-m", "signstep.cli", "train", "--epochs", "200", "--ladder", "none", "--threads", "1"]
    command += ["--check-every", "5"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(b"step "):
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert b"call again to go on" in process.stderr.read()
    process.stderr.close()
    assert list((place / "signstep-model").glob("checkpoint-*.pt"))
    again = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert again.stderr is not None
    for line in again.stderr:
        if line.startswith(b"step "):
            break
    again.send_signal(signal.SIGINT)
    assert again.wait(60) == 130
    again.stderr.close()
