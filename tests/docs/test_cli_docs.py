"""The page on the command line says what the command line says."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(generate: ModuleType) -> None:
    pinned = re.search(r"^typer==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    installed = importlib.metadata.version("typer")
    if pinned is None or pinned[1] != installed:
        pytest.skip(f"typer {installed} words help in its own way; the page is made with the one in constraints.txt")
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert generate.rewritten(page, generate.PARTS["cli.md"]) == page, "stale: python scripts/generate_docs.py"


def test_every_command_is_on_the_page() -> None:
    from signstep.cli import app

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    names = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    assert names
    for name in names:
        assert f"$ signstep {name} --help" in page


def test_a_page_without_its_comments_is_an_error(generate: ModuleType) -> None:
    with pytest.raises(SystemExit, match="begin recipes"):
        generate.rewritten("# Nothing here", generate.PARTS["recipes.md"])
