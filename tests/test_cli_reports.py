"""Reports from the command line: gates, configuration files, verification, crafted images."""

import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from signstep.auditing.checksums import write_sums
from signstep.auditing.result import Result
from signstep.cli import main

MODULE = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, weights and images as data, as the current folder."""
    (tmp_path / "reportnets.py").write_text(MODULE)
    weight = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    weights = {"1.weight": weight - weight.mean(1, keepdim=True), "1.bias": torch.zeros(4)}
    save_file(weights, tmp_path / "net.safetensors")
    for name in ("reportnets", "linenets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    x = torch.randint(0, 256, (40, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    y = (x.flatten(1).float() / 255 @ weights["1.weight"].T).argmax(1)
    np.savez(tmp_path / "set.npz", x=x.numpy().astype(np.uint8), y=y.numpy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


MODEL = ["--model", "reportnets:net", "--weights", "net.safetensors", "--data", "set.npz"]
OWN = ["audit", *MODEL, "--threat", "linf:16/255"]


def robust(folder: str = "signstep-report") -> float:
    return Result.load(Path(folder) / "result.json").robust_accuracy


def test_a_report_holds_everything_and_verifies(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(OWN) == 0
    names = {path.name for path in (place / "signstep-report").iterdir()}
    wanted = {"index.html", "result.json", "adversarial.safetensors", "signstep.toml", "checklist.md", "SHA256SUMS"}
    assert wanted <= names
    capsys.readouterr()
    assert main(["verify", "signstep-report", *MODEL]) == 0
    lines = capsys.readouterr().out.splitlines()
    checks = lines[: next(place for place, line in enumerate(lines) if line.startswith("Nobody who was not there"))]
    assert len(checks) == 18
    assert all(line.startswith("ok") for line in checks)
    assert all(line.startswith("  ") for line in lines[len(checks) + 1 :])


def test_tampering_is_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(OWN) == 0
    for name in ("number", "pixel", "model", "data"):
        folder = place / name
        shutil.copytree(place / "signstep-report", folder)
        arguments = ["verify", str(folder), *MODEL]
        if name == "number":
            plain = json.loads((folder / "result.json").read_text())
            plain["held"] += 1
            (folder / "result.json").write_text(json.dumps(plain))
        elif name == "pixel":
            points = load_file(folder / "adversarial.safetensors")
            points["x_adv"][0, 0, 0, 0] = 1 - points["x_adv"][0, 0, 0, 0]
            save_file(points, folder / "adversarial.safetensors")
        elif name == "model":
            weights = load_file(place / "net.safetensors")
            save_file({key: -part for key, part in weights.items()}, place / "other.safetensors")
            arguments += ["--weights", "other.safetensors"]
        else:
            arrays = np.load(place / "set.npz")
            np.savez(place / "other.npz", x=255 - arrays["x"], y=arrays["y"])
            arguments += ["--data", "other.npz"]
        capsys.readouterr()
        assert main(arguments) == 1
        failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
        assert failed, name


def test_a_forged_record_is_found_though_its_sums_fit(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels set to wrong answers, and a fooled example declared held: counts and sums all made to agree."""
    arrays = np.load(place / "set.npz")
    np.savez(place / "set.npz", x=arrays["x"], y=(arrays["y"] + (np.arange(40) < 10)) % 4)
    assert main(OWN) == 0
    report = place / "signstep-report"
    result = Result.load(report / "result.json")
    examples = result.per_example
    clean = replace(
        result, clean_right=40, per_example=replace(examples, clean="r" * 40, labels=examples.answers["clean"])
    )
    row = result.worst_case.index("f")
    columns = {name: column[:row] + "h" + column[row + 1 :] for name, column in examples.verdicts.items()}
    entries = tuple(
        replace(entry, fooled=entry.fooled - 1, held=entry.held + 1)
        if examples.verdicts[entry.name][row] == "f"
        else entry
        for entry in result.attacks
    )
    held = replace(result, held=result.held + 1, attacks=entries, per_example=replace(examples, verdicts=columns))
    points = load_file(report / "adversarial.safetensors")
    for forged, kept in ((clean, points), (held, {k: v[points["row"] != row] for k, v in points.items()})):
        forged.save(report / "result.json")
        save_file({name: part.contiguous() for name, part in kept.items()}, report / "adversarial.safetensors")
        write_sums(report)
        assert main(["verify", "signstep-report", *MODEL]) == 1
    capsys.readouterr()


def test_other_peoples_folders_are_left_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*OWN, "--out", "."]) == 2
    assert "--out . holds other files" in capsys.readouterr().err
    assert main(["attack", *MODEL, "--threat", "linf:0.1", "--out", "."]) == 2
    assert not (place / "result.json").exists()
    for limit, count in (("9", 9), ("4", 4)):
        assert main(["attack", *MODEL, "--threat", "linf:0.1", "--limit", limit]) == 0
        assert len(list((place / "signstep-attacked").glob("*.png"))) == count


FULL = OSError(28, "No space left on device")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("file", ["result.json", "signstep.toml", "index.html", "SHA256SUMS"])
def test_a_full_disk_leaves_the_old_report(
    place: Path, file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(OWN) == 0
    (place / "signstep-report" / "remarks.txt").write_text("foreign")
    before = contents(place)
    assert main(["verify", "signstep-report", *MODEL]) == 1
    assert "remarks.txt is no file of a report" in capsys.readouterr().out
    real = Path.replace

    def full(self: Path, to: Path) -> Path:
        if Path(to).name == file:
            raise FULL
        return real(self, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        assert main([*OWN, "--seed", "1", "--limit", "20"]) == 2
        said = capsys.readouterr().err
        assert f"error: signstep-report/{file} cannot be written (No space left on device); pass another" in said
        assert main([*OWN, "--out", "first"]) == 2
    after = contents(place)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name not in before and "__pycache__" not in name]
    assert not (place / "first").exists()
    assert main([*OWN, "--limit", "20"]) == 0
    assert (place / "signstep-report" / "remarks.txt").read_text() == "foreign"
    assert "remarks.txt" not in (place / "signstep-report" / "SHA256SUMS").read_text()
    (place / "signstep-report" / "remarks.txt").unlink()
    assert main(["verify", "signstep-report", *MODEL]) == 0


def test_a_partial_report_replaces_an_old_one_and_passes_no_gate(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(OWN) == 0
    from signstep.model.subject import Question

    real, calls = Question.run, [0]

    def interrupted(self: Question, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] > 3:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Question, "run", interrupted)
    assert main([*OWN, "--batch-size", "10", "--fail-under", "0"]) == 130
    assert "PARTIAL" in capsys.readouterr().out
    result = Result.load(place / "signstep-report" / "result.json")
    assert (result.partial, result.examples) == (True, 10)
    assert main(["verify", "signstep-report", *MODEL]) == 0


def test_interrupted_before_the_first_batch_nothing_is_left(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from signstep.model.subject import Question

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Question, "run", interrupted)
    assert main(OWN) == 130
    assert not (place / "signstep-report").exists()


def test_what_the_audit_refuses_leaves_no_folder(place: Path) -> None:
    assert main([*OWN, "--loss", "hinge"]) == 2
    assert not (place / "signstep-report").exists()


def test_hashes_of_code_and_preprocessing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*OWN, "--mean", "0.5", "--std", "0.25"]) == 0
    report = place / "signstep-report"
    hashes = Result.load(report / "result.json").hashes
    assert set(hashes) == {"code", "data", "preprocessing", "weights"}
    assert hashes["code"] == sha256((place / "reportnets.py").read_bytes()).hexdigest()
    listed = (report / "checklist.md").read_text()
    assert hashes["code"] in listed
    assert hashes["preprocessing"] in listed
    capsys.readouterr()
    assert main(["verify", "signstep-report", *MODEL]) == 0
    assert "SHA-256: code, data, preprocessing, weights unchanged" in capsys.readouterr().out
    assert main([*OWN, "--out", "plain"]) == 0
    other = Result.load(place / "plain" / "result.json").hashes
    assert other["preprocessing"] != hashes["preprocessing"]
    assert {**other, "preprocessing": ""} == {**hashes, "preprocessing": ""}
    (place / "reportnets.py").write_text(MODULE + "\n# another normalisation\n")
    capsys.readouterr()
    assert main(["verify", "signstep-report", *MODEL]) == 1
    assert "FAIL  SHA-256: code changed since the audit" in capsys.readouterr().out


def test_what_became_of_the_data_is_recorded(place: Path) -> None:
    assert main(OWN) == 0
    assert "data: x: bytes 0..255 divided by 255" in Result.load(place / "signstep-report" / "result.json").notes


def test_an_attack_leads_to_one_class(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["attack", *MODEL, "--threat", "linf:0.3", "--recipe", "pgd:steps=5", "--goal", "2"]
    assert main(own) == 0
    out = capsys.readouterr().out
    labels = np.load(place / "set.npz")["y"]
    assert f"{(labels == 2).sum()} were left out: their label is the goal" in out
    names = sorted(path.name for path in (place / "signstep-attacked").glob("*.png"))
    assert [int(name[:6]) for name in names] == np.flatnonzero(labels != 2).tolist()
    figures = json.loads((place / "signstep-attacked" / "attacked.json").read_text())
    assert figures["fooled"] == int(out.split()[0]) == sum(name.endswith("_to_2.png") for name in names) > 0
    assert main([*own[:-1], "cat"]) == 2
    assert "--goal cat is neither a goal nor a class" in capsys.readouterr().err
    assert main([*own[:-1], "7"]) == 2
    assert (place / "signstep-attacked" / "attacked.json").exists()


def test_an_interrupted_attack_keeps_what_it_has_and_a_full_disk_what_was(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from signstep.model.subject import Question

    own = ["attack", *MODEL, "--threat", "linf:0.1", "--batch-size", "10"]
    folder = place / "signstep-attacked"
    assert main(own) == 0
    (folder / "mine.txt").write_text("foreign")
    before = contents(folder)
    real, calls = Question.run, [0]

    def interrupted(self: Question, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] > 2:
            raise KeyboardInterrupt
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr("signstep.cli.attack.read_png", lambda *_, **__: (_ for _ in ()).throw(FULL))
        assert main(own) == 2
        assert contents(folder) == before
        assert [path for path in folder.iterdir() if path.is_dir()] == []
    capsys.readouterr()
    monkeypatch.setattr(Question, "run", interrupted)
    assert main(own) == 130
    assert "PARTIAL (interrupted after 20 inputs)" in capsys.readouterr().out
    assert len(list(folder.glob("*.png"))) == 20
    assert json.loads((folder / "attacked.json").read_text())["inputs"] == 20
    assert (folder / "mine.txt").read_text() == "foreign"


def test_classes_as_goals_by_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("ant", "bee", "crane (3)")):
        (place / "photos" / name).mkdir(parents=True)
        pixels = np.full((2, 2, 3), 60 * number, np.uint8)
        Image.fromarray(pixels).save(place / "photos" / name / "1.png")
    (place / "names.txt").write_text("ant\ncrane\nbee\ncrane\n")
    own = ["attack", *MODEL[:-1], "photos", "--classes", "names.txt", "--threat", "linf:0.3", "--limit", "3", "--goal"]
    assert main([*own, "bee"]) == 0
    assert "1 were left out" in capsys.readouterr().out
    assert main([*own, "crane"]) == 2
    assert "--goal: 'crane' is the name of the classes 1 and 3; write 'crane (1)'" in capsys.readouterr().err
    assert main([*own, "crane (1)"]) == 0
    assert main([*own, "bees"]) == 2
    assert "did you mean 'bee'?" in capsys.readouterr().err
    assert main(["audit", *own[1:-1]]) == 0
    result = Result.load("signstep-report/result.json")
    assert result.classes == ("ant", "crane", "bee", "crane")
    page = (place / "signstep-report" / "index.html").read_text()
    assert "crane (3)" in page


def test_a_class_folder_that_is_missing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("ant", "bee", "dog")):
        (place / "photos" / name).mkdir(parents=True)
        Image.fromarray(np.full((2, 2, 3), 60 * number, np.uint8)).save(place / "photos" / name / "1.png")
    own = [*MODEL[:-1], "photos", "--threat", "linf:0.3"]
    for command in ("audit", "attack"):
        assert main([command, *own]) == 2
        assert "has 3 class names and the model 4 outputs" in capsys.readouterr().err
        assert main([command, *own, "--predicted-labels"]) == 0
    (place / "names.txt").write_text("ant\nbee\ncat\ndog\n")
    assert main(["audit", *own, "--classes", "names.txt"]) == 0
    assert Result.load("signstep-report/result.json").per_example.labels == (0, 1, 3)


def test_output_that_cannot_be_printed(place: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with full.open("w") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "signstep.cli", *OWN, "--fail-under", "0"],
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "cannot be printed (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr
    assert Result.load(place / "signstep-report" / "result.json").examples == 40


def test_regression_from_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "linenets.py").write_text(
        "import torch\nfrom torch import nn\n\ndef net():\n    model = nn.Linear(2, 1, bias=False)\n"
        "    nn.init.ones_(model.weight)\n    return model\n"
    )
    (place / "real.csv").write_text("a,b,price\n0.25,0.5,0.7\n0.5,0.5,1.5\n0.75,0.25,0.95\n")
    own = ["audit", "--model", "linenets:net", "--data", "real.csv", "--threat", "linf:0.1", "--task", "regression"]
    assert main([*own, "--label-column", "price", "--tolerance", "0.15"]) == 0
    result = Result.load("signstep-report/result.json")
    # Two coordinates of 0.1 move the sum by 0.2, beyond the tolerance; the second target is wrong from the start.
    assert (result.examples, result.clean_right, result.fooled) == (3, 2, 2)
    assert main(["verify", "signstep-report", *own[1:5], "--label-column", "price"]) == 0
    (place / "real.csv").write_text("a,b,price\n0.25,0.5,cheap\n")
    assert main([*own, "--label-column", "price", "--tolerance", "0.15"]) == 2
    assert "line 2, column 'price' is 'cheap', not a number" in capsys.readouterr().err


def test_the_old_key_for_the_goal_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "signstep.toml").write_text('[audit]\ntarget = "next"\n')
    assert main(OWN) == 2
    assert "[audit] has no option 'target' any more; it is called goal now" in capsys.readouterr().err
    (place / "signstep.toml").write_text('[audit]\ngoal = "next"\n')
    assert main(OWN) == 0
    assert Result.load("signstep-report/result.json").terms["target"] == "next"
    written = tomllib.loads((place / "signstep-report" / "signstep.toml").read_text())
    assert written["audit"]["goal"] == "next"


def test_a_curve_of_an_attack_that_does_not_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del place
    assert main([*OWN, "--curve-attack", "bim"]) == 2
    assert "--curve-attack names ['bim']" in capsys.readouterr().err


def test_modes_are_kept_on_request(place: Path) -> None:
    (place / "dropnets.py").write_text(
        "from torch import nn\n\ndef net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Dropout(0.5))\n"
    )
    own = [word.replace("reportnets", "dropnets") for word in OWN] + [
        "--limit",
        "10",
        "--attack",
        "fgsm",
        "--curve",
        "none",
    ]
    assert main(own) == 0
    assert not Result.load("signstep-report/result.json").terms["random_model"]
    assert main([*own, "--mode", "keep"]) == 0
    assert Result.load("signstep-report/result.json").terms["random_model"]
    assert main(["verify", "signstep-report", *own[1:7], "--again", "5"]) == 0


def test_regression_from_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.linspace(0, 1, 36, dtype=np.float32).reshape(3, 3, 2, 2)
    np.savez(place / "real.npz", x=x, y=np.array([[0.5, -1, 2, 0.1]] * 3, np.float32))
    own = ["audit", *MODEL[:-1], "real.npz", "--threat", "linf:0.1", "--task", "regression"]
    assert main([*own, "--tolerance", "100"]) == 0
    assert Result.load("signstep-report/result.json").robust_accuracy == 1.0
    assert main([*own, "--tolerance", "0.01"]) == 0
    assert Result.load("signstep-report/result.json").clean_right == 0
    assert main(["verify", "signstep-report", *own[1:7]]) == 0
    assert main(own) == 2
    assert "--tolerance" in capsys.readouterr().err


def test_nan_weights_of_a_factory(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "nannets.py").write_text(
        "from torch import nn\n\ndef net():\n    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))\n"
        "    nn.init.constant_(model[1].bias, float('nan'))\n    return model\n"
    )
    assert main(["audit", "--model", "nannets:net", "--data", "set.npz", "--threat", "linf:0.1"]) == 2
    assert "1.bias holds 4 NaN" in capsys.readouterr().err


def test_verify_wants_a_report(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(place)]) == 2
    assert "result.json cannot be read" in capsys.readouterr().err


def test_the_gate_on_robust_accuracy(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del place
    assert main(OWN) == 0
    share = robust()
    assert 0 < share < 1
    assert main([*OWN, "--fail-under", str(share)]) == 0
    assert main([*OWN, "--fail-under", str(share + 0.01)]) == 1
    assert "gate failed: robust accuracy" in capsys.readouterr().err
    assert main([*OWN, "--fail-under", "40"]) == 2


@pytest.mark.filterwarnings("ignore:the model seems to want")  # what is added to it vanishes beside 0..255
def test_the_gate_on_a_baseline(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*OWN, "--out", "old"]) == 0
    assert main([*OWN, "--baseline", "old/result.json"]) == 0
    assert "0 examples lost, 0 won: not more than chance" in capsys.readouterr().err
    weights = load_file(place / "net.safetensors")
    save_file({**weights, "1.bias": torch.tensor([3.0, 0.0, 0.0, 0.0])}, place / "worse.safetensors")
    worse = [word.replace("net.safetensors", "worse.safetensors") for word in OWN]
    assert main([*worse, "--baseline", "old/result.json"]) == 1
    assert "worse than the baseline by more than chance" in capsys.readouterr().err
    assert main([*OWN, "--baseline", "none.json"]) == 2


def test_running_the_written_configuration_again_gives_the_same_result(place: Path) -> None:
    first = [*OWN, "--attack", "fgsm,pgd:steps=5,restarts=2", "--curve", "0.02,0.05", "--seed", "7", "--limit", "30"]
    assert main([*first, "--out", "one"]) == 0
    assert main(["--config", "one/signstep.toml", "audit", "--out", "two"]) == 0
    one, two = (Result.load(place / name / "result.json") for name in ("one", "two"))
    assert one.per_example == two.per_example
    assert one.curves == two.curves
    assert one.terms == two.terms


def test_options_from_files_and_the_command_line_wins(place: Path) -> None:
    (place / "signstep.toml").write_text(
        '[audit]\nmodel = "reportnets:net"\nweights = "net.safetensors"\ndata = "set.npz"\nthreat = "linf:4/255"\n'
        'attack = ["fgsm"]\ncurve = [0.01, 0.02]\nlimit = 9\n'
    )
    assert main(["audit"]) == 0
    result = Result.load("signstep-report/result.json")
    assert (result.examples, result.terms["eps"], [entry.name for entry in result.attacks]) == (9, "4/255", ["fgsm"])
    assert [point.eps for point in result.curve] == [0.01, 0.02]
    assert main(["audit", "--threat", "linf:8/255"]) == 0
    assert Result.load("signstep-report/result.json").terms["eps"] == "8/255"
    text = (place / "signstep.toml").read_text()
    (place / "signstep.toml").unlink()
    (place / "pyproject.toml").write_text(text.replace("[audit]", "[tool.signstep.audit]"))
    assert main(["audit"]) == 0
    assert Result.load("signstep-report/result.json").terms["eps"] == "4/255"


def test_findings_are_set_aside_with_a_reason(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "signstep.toml").write_text('[audit.ignore]\nSS301 = "a smoke test"\n')
    assert main(OWN) == 0
    assert "(ignored: a smoke test)" in capsys.readouterr().err
    written = tomllib.loads((place / "signstep-report" / "signstep.toml").read_text())
    assert written["audit"]["ignore"] == {"SS301": "a smoke test"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[audit]\nthreet = 'linf:0.1'", "did you mean threat?"),
        ("[adit]\n", "[adit] is not a command"),
        ("threat = 3\n", "[threat] is not a command"),
        ("[audit\n", "is not TOML"),
        ("[audit.ignore]\nSS999 = 'x'\n", "SS999"),
    ],
)
def test_wrong_configuration(place: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    (place / "signstep.toml").write_text(text)
    assert main(OWN) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "file").write_text("")
    assert main([*OWN, "--out", "file/report"]) == 2
    assert "--out file/report cannot be written" in capsys.readouterr().err


def test_crafted_images_are_scored_from_their_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", *MODEL, "--threat", "linf:16/255", "--grid", "255"]) == 0
    out = capsys.readouterr().out.splitlines()
    found = int(out[0].split()[0])
    assert found > 0
    assert out[1] == f"Written to PNG and read back: {found} of 40."
    paths = sorted((place / "signstep-attacked").glob("*.png"))
    assert len(paths) == 40
    clean = np.load(place / "set.npz")["x"]
    for path, before in zip(paths, clean, strict=True):
        with Image.open(path) as image:
            change = np.asarray(image).astype(int) - np.moveaxis(before, 0, -1).astype(int)
        assert np.abs(change).max() <= 16


def test_what_heals_by_rounding_is_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del place
    assert main(["attack", *MODEL, "--threat", "linf:0.45/255"]) == 0
    out = capsys.readouterr().out
    assert "Written to PNG and read back: 0 of" in out
    found = int(out.split()[0])
    assert (f"{found} healed by rounding" in out) == (found > 0)


def test_any_inputs_can_be_kept_exactly(place: Path) -> None:
    assert main(["attack", *MODEL, "--threat", "l2:0.5", "--recipe", "pgd:steps=5", "--format", "npz"]) == 0
    kept = np.load(place / "signstep-attacked" / "attacked.npz")
    assert kept["x"].shape == (40, 3, 2, 2)
    change = (kept["x"].astype(float) - kept["x_clean"]).reshape(40, -1)
    assert np.linalg.norm(change, axis=1).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "jpg"], "JPEG changes every pixel"),
        (["--format", "gif"], "is not known"),
        (["--box", "none"], "needs a box with two ends"),
    ],
)
def test_wrong_formats(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    del place
    assert main(["attack", *MODEL, "--threat", "linf:0.1", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_model_without_images_needs_npz(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(place / "flat.npz", x=np.full((3, 12), 0.5, np.float32), y=np.zeros(3, int))
    arguments = ["attack", *MODEL[:-1], "flat.npz", "--threat", "linf:0.1"]
    assert main(arguments) == 2
    assert "which is no image" in capsys.readouterr().err


def test_a_normalised_budget_verifies_too(place: Path) -> None:
    del place
    assert main([*OWN[:-1], "linf:0.3", "--mean", "0.5", "--std", "0.25", "--budget", "normalised"]) == 0
    assert main(["verify", "signstep-report", *MODEL]) == 0


def test_a_report_behind_a_defence_is_verified_by_who_names_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*OWN, "--limit", "30", "--attack", "fgsm", "--defend", "bit-depth:bits=3", "--bounds", "crown"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no bounds were taken: transform: inputs pass through bit" in said
    check = ["verify", "signstep-report", *MODEL]
    for more, answers in (
        (["--defend", "bit-depth:bits=3"], "ok"),
        ([], "open"),
        (["--defend", "bit-depth:bits=2"], "FAIL"),
    ):
        main([*check, *more])
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        states = {words[1]: words[0] for words in lines if len(words) > 1 and words[0] in ("ok", "open", "FAIL")}
        assert states["counts:"] == "ok"
        assert states["answers:"] == answers, more
        assert states["configuration:"] == ("FAIL" if answers == "FAIL" else "ok")
    written = place / "signstep-report" / "signstep.toml"
    written.write_text(written.read_text().replace("bit-depth:bits=3", "jpeg"))
    main(check)
    assert "defend is ['jpeg'] in signstep.toml, ['bit-depth:bits=3'] in the record" in capsys.readouterr().out
