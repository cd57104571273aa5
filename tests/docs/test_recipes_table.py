"""The table of recipes on the page is the table in the code."""

import runpy
from pathlib import Path

from signstep.attacks.recipes import _ALIASES, RECIPES
from signstep.explain import topic_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_the_page_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "generate_docs.py"))
    assert script["rewritten"](PAGE, script["PARTS"]["recipes.md"]) == PAGE, "stale: python scripts/generate_docs.py"


def test_every_recipe_has_one_row_with_its_source() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) == len(RECIPES.own)
    for row, recipe in zip(rows, RECIPES.own.values(), strict=True):
        assert row.startswith(f"| `{recipe.name}` | {recipe.title} |")
        assert row.endswith(f"| {recipe.cost} | {recipe.source} |")


def test_other_names_are_on_the_page() -> None:
    assert all(f"`{alias}`" in PAGE for alias in _ALIASES)


def test_every_recipe_is_explained() -> None:
    assert [name for name in RECIPES if topic_of(name) is None] == []
