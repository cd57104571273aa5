"""A wrong value of any option of any command is one sentence that names the option as it is typed, or what was typed.

The options are those that the commands have: a new one is tried by being there, with a value that nothing takes or the
one given for it here.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from signstep.cli import app, main
from signstep.cli.option_names import options_by_argument

GROUP: Any = typer.main.get_command(app)
# A use of each command that works, apart from where it writes.
BASE = {
    "attack": "--model lawnets:net --data set.npz --threat linf:0.1 --recipe fgsm --limit 4",
    "audit": "--model lawnets:net --data set.npz --threat linf:0.1 --attack fgsm --limit 4",
    "diagnose": "--model lawnets:net --data set.npz --threat linf:0.1 --attack fgsm --examples 6",
    "defences": "--model lawnets:net --data set.npz --threat linf:0.1 --defend bit-depth --attack fgsm --limit 4",
    "smooth": "--model lawnets:net --data set.npz --sigma 0.5 --limit 2 --draws 20",
    "detect": "fit --model lawnets:net --data set.npz --detect confidence --out fitted.safetensors",
    "compare": "--model a=lawnets:net --model b=lawnets:other --data set.npz --threat linf:0.1 --ladder fgsm,pgd",
    "train": "--model lawnets:net --data set.npz --threat linf:0.1 --epochs 1 --batch-size 16 --ladder fgsm,pgd",
    "transfer": "--surrogate a=lawnets:net --victim b=lawnets:other --data set.npz --threat linf:0.1",
    "schema": "--domain tabular --data table.csv",
    "verify": "report --model lawnets:net --data set.npz",
    "sign": "report --key missing.key",
    "merge": "report report",
    "guard calibrate": "--model lawnets:net --data clean.npz --reject 0.05",
    "guard serve": "lawguard --model lawnets:net",
    "guard log": "--store sqlite:///law.db",
    "guard review": "0123 --store sqlite:///law.db",
    "guard challenge": "--model lawnets:net --data clean.npz --threat linf:0.1 --url http://127.0.0.1:9 "
    "--store sqlite:///law.db --examples 1 --clean 1",
    "guard report": "--store sqlite:///law.db",
    "guard key": "shop --store sqlite:///law.db",
}
NOTHING = "?!"
# Where nothing at all would not do: what is wrong in another way, or is looked at in another place.
WRONG = {
    "model": "lawnets",
    "surrogate": "lawnets",
    "transfer-to": "lawnets",
    "model-arg": "width",
    "threat": "zap:1",
    "box": "1",
    "grid": "-1",
    "resize": "9",
    "shard": "4/4",
    "fail-under": "2",
    "limit": "0",
    "max-pixels": "0",
    "eot": "0",
    "threads": "0",
    "tolerance": "-1",
    "device": "cuda:77",
    "split": "valid",
    "mode": "train",
    "out": "table.csv",
    "render": "table.csv",
    "label-column": "nowhere",
    "ignore-column": "nowhere",
    "log": "nowhere/guard.log",
}
# Options that every value is right for.
FREE = {
    ("verify", "ignore-column"): "columns are ignored where a table has them",
    ("sign", "new-key"): "beside a report it is one option too many, whatever it says",
    ("merge", "out"): "the two shards are looked at first",
    ("guard serve", "output"): "the calibration is of a model without: that is compared first",
    ("guard log", "client"): "a client may be called anything",
    ("guard review", "reviewer"): "so may a person",
    ("guard review", "export"): "there is nothing to export first",
}


def valued() -> list[tuple[str, str]]:
    """Command and option, of all that take a value."""
    return [
        (command, text.removeprefix("--"))
        for command, known in GROUP.commands.items()
        for option in known.params
        for text in option.opts
        if text.startswith("--") and not getattr(option, "is_flag", False)
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    text = (
        "from torch import nn\n\ndef net():\n    return nn.Linear(4, 3)\n\ndef other():\n    return nn.Linear(4, 3)\n"
    )
    (folder / "lawnets.py").write_text(text)
    rng = np.random.default_rng(0)
    np.savez(folder / "set.npz", x=rng.random((40, 4), dtype=np.float32), y=rng.integers(0, 3, 40))
    np.savez(folder / "clean.npz", x=rng.random((300, 4), dtype=np.float32), y=rng.integers(0, 3, 300))
    (folder / "table.csv").write_text("a,b,y\n" + "".join(f"{row},{row % 3},{row % 2}\n" for row in range(20)))
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        assert main(["audit", *BASE["audit"].split(), "--save-points", "4", "--out", "report"]) == 0
        assert main(["guard", "calibrate", *BASE["guard calibrate"].split(), "--out", "lawguard"]) == 0
        assert main(["guard", "key", *BASE["guard key"].split()]) == 0
    return folder


def without(words: list[str], flag: str) -> list[str]:
    """The words without an option and its value."""
    at = words.index(flag) if flag in words else len(words)
    return [*words[:at], *words[at + 2 :]]


@pytest.mark.parametrize(("command", "option"), valued(), ids=str)
def test_a_wrong_value_names_its_option(
    command: str,
    option: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    options = options_by_argument(GROUP.commands[command])
    flag, value = f"--{option}", WRONG.get(option, NOTHING)
    several = getattr(options[option.replace("-", "_")], "multiple", False)
    words = BASE[command].split() if several else without(BASE[command].split(), flag)
    if "out" in options and option != "out":
        words += ["--out", str(tmp_path / "out.toml")]
    status = main([command, *words, flag, value])
    said = capsys.readouterr().err.strip().splitlines()[-1:]
    if (command, option) in FREE:
        return
    assert status == 2, said
    assert flag in said[0] or value in said[0]
    names = [name for name, known in options.items() if known is options[option.replace("-", "_")]]
    written = [name for name in names if re.search(rf"(?<![\w-]){name}=", said[0])]
    assert written == [], said


def test_every_command_is_tried() -> None:
    assert {command for command, _ in valued()} == set(BASE)
    assert set(WRONG) <= {option for _, option in valued()}
    assert set(FREE) <= set(valued())
    assert len(valued()) > 150


def test_a_guard_stands_behind_the_defence_it_was_calibrated_with(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    own, chain = ["--model", "lawnets:net"], ["--defend", "bit-depth:bits=3"]
    folder = str(tmp_path / "defended")
    words = ["--data", "clean.npz", "--reject", "0.05", "--box", "0,1", "--out", folder]
    assert main(["guard", "calibrate", *own, *chain, *words]) == 0
    # What is looked at once the calibration was found to be of this model.
    later = ["guard", "serve", folder, *own, "--store", f"sqlite:///{tmp_path}/law.db", "--fields", "a"]
    for defence, said in ((chain, "--fields"), ([], "declared otherwise"), (["--defend", "jpg"], "did you mean")):
        assert main([*later, *defence]) == 2
        assert said in capsys.readouterr().err.strip().splitlines()[-1]
