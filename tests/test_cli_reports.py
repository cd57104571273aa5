"""Reports from the command line: gates, configuration files, verification, crafted images."""

import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from signstep.auditing.rescore import write_sums
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
    assert main(["verify", "signstep-report"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("ok") for line in lines)


def test_tampering_is_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(OWN) == 0
    for name in ("number", "pixel", "model", "data"):
        folder = place / name
        shutil.copytree(place / "signstep-report", folder)
        arguments = ["verify", str(folder)]
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
        assert main(["verify", "signstep-report"]) == 1
    capsys.readouterr()


def test_other_peoples_folders_are_left_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*OWN, "--out", "."]) == 2
    assert "--out . holds other files" in capsys.readouterr().err
    assert main(["attack", *MODEL, "--threat", "linf:0.1", "--out", "."]) == 2
    assert not (place / "result.json").exists()
    for limit, count in (("9", 9), ("4", 4)):
        assert main(["attack", *MODEL, "--threat", "linf:0.1", "--limit", limit]) == 0
        assert len(list((place / "signstep-attacked").glob("*.png"))) == count


def test_a_curve_of_an_attack_that_does_not_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del place
    assert main([*OWN, "--curve-attack", "bim"]) == 2
    assert "curve_attacks names ['bim']" in capsys.readouterr().err


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
    assert main(["verify", "signstep-report"]) == 0


def test_regression_from_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.linspace(0, 1, 36, dtype=np.float32).reshape(3, 3, 2, 2)
    np.savez(place / "real.npz", x=x, y=np.array([[0.5, -1, 2, 0.1]] * 3, np.float32))
    own = ["audit", *MODEL[:-1], "real.npz", "--threat", "linf:0.1", "--task", "regression"]
    assert main([*own, "--tolerance", "100"]) == 0
    assert Result.load("signstep-report/result.json").robust_accuracy == 1.0
    assert main([*own, "--tolerance", "0.01"]) == 0
    assert Result.load("signstep-report/result.json").clean_right == 0
    assert main(["verify", "signstep-report"]) == 0
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
    assert main(["verify", "signstep-report"]) == 0
