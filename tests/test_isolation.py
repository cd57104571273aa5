"""Tests are at home in a folder of their own, and what one leaves behind is seen."""

import importlib
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import signstep as ss
from conftest import _drop_modules, differences, settings
from signstep.auditing.ladder import LADDERS
from signstep.demo import _cache_folder

PLACES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "SIGNSTEP_CACHE", "TORCH_HOME", "HF_HOME", "MPLCONFIGDIR")


def test_home_and_caches_are_the_sessions_own_also_in_other_programs() -> None:
    code = "import json, os, pathlib; print(json.dumps({**os.environ, 'found': str(pathlib.Path.home())}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert {name: seen[name] for name in PLACES} == {name: os.environ[name] for name in PLACES}
    assert all("signstep-tests-" in seen[name] for name in (*PLACES, "found"))
    assert "signstep-tests-" in str(_cache_folder())
    assert (seen["COLUMNS"], seen["TZ"], seen["no_proxy"]) == ("80", "UTC", "*")
    assert not any(name.lower() in ("http_proxy", "https_proxy") for name in seen)


@pytest.mark.parametrize("turn", [0, 1])
def test_every_test_starts_from_the_same_state_of_the_generators(turn: int) -> None:
    assert torch.rand(()).item() == torch.rand((), generator=torch.Generator().manual_seed(0)).item(), turn
    assert np.random.random() == np.random.RandomState(0).random_sample()
    assert random.random() == random.Random(0).random()


def test_what_is_left_behind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings()
    assert differences(before, settings()) == []
    with monkeypatch.context() as patched:
        patched.setenv("SIGNSTEP_LEFT", "1")
        patched.delenv("HOME")
        patched.setitem(LADDERS, "quick@1", replace(LADDERS["quick@1"]))
        with torch.no_grad(), ss.RECIPES.lent(replace(ss.RECIPES["pgd"], name="mine")):
            found = {line.partition(" was ")[0] for line in differences(before, settings())}
    assert found == {"$SIGNSTEP_LEFT", "$HOME", "RECIPES[mine]", "LADDERS[quick@1]", "gradients"}
    assert differences(before, settings()) == []


@pytest.mark.parametrize("turn", [0, 1])
def test_modules_that_a_test_made_are_gone_in_the_next(
    turn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "left_behind.py").write_text(f"turn = {turn}\n")
    assert importlib.import_module("left_behind").turn == turn


def test_what_stands_in_the_place_of_a_module_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    ours, theirs = ModuleType("ours"), ModuleType("theirs")
    ours.__file__, theirs.__file__ = str(base / "ours.py"), str(tmp_path / "based" / "theirs.py")
    monkeypatch.setitem(sys.modules, "signstep_tests_one", theirs)
    _drop_modules(base)
    assert sys.modules["signstep_tests_one"] is theirs
    monkeypatch.setitem(sys.modules, "signstep_tests_one", ours)
    monkeypatch.setitem(sys.modules, "signstep_tests_two", ours)
    _drop_modules(base)
    assert not {"signstep_tests_one", "signstep_tests_two"} & {*sys.modules}
