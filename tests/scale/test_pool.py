"""Processes of this machine: the same answer, whoever dies; what cannot work says so before anything runs."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from test_units import ROWS, THREAT, UNIT, data, starts
from unitnets import Faulty, RowNet

import signstep as ss
from own_process import FORKED
from signstep.auditing.result import Result
from signstep.cli import main
from signstep.errors import InputError, LoadError
from signstep.scale import Pool, digest
from signstep.scale.identity import text_of

pytestmark = pytest.mark.skipif(FORKED is None, reason="needs a fork server, which POSIX has")

HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", HERE, prepend=":")


def pool(workers: int) -> Pool:
    return Pool(workers, threads=1, start="forkserver")


def audited(executor: Pool, model: Any = None, **more: Any) -> Result:
    run = ss.Run(executor=executor, unit=UNIT, **more)
    return ss.audit(model or RowNet(), data(), threat=THREAT, attacks=["fgsm", "pgd:steps=3"], run=run)


def same_model(result: Result, other: Result) -> bool:
    from dataclasses import replace

    return digest(replace(result, model=other.model)) == digest(other)


def test_any_number_of_workers_gives_the_same_record(tmp_path: Path) -> None:
    one = audited(pool(0))
    two = audited(pool(2), out=tmp_path / "two")
    assert digest(two) == digest(one)
    assert starts(tmp_path / "two") == list(range(0, ROWS, UNIT))
    seven = audited(pool(7), out=tmp_path / "seven")  # more than there are units
    assert digest(seven) == digest(one)
    assert starts(tmp_path / "seven") == starts(tmp_path / "two")


def test_workers_that_are_killed_change_nothing(tmp_path: Path) -> None:
    """Rows of three units kill whoever looks at them, one of them three times."""
    marks = tuple(float(data()[0][row, 0]) for row in (2, 9, 22))
    once = Faulty(marks[:2], 1, str(tmp_path))
    found = audited(pool(2), once, out=tmp_path / "out")
    assert len(list(tmp_path.glob("*-0"))) == 2, "both have killed"
    assert same_model(found, audited(pool(0)))
    assert starts(tmp_path / "out") == list(range(0, ROWS, UNIT))


def test_an_error_of_the_model_comes_back_with_the_example(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    model = Faulty((float(data()[0][13, 0]),), 0, str(tmp_path / "broken"))
    with pytest.raises(
        InputError, match=r"^example 13: the model raised ValueError: this model cannot take such a row"
    ):
        audited(pool(1), model, out=tmp_path / "out")
    assert len(starts(tmp_path / "out")) >= 3


def test_a_worker_that_cannot_import_the_model_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = ModuleType("only_here")
    exec("class Net(__import__('unitnets').RowNet):\n    pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(LoadError, match=r"a worker cannot import the model .*only_here.*; see that its module"):
        audited(pool(1), module.Net(), out=tmp_path / "out")
    assert starts(tmp_path / "out") == []


def test_a_class_of_the_script_is_the_same_where_the_script_has_another_name() -> None:
    """A process that was spawned imports the script that began it as ``__mp_main__``."""
    here, there = (type("Net", (RowNet,), {"__module__": name}) for name in ("__main__", "__mp_main__"))
    assert text_of(here) == text_of(there) == "__main__.Net"


NETS = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
"""


def test_a_command_with_workers_writes_the_report_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By names and not by bytes: the worker opens model and data itself, in a process of its own."""
    (tmp_path / "scalenets.py").write_text(NETS)
    x = torch.randint(0, 255, (20, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    np.savez(tmp_path / "set.npz", x=x.numpy().astype(np.uint8), y=(torch.arange(20) % 4).numpy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    given = ["--model", "scalenets:net", "--data", "set.npz"]
    audit = ["audit", *given, "--threat", "linf:16/255", "--attack", "fgsm,pgd:steps=3"]
    assert main([*audit, "--out", "plain"]) == 0
    assert main([*audit, "--out", "one", "--workers", "1"]) == 0  # this process
    assert main([*audit, "--out", "two", "--on", "pool", "--workers", "1"]) == 0
    results = {name: Result.load(Path(name) / "result.json") for name in ("plain", "one", "two")}
    assert digest(results["one"]) == digest(results["two"])
    shown = {name: (result.per_example, result.curves, result.knob) for name, result in results.items()}
    assert shown["plain"] == shown["one"]
    assert (Path("one") / "signstep.toml").read_text() == (Path("plain") / "signstep.toml").read_text()
    # All is done: nothing is begun anew, and what was written is checked like any report.
    capsys.readouterr()
    assert main([*audit, "--out", "two", "--resume"]) == 0
    assert main(["verify", "two", *given]) == 0
    assert "a ledger beside them, which is no part of the report" in capsys.readouterr().out
    assert main([*audit, "--out", "two", "--resume", "--seed", "1"]) == 2
    assert "other terms (seed: 0 there, 1 here)" in capsys.readouterr().err


def test_models_are_compared_by_the_same_executors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "comparednets.py").write_text(NETS + TWO)
    x = torch.randint(0, 255, (20, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    np.savez(tmp_path / "set.npz", x=x.numpy().astype(np.uint8), y=(torch.arange(20) % 4).numpy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    entrants = ["--model", "a=comparednets:net", "--model", "b=comparednets:other"]
    words = ["compare", *entrants, "--data", "set.npz", "--threat", "linf:16/255", "--ladder", "fgsm,pgd:steps=3"]
    assert main([*words, "--out", "plain"]) == 0
    assert main([*words, "--out", "units", "--workers", "1"]) == 0
    assert main([*words, "--out", "units", "--resume"]) == 0
    for name in ("a", "b"):
        one, two = (Result.load(Path(out) / name / "report" / "result.json") for out in ("plain", "units"))
        assert one.per_example == two.per_example
        assert "units" in two.terms
    capsys.readouterr()
    assert main([*words, "--out", "units", "--resume", "--seed", "1"]) == 2
    assert "other terms (seed: 0 there, 1 here)" in capsys.readouterr().err


TWO = """

def other():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "0"], "--workers 0; pass a whole number from 1 on"),
        (["--workers", "many"], "--workers many; pass a whole number from 1 on"),
        (["--on", "mars"], "--on mars is not one of pool, ray, slurm"),
        (["--on", "pol"], "--on pol is not known; did you mean 'pool'?"),
        (["--on", "pool:7"], "has no meaning for a pool"),
        (["--on", "ray:nowhere"], "is not HOST:PORT; write ray:head:6379, say"),
        (["--on", "slurm:mars"], "--on slurm:mars names no cluster"),
        (["--partition", "gpu"], "--partition gpu needs --on slurm"),
        (["--on", "pool", "--partition", "gpu"], "--partition gpu has no meaning for a pool"),
        (["--workers", "1", "--shard", "0/2"], "each cut the data"),
    ],
)
def test_options_that_make_no_sense_are_said(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["audit", "--limit", "4", "--attack", "fgsm", *words]) == 2
    assert said in capsys.readouterr().err
