"""``signstep detect`` and the options of detectors on ``signstep audit``: files, answers, statuses, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from detector_nets import rows

from signstep.auditing.result import Result
from signstep.cli import main

MODEL = ("--model", "detector_nets:trained")


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, (name, count) in enumerate({"clean": 300, "new": 150, "test": 12}.items()):
        x, y = rows(count, seed)
        np.savez(f"{name}.npz", x=x.numpy(), y=y.numpy())
    x, y = rows(150, 9)
    np.savez("moved.npz", x=(1 - x).numpy(), y=y.numpy())


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Status, answer, and what is said beside it."""
    status = main(list(words))
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_fit_score_check_and_audit_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    """One file through all of them; a moved set breaks the promise, and an audit states what it is worth."""
    status, out, err = run(capsys, "detect", "fit", *MODEL, "--data", "clean.npz", "--detect", "energy", "--out", "e")
    assert (status, "calibrated on 300 others" in out, "written: e" in err) == (0, True, True)
    assert "Known break" in out
    Path("e").rename("e.safetensors")
    saved = ("--detect", "e.safetensors", "--reject", "0.05")
    status, out, _ = run(capsys, "detect", "score", *MODEL, "--data", "test.npz", *saved, "--json")
    found = json.loads(out)
    assert (status, len(found), found[0]["row"]) == (0, 12, 0)
    assert all(0 < row["p"] <= 1 and row["action"] in ("accept", "reject") for row in found)
    status, out, _ = run(capsys, "detect", "check", *MODEL, "--data", "new.npz", *saved)
    assert (status, "nothing speaks against" in out, "cannot be known" in out) == (0, True, True)
    status, out, _ = run(capsys, "detect", "check", *MODEL, "--data", "moved.npz", *saved, "--json")
    (told,) = json.loads(out)
    assert (status, told["holds"], told["alike"] < 0.01) == (1, False, True)
    audit = ("audit", *MODEL, "--data", "test.npz", "--threat", "linf:0.2", "--attack", "fgsm", "--limit", "4")
    status, out, _ = run(capsys, *audit, *saved, "--detect", "image-statistics", "--clean", "clean.npz", "--out", "r")
    assert (status, "Detectors:" in out) == (0, True)
    result = Result.load(Path("r/result.json"))
    assert result.detection is not None
    assert [judge.name for judge in result.detection.detectors] == ["energy", "image-statistics"]
    assert "ROC" in Path("r/index.html").read_text(encoding="utf-8")
    assert run(capsys, "--config", "r/signstep.toml", "audit", "--out", "again")[0] == 0
    assert Result.load(Path("again/result.json")).detection == result.detection
    status, out, _ = run(capsys, "verify", "r")
    assert "detection.evaded" in out
    mine = ("verify", "r", *MODEL, "--data", "test.npz")
    status, out, _ = run(capsys, *mine)
    assert (status, "open  detection: not asked again" in out) == (4, True)
    detectors = (*saved, "--detect", "image-statistics", "--clean", "clean.npz")
    status, out, err = run(capsys, *mine, *detectors)
    assert (status, "ok    detection: 2 asked again" in out) == (0, True), (out, err)
    status, out, _ = run(capsys, *mine, *saved)
    assert (status, "FAIL  detection: detectors is 2 in the record, 1 here" in out) == (1, True)
    status, _, err = run(capsys, *mine, *detectors[:-1], "test.npz")
    assert (status, "is the data that is audited" in err) == (2, True)
    Path("e.safetensors").rename("r/e.safetensors")
    status, _, err = run(capsys, *mine, "--detect", "r/e.safetensors", "--reject", "0.05")
    assert (status, "lies inside the report" in err) == (2, True)


def test_a_detector_is_fitted_behind_the_defence_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """What it looks at is what the model sees behind its transformations; beside the bare model it is refused."""
    behind = (*MODEL, "--defend", "bit-depth:bits=1")
    fit = ("detect", "fit", "--data", "clean.npz", "--detect", "energy")
    assert run(capsys, *fit, *behind, "--out", "d.safetensors")[0] == 0
    saved = ("--data", "new.npz", "--detect", "d.safetensors", "--reject", "0.05")
    assert run(capsys, "detect", "check", *behind, *saved)[0] == 0
    status, _, err = run(capsys, "detect", "check", *MODEL, *saved)
    assert (status, "another preprocessing" in err) == (2, True)
    assert run(capsys, *fit, *MODEL, "--out", "d.safetensors")[0] == 0  # one of ours is written anew
    status, _, err = run(capsys, *fit, *MODEL, "--defend", "bit-dept", "--out", "x.safetensors")
    assert (status, "did you mean 'bit-depth'" in err) == (2, True)


def test_another_models_calibration_is_refused_by_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, status 2, before anything is attacked."""
    fit = ("detect", "fit", *MODEL, "--data", "clean.npz", "--detect", "energy", "--out", "e.safetensors")
    assert run(capsys, *fit)[0] == 0
    other = ("--model", "detector_nets:trained", "--model-arg", "seed=1", "--data", "test.npz")
    saved = ("--detect", "e.safetensors", "--reject", "0.05")
    threat = ("--threat", "linf:0.1", "--attack", "fgsm")
    for words in (("detect", "score"), ("detect", "check"), ("audit", *threat), ("defences", *threat)):
        status, out, err = run(capsys, *words, *other, *saved)
        assert (status, out) == (2, ""), words
        assert "calibrated with another model (its weights or layers differ); fit it again" in err.splitlines()[-1]
    status, _, err = run(capsys, *fit[:-1], "few.safetensors", "--by-class", "--limit", "2")
    assert (status, "pass clean rows of every class" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("detect", "fit", *MODEL, "--data", "clean.npz", "--detect", "energy", "--out", "new.npz"),
            "none of these files",
        ),
        (("detect", "fit", *MODEL, "--data", "clean.npz", "--detect", "energy", "--grid", "255"), "without a threat"),
        (("detect", "forget", *MODEL, "--data", "clean.npz"), "fit, score and check"),
        (("detect", "fit", *MODEL, "--data", "clean.npz"), "--detect"),
        (("detect", "fit", *MODEL, "--data", "clean.npz", "--detect", "squeese"), "squeeze"),
        (("detect", "fit", *MODEL, "--data", "clean.npz", "--detect", "energy", "--reject", "0.1"), "without rates"),
        (("detect", "score", *MODEL, "--data", "test.npz", "--detect", "energy"), "--reject 0.01"),
        (
            ("detect", "score", *MODEL, "--data", "test.npz", "--detect", "a.safetensors", "--reject", "0.1"),
            "not exist",
        ),
        (("detect", "check", *MODEL, "--data", "new.npz", "--detect", "energy", "--reject", "0.1"), "names no file"),
        (("audit", *MODEL, "--data", "test.npz", "--threat", "linf:0.1", "--reject", "0.1"), "without detectors"),
        (("audit", *MODEL, "--data", "test.npz", "--threat", "linf:0.1", "--detect", "energy"), "--reject"),
        (
            ("audit", *MODEL, "--data", "test.npz", "--threat", "linf:0.1", "--detect", "energy", "--reject", "0.1"),
            "--clean",
        ),
        (
            (
                *("audit", *MODEL, "--data", "test.npz", "--threat", "linf:0.1", "--detect", "energy"),
                *("--reject", "0.1", "--clean", "test.npz"),
            ),
            "the data that is audited",
        ),
    ],
)
def test_wrong_use_is_one_sentence(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str) -> None:
    """Status 2, and what to type."""
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
