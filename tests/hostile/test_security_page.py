"""The page on security names tests that exist and caps as they are."""

import ast
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from signstep.io.caps import Caps

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_every_test_that_the_page_names_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {part.name for part in tree.body if isinstance(part, ast.FunctionDef)}


def test_the_page_has_every_attack_a_test_and_every_cap_its_number() -> None:
    rows = PAGE[PAGE.index("## Attacks") : PAGE.index("## How to report")].splitlines()
    assert all("::test_" in row for row in rows if row.startswith("| ") and not row.startswith("| attack"))
    assert len(TESTS) >= 15
    found = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.MULTILINE))
    assert {name: int(number) for name, number in found.items()} == asdict(Caps())
