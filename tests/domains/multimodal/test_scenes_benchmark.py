"""The script that tries all texts: no attack on texts fools more than all of them do."""

import importlib.util
import re
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "multimodal.py"


def test_no_attack_fools_more_than_all_texts_do(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("multimodal_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.scenes(12, budgets=(1,))
    lines = capsys.readouterr().out.splitlines()
    every = re.search(r"every text fools (\d+) of (\d+)", lines[0])
    assert every is not None
    assert 0 < int(every[2]) <= 12
    fooled = [int(line.split()[-5]) for line in lines[1:]]
    assert len(fooled) == len(script.RECIPES)
    assert max(fooled) <= int(every[1])
