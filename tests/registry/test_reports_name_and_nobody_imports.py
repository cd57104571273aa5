"""What a report names is looked at if the person who verifies types it, and is imported in no other case.

Reports here are honest, of attacks, norms, data and a domain of somebody's own. Beside each, in its folder and in the
current one, lie modules of the names that it has, which leave a mark where they are imported.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scratch import installed, written
from test_norms_from_outside import MODULE as NORMS

import signstep as ss
from conftest import forget
from signstep.cli import main

ATTACKS = '''
"""Attacks."""
import signstep as ss
from signstep.engine.moves import steepest

def step(*, steps: int = 2, oracle=None):
    """A few steps."""
    return ss.GradientAttack("step", steepest(0.6), steps)
'''
NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
"""
DATA = """
import numpy as np

def loader():
    held = np.load("set.npz")
    return [(held["x"], held["y"])]
"""
BRIDGE = '''
"""Sums that must not fall."""
import torch

from signstep.auditing.sections import Section
from signstep.domains.case import Case
from signstep.engine.threat import l2
from signstep.model.declaration import Model


def case(request):
    x = torch.linspace(0.2, 0.8, 24, dtype=torch.float32, device="cpu").reshape(4, 6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Linear(6, 2).eval()
    y = net(x).argmax(1).detach()

    def summary(result, points):
        return (Section("What fell", (f"{result.fooled} sums fell.",)),)

    return Case("any", Model(net, name="a sum"), [(x, y)], l2(0.2), "four sums", summary, total=4)
'''
MARK = 'open({mark!r}, "a").write(__name__ + "\\n")\nraise AssertionError("imported")\n'
OWN = ["--model", "ournets:net", "--data", "set.npz", "--device", "cpu"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of whoever makes reports; it is the current one."""
    place = tmp_path / "maker"
    files = {
        "ourattacks.py": ATTACKS,
        "ournets.py": NETS,
        "ournorms.py": NORMS,
        "ourdata.py": DATA,
        "ours/__init__.py": "",
        "ours/bridge.py": BRIDGE,
    }
    written(place, files)
    monkeypatch.chdir(place)
    x = torch.rand(12, 6, generator=torch.Generator().manual_seed(1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        y = torch.nn.Linear(6, 3)(x).argmax(1)
    np.savez(place / "set.npz", x=x.numpy(), y=y.numpy())
    return place


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    return shown.out + shown.err


def _forget(place: Path) -> None:
    """Another process: nothing is imported, and nothing was typed."""
    for name in [name for name, module in sys.modules.items() if str(place) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]
    forget()


CASES = {
    "attack": ([*OWN, "--threat", "linf:0.2", "--attack", "fgsm,ourattacks:step:steps=3"], ["ourattacks"], ["passes"]),
    "ladder": ([*OWN, "--threat", "linf:0.2", "--ladder", "ourattacks:step,fgsm"], ["ourattacks"], ["passes"]),
    "norm": (
        [*OWN, "--threat", "ournorms:Weighted(0.5):0.8", "--attack", "fgsm,pgd"],
        ["ournorms"],
        ["configuration", "threat model", "model and data"],
    ),
    "data": (
        ["--model", "ournets:net", "--data", "ourdata:loader", "--device", "cpu", "--threat", "linf:0.2"],
        ["ourdata"],
        [],
    ),
    "domain": (["--domain", "ours.bridge", "--device", "cpu"], ["ours", "ours.bridge"], ["model and data"]),
}
TYPED = {
    "attack": [*OWN, "--attack", "ourattacks:step"],
    "ladder": [*OWN, "--attack", "ourattacks:step"],
    "norm": [*OWN, "--threat", "ournorms:Weighted(0.5):0.8"],
    "data": ["--model", "ournets:net", "--data", "ourdata:loader", "--device", "cpu"],
    "domain": ["--domain", "ours.bridge", "--device", "cpu"],
}


@pytest.mark.parametrize("kind", CASES)
def test_what_was_typed_is_checked_and_what_was_not_is_left_open(
    kind: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, modules, opened = CASES[kind]
    assert main(["audit", *asked, "--curve", "none"]) == 0, _said(capsys)
    report = here / "signstep-report"
    _forget(here)
    _said(capsys)
    # All of it is typed: everything holds, and everything was looked at.
    assert main(["verify", str(report), *TYPED[kind], "--again", "4"]) == 0, _said(capsys)
    _forget(here)
    _said(capsys)
    # None of it: nothing is imported, from wherever a module of that name may lie.
    mark = tmp_path / "imported"
    reader = tmp_path / "reader"
    for name in modules:
        path = name.replace(".", "/") + ("/__init__.py" if name == "ours" else ".py")
        for place in (reader, report):
            written(place, {path: MARK.format(mark=str(mark))})
    shutil.copy(here / "ournets.py", reader / "ournets.py")
    shutil.copy(here / "set.npz", reader / "set.npz")
    monkeypatch.chdir(reader)
    bare = [] if kind in ("data", "domain") else OWN
    assert main(["verify", str(report), *bare]) in (1, 4)  # the folder has files that its sums do not have
    said = _said(capsys)
    assert not mark.exists(), mark.read_text()
    assert not set(modules) & set(sys.modules)
    for check in opened:
        assert f"open  {check}: " in said, said
    assert [line for line in said.splitlines() if line.startswith("FAIL") and not line.startswith("FAIL  files")] == []
    # Nor where the current folder is the report itself, and looks like a package that is installed there.
    monkeypatch.chdir(report)
    monkeypatch.syspath_prepend(str(report))
    points = (
        "[signstep.attacks]\nstep = os:abort\n[signstep.norms]\nhalf = os:abort\n[signstep.domains]\nsums = os:abort\n"
    )
    installed(report, "forged", {}, points, monkeypatch)
    main(["verify", str(report)])
    assert not mark.exists(), mark.read_text()


def test_a_report_says_what_to_type(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*OWN, "--threat", "ournorms:HALF:0.8", "--attack", "fgsm,ourattacks:step:steps=3,ourattacks:step"]
    assert main(["audit", *asked, "--curve", "none"]) == 0
    _forget(here)
    _said(capsys)
    assert main(["verify", str(here / "signstep-report")]) == 4
    said = _said(capsys)
    assert "--data=set.npz --attack=ourattacks:step --threat=ournorms:HALF:0.8" in said
    assert "open  passes: no plan is known of ourattacks:step:steps=3, whose ourattacks:step is somebody's own" in said


def test_a_name_that_a_package_gives_is_typed_too(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(here, "our-attacks", {}, "[signstep.attacks]\nstep = ourattacks:step\n", monkeypatch)
    assert main(["audit", *OWN, "--threat", "linf:0.2", "--attack", "step:steps=3", "--curve", "none"]) == 0
    _forget(here)
    _said(capsys)
    assert main(["verify", str(here / "signstep-report"), *OWN]) == 1
    assert "FAIL  passes: step:steps=3 is no recipe of this version" in _said(capsys)
    assert "ourattacks" not in sys.modules
    assert main(["verify", str(here / "signstep-report"), *OWN, "--attack", "step"]) == 0


def test_verify_in_python_imports_nothing_either(here: Path) -> None:
    asked = [*OWN, "--threat", "linf:0.2", "--attack", "fgsm,ourattacks:step:steps=3"]
    assert main(["audit", *asked, "--curve", "none"]) == 0
    _forget(here)
    checked = ss.verify(here / "signstep-report")
    assert checked.holds
    assert "ourattacks" not in sys.modules
    ss.recipe("ourattacks:step")
    assert next(check for check in ss.verify(here / "signstep-report").checks if check.name == "passes").complete


def test_a_domain_stands_in_its_records_as_it_was_typed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(here, {"ours/rows.py": _ROWS})
    for spec in ("ours.bridge", "ours.rows:ROW"):
        assert main(["audit", "--domain", spec, "--curve", "none", "--out", "a"]) == 0, _said(capsys)
        record = json.loads((here / "a" / "result.json").read_text())
        assert record["terms"]["domain"] == spec
        assert record["sections"][0]["text"] == [f"{ss.Result.load(here / 'a' / 'result.json').fooled} sums fell."]
    _said(capsys)
    for spec, words in WRONG_DOMAINS.items():
        assert main(["audit", "--domain", spec]) == 2
        assert words in _said(capsys)


_ROWS = """
from signstep.domains import Domain

ROW = Domain("sums", "sums", "ours.bridge")
EMPTY = Domain("empty", "nothing", "ours")
LOST = Domain("lost", "nothing", "ours.nowhere")
BOASTING = Domain("boasting", "sums", "ours.bridge", recipes=("fastest",))
number = 3
"""
WRONG_DOMAINS = {
    "ours.bridg": "there is no module ours.bridg to import from",
    "ours.rows": "ours.rows has no case(request), which makes an audit of a request; write it",
    "ours.rows:EMPTY": "ours has no case(request)",
    "ours.rows:LOST": "there is no module ours.nowhere",
    "ours.rows:BOASTING": "ours.bridge has no RECIPES for fastest; give it a row for each",
    "ours.rows:number": "it is a int; name a module that offers case(request), or a Domain",
    "tabluar": "did you mean 'tabular'?",
}


def test_an_installed_domain_has_a_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    points = "[signstep.domains]\nsums = ours.rows:ROW\nbridge = ours.bridge\n"
    installed(here, "our-domains", {"ours/rows.py": _ROWS}, points, monkeypatch)
    for name in ("sums", "bridge"):
        assert main(["audit", "--domain", name, "--curve", "none", "--out", name]) == 0, _said(capsys)
        assert ss.Result.load(here / name / "result.json").terms["domain"] == name
        assert main(["verify", name, "--domain", name]) == 0
    assert main(["audit", "--domain", "sums", "--split", "test"]) == 2
    assert "--split has no effect with --domain sums" in _said(capsys)
