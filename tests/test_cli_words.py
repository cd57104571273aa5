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
from signstep.cli.option_names import in_options, options_by_argument
from signstep.data import open_data
from signstep.engine.threat import parse_threat
from signstep.errors import InputError, SignstepError
from signstep.messages import Arg, Blank, Key
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


def said(options: Any, *parts: Any, **more: Any) -> str:
    return in_options(InputError(*parts, **more), options)


def test_each_command_has_its_own_options() -> None:
    zap = Arg("recipe", "zap")
    assert said(ATTACK, zap) == "--recipe zap"
    assert said(AUDIT, zap) == "--attack zap"
    assert said(options_by_argument(None), zap) == "recipe='zap'"
    assert said(AUDIT, Arg("ladder", "quick")) == "--ladder quick"
    assert said(ATTACK, Arg("ladder", "quick")) == "ladder='quick'"  # it has no such option
    for command in ("audit", "attack"):
        options = options_by_argument(GROUP.commands[command])
        assert {"model", "data", "threat", "target", "recipe", "skip_bad", "mean"} <= set(options)


@pytest.mark.parametrize(
    "text",
    [
        "the column 'skip_bad' holds 'mean=3'",
        "photos/mean=3/batch_size.png and my-batch_size cannot be read",
        "skip_bad=True, box=None and --mean",
    ],
)
def test_text_is_nobodys_argument(text: str) -> None:
    assert said(AUDIT, text, remedy=text) == f"{text}; {text}"
    assert said(AUDIT, Arg("mean", 3), remedy="drop it", where=text) == f"{text}: mean=3; drop it"
    assert said(AUDIT, Key("mean", 3), remedy=("write", Key("box", 1))) == "mean = 3; write box = 1"


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        (Arg("skip_bad", True), "--skip-bad"),
        (Arg("target", None), "--goal untargeted"),
        (Arg("box", None), "--box none"),
        (Arg("box", (0, 1)), "--box 0,1"),
        (Arg("box", Blank("low", "high")), "--box LOW,HIGH"),
        (Arg("mean", [0.1, 0.2, 0.3]), "--mean 0.1,0.2,0.3"),
        (Arg("mean"), "--mean"),
        (Arg("mean", (3,), of="shape"), "--mean has shape (3,)"),
        (Arg("curve", False), "--curve none"),
        (Arg("resize", (2, 3)), "--resize 2x3"),
        (Arg("task", Blank("Regression(tolerance)")), "--task regression --tolerance T"),
        (Arg("eps", None), "--threat NORM:none"),
        (Arg("eps"), "--threat NORM:EPS"),
        (Arg("norm", "zap"), "--threat zap:EPS"),
        (Arg("eps", torch.zeros(2), shown="0..0 per example"), "--threat NORM:0..0 per example"),
        (Arg("weights", Path("a.pt")), "--weights a.pt"),
        (Arg("weights", "my weights.pt"), "--weights 'my weights.pt'"),
        (Arg("attacks", ["fgsm", "pgd"]), "--attack fgsm --attack pgd"),
        (Arg("ignore_label", 5, python="task=Multiclass(ignore=5)"), "--ignore-label 5"),
    ],
    ids=str,
)
def test_values_are_written_as_they_are_typed(argument: Arg, text: str) -> None:
    assert said(AUDIT, argument) == text


def test_options_that_go_together_can_be_copied() -> None:
    told = said(AUDIT, "no model", remedy=("pass", Arg("model", "nets:net"), Arg("weights", "w.pt"), ", or none"))
    assert told == "no model; pass --model nets:net --weights w.pt, or none"


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
        "import warnings\nfrom torch import nn\nfrom signstep.errors import SignstepWarning\n"
        "from signstep.messages import Arg\n\n"
        "def net():\n    warnings.warn(SignstepWarning('mean=3', remedy=('pass', Arg('inputs', 'raw'))))\n"
        "    warnings.warn('use mean=3')\n    return nn.Linear(3, 2)\n"
    )
    np.savez(tmp_path / "set.npz", x=np.zeros((2, 3), np.float32), y=np.zeros(2, int))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "warnnets", raising=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("warnings.filters", [])
        main(["audit", "--data", "set.npz", "--model", "warnnets:net", "--threat", "linf:0.1"])
    said = capsys.readouterr().err
    assert "warning: mean=3; pass --inputs raw" in said
    assert "warning: UserWarning: use mean=3" in said
