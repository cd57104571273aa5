"""Messages of the command line name its options, and leave alone what belongs to the user."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

import signstep as ss
from flat import flat
from signstep.attacks.recipes import recipe
from signstep.cli import app, main
from signstep.cli.option_names import in_options, options_by_argument, translated
from signstep.data import open_data
from signstep.engine.threat import parse_threat
from signstep.errors import SignstepError
from signstep.model.space import InputSpace

GROUP: Any = typer.main.get_command(app)
AUDIT, ATTACK = (options_by_argument(GROUP.commands[name]) for name in ("audit", "attack"))


def table(folder: Path) -> Path:
    path = folder / "box=1,mean=2.csv"
    path.write_text("a,b\n1,2\n")
    return path


def audited(**more: Any) -> None:
    model, options = flat(torch.nn.Linear(2, 3), {"threat": ss.linf(0.1), **more})
    ss.audit(model, (torch.rand(4, 2), torch.zeros(4, dtype=torch.int64)), **options)


# What raises, from the arguments of the API, and what the command line makes of it.
REAL: list[tuple[Any, str]] = [
    (lambda _: parse_threat("linf:none", box=None), "pass --box LOW,HIGH or a number for eps"),
    (lambda _: parse_threat("linf:-1"), "--threat NORM:-1 is negative"),
    (lambda _: parse_threat("linf:0.1", box=None, grid=255), "--grid 255 needs a box with two scalar ends"),
    (lambda _: parse_threat("linf:0.1", box=None, grid=255), "pass --box 0,1"),
    (lambda _: parse_threat("linf:0.1", box=(1, 0)), "pass --box LOW,HIGH"),
    (lambda _: audited(threat=ss.linf(8)), "--threat NORM:8 is beyond the box's own diameter"),
    (lambda _: audited(threat=ss.linf(8)), "Pass --threat NORM:none to mean the box alone"),
    (
        lambda _: InputSpace.of(0.5, None),
        "--std is missing: normalisation needs both --mean and --std; pass both (--std 1 or --mean 0",
    ),
    (lambda _: InputSpace.of(None, None, inputs="normalised"), "without --mean and --std"),
    (lambda _: InputSpace.of(None, None, inputs="scaled"), "--inputs scaled; pass 'raw' or 'normalised'"),  # type: ignore[arg-type]
    (
        lambda _: InputSpace.of([0.5, 0.5], [1.0, 0.0]),
        "--std 1.0,0.0, --mean 0.5,0.5; pass finite numbers, and std above 0",
    ),
    (lambda _: recipe("zap"), "--attack zap is not one of"),
    (lambda _: audited(attacks=["fgsm", "fgm"]), "--attack fgsm --attack fgsm; pass one or more different recipes"),
    (lambda _: audited(curve_attacks=["bim"]), "--curve-attack names ['bim']"),
    (lambda _: audited(limit=0), "--limit 0; pass the number of examples"),
    (lambda _: audited(loss="hinge"), "--loss hinge is not one of"),
    (lambda _: audited(task="ranking"), "--task ranking is not one of"),
    (lambda _: audited(task="regression"), "--task regression --tolerance T"),
    (lambda _: audited(mode="train"), "--mode train; pass 'eval' or 'keep'"),
    (lambda _: audited(target="far"), "--goal far; pass"),
    (lambda f: open_data(table(f)), "pass --label-column with the one that holds"),
    (lambda f: open_data(table(f), label_column="c"), "no column 'c'; pass --label-column with one of a, b"),
    (lambda f: open_data(table(f), resize=(2, 3)), "--resize 2x3 works for folders of images"),
    (lambda f: open_data(table(f), split="test"), "--split test has no meaning for"),
    (lambda f: open_data(table(f), split="all"), "--split all; pass 'test' or 'train'"),
    (lambda _: open_data("digits", resize=(0, 3)), "--resize 0x3; pass (height, width) in pixels"),
    (lambda _: open_data("digits", skip_bad=True), "--skip-bad works for folders of images"),
    (lambda _: open_data("digits", batch_size=0), "--batch-size 0; pass at least 1"),
    (lambda _: open_data("digits", classes="no file.txt"), "--classes 'no file.txt' cannot be read"),
]


@pytest.mark.parametrize(("raises", "wanted"), REAL, ids=[wanted for _, wanted in REAL])
def test_arguments_become_options(raises: Any, wanted: str, tmp_path: Path) -> None:
    with pytest.raises(SignstepError) as caught:
        raises(tmp_path)
    text = in_options(caught.value, AUDIT)
    assert wanted in text
    assert str(caught.value) != text
    # A path keeps its name, whatever is in it.
    assert ("box=1,mean=2.csv" in str(caught.value)) == ("box=1,mean=2.csv" in text)


def test_each_command_has_its_own_options() -> None:
    assert translated("recipe='zap'", ATTACK) == "--recipe zap"
    assert translated("recipe='zap'", AUDIT) == "--attack zap"
    assert translated("budget='raw'", AUDIT) == "--budget raw"
    assert translated("budget='raw'", ATTACK) == "budget='raw'"  # it has no such option
    assert translated("recipe='zap'", options_by_argument(None)) == "recipe='zap'"
    for command in ("audit", "attack"):
        options = options_by_argument(GROUP.commands[command])
        assert {"model", "data", "threat", "target", "recipe", "skip_bad", "mean"} <= set(options)


@pytest.mark.parametrize(
    "text",
    [
        "nothing here",
        "the column 'skip_bad' holds 'mean=3'",
        "photos/mean=3/batch_size.png and my-batch_size cannot be read",
        "x=3, y=None, threat_terms=5, semean=2",
        "takes batch_size(3)",
    ],
)
def test_what_is_no_argument_stays(text: str) -> None:
    assert translated(text, AUDIT) == text


def test_sentences_around_options_stay() -> None:
    assert translated("skip them (skip_bad).", AUDIT) == "skip them (--skip-bad)."
    assert translated("pass skip_bad=True.", AUDIT) == "pass --skip-bad."
    assert translated("pass target=None, or box=None", AUDIT) == "pass --goal untargeted, or --box none"
    assert translated("pass mean=[0.1, 0.2, 0.3]; or", AUDIT) == "pass --mean 0.1,0.2,0.3; or"
    assert translated("(curve=False)", AUDIT) == "(--curve none)"


def test_the_arguments_of_a_factory_are_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wordnets.py").write_text("def net(mean=3, seed=0):\n    raise ValueError('mean=3 and box=None')\n")
    np.savez(tmp_path / "set.npz", x=np.zeros((2, 3), np.float32), y=np.zeros(2, int))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "wordnets", raising=False)
    own = ["audit", "--data", "set.npz", "--model", "wordnets:net", "--threat", "linf:0.1", "--model-arg"]
    assert main([*own, "mode=4"]) == 2
    assert "takes (mean=3, seed=0), got mode=4" in capsys.readouterr().err
    assert main([*own, "mean=4"]) == 2
    assert "ValueError: mean=3 and box=None; called with mean=4" in capsys.readouterr().err


def test_warnings_are_in_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "warnnets.py").write_text(
        "import warnings\nfrom torch import nn\nfrom signstep.errors import SignstepWarning\n\n"
        "def net():\n    warnings.warn('pass inputs=\\'raw\\'', SignstepWarning)\n"
        "    warnings.warn('use mean=3')\n    return nn.Linear(3, 2)\n"
    )
    np.savez(tmp_path / "set.npz", x=np.zeros((2, 3), np.float32), y=np.zeros(2, int))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "warnnets", raising=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("warnings.filters", [])
        main(["audit", "--data", "set.npz", "--model", "warnnets:net", "--threat", "linf:0.1"])
    said = capsys.readouterr().err
    assert "warning: pass --inputs raw" in said
    assert "warning: UserWarning: use mean=3" in said
