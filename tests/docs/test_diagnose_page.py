"""The page on diagnosis does what it says: its file is written, its command runs and ends as is written there."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from signstep.cli import main
from signstep.diagnosing.battery import TESTS

sys.path.insert(0, str(Path(__file__).parent))
from test_readme_blocks import ROOT, blocks

PAGE = (ROOT / "docs" / "diagnose.md").read_text(encoding="utf-8")


def test_the_command_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    marked = [block for block in blocks(PAGE) if block.mark is not None]
    assert [block.mark for block in marked] == ["file", "run: 1"]
    file, run = marked
    (tmp_path / file.body.partition("\n")[0].removeprefix("# ")).write_text(file.body, encoding="utf-8")
    words = shlex.split(run.body)
    assert words[:2] == ["signstep", "diagnose"]
    assert main(words[1:]) == 1
    said = capfd.readouterr()
    assert "verdict   inflated by non-differentiable step: " in said.out
    assert "mynet.py:16" in said.out
    (command,) = [line.strip() for line in said.out.splitlines() if line.strip().startswith("signstep audit")][:1]
    assert command.startswith(
        "signstep audit --model mynet:build --data digits --limit 40 --threat linf:0.15 --attack "
    )
    assert "bpda-pgd:steps=40" in command
    assert "gate failed: inflated" in said.err


def test_every_test_has_its_line() -> None:
    table = PAGE[PAGE.index("## The battery") :]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == list(TESTS.own)
