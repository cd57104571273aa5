"""The tutorial works as it stands: its files are written, its commands run, and they end and say what the page says.

Blocks after ``<!-- file -->`` are files, named by their first line. Blocks after ``<!-- run -->`` are commands that end
with status 0, after ``<!-- run: 1 -->`` with 1. Numbers may differ on another machine, words may not.
"""

import importlib
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from signstep.cli import main
from signstep.testing import assert_robust

sys.path.insert(0, str(Path(__file__).parent))
from test_readme_blocks import ROOT, Block, blocks

PROGRAMS = ("train.py", "check.py")
FOUND = [block for block in blocks((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")) if block.mark]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("mynet", "test_robustness"):
        sys.modules.pop(name, None)


def test_the_tutorial_runs(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ran = 0
    for block in FOUND:
        if block.mark == "file":
            _file(block, place)
            continue
        assert block.kind == "sh"
        _, _, status = str(block.mark).partition(": ")
        for words in _commands(block):
            assert main(words) == int(status or 0), f"line {block.line}"
            ran += 1
        said = [_wording(line) for part in capfd.readouterr() for line in part.splitlines()]
        missing = [line for line in (block.output or "").splitlines() if _wording(line) not in said]
        assert not missing, f"line {block.line}"
    assert ran >= 8


def _file(block: Block, place: Path) -> None:
    """Write a file of the page, and run it if it is a program."""
    name = block.body.splitlines()[0].removeprefix("# ")
    (place / name).write_text(block.body, encoding="utf-8")
    if name in PROGRAMS:
        with torch.random.fork_rng(devices=[]):
            runpy.run_path(name, run_name="__main__")
    if name.startswith("test_"):
        importlib.import_module(name.removesuffix(".py")).test_robust(assert_robust)


def _commands(block: Block) -> list[list[str]]:
    lines = block.body.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    assert all(words[0] == "signstep" for words in commands)
    return [words[1:] for words in commands]


def _wording(line: str) -> str:
    return re.sub(r"\d[\d.]*(?:e[+-]?\d+)?", "#", line.strip())
