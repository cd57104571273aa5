"""The pages on the command line and on findings say what the code says."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from signstep.auditing.findings import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _skip_other_typer() -> None:
    pinned = re.search(r"^typer==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    installed = importlib.metadata.version("typer")
    if pinned is None or pinned[1] != installed:
        pytest.skip(f"typer {installed} words help in its own way; the page is made with the one in constraints.txt")


def test_the_page_is_current(generate: ModuleType) -> None:
    _skip_other_typer()
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert generate.rewritten(page, generate.PARTS["cli.md"]) == page, "stale: python scripts/generate_docs.py"


def test_the_help_without_torch_is_current(generate: ModuleType) -> None:
    _skip_other_typer()
    kept = {path.stem: path.read_text(encoding="utf-8") for path in generate.PAGES.glob("*.txt")}
    del kept["start"]  # written by hand
    assert kept == generate.help_pages(), "stale: python scripts/generate_docs.py"


def test_every_command_is_on_the_page() -> None:
    from signstep.cli import app

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    names = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    assert names
    for name in names:
        assert f"$ signstep {name} --help" in page


def test_the_page_of_findings_is_current(generate: ModuleType) -> None:
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert generate.rewritten(page, generate.PARTS["findings.md"]) == page, "stale: python scripts/generate_docs.py"


def test_the_table_of_what_can_be_proved_is_current(generate: ModuleType) -> None:
    page = (ROOT / "docs" / "concepts" / "verdicts.md").read_text(encoding="utf-8")
    parts = generate.PARTS["concepts/verdicts.md"]
    assert generate.rewritten(page, parts) == page, "stale: python scripts/generate_docs.py"


def test_the_table_of_openers_is_current(generate: ModuleType) -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert generate.rewritten(page, generate.PARTS["models.md"]) == page, "stale: python scripts/generate_docs.py"


def test_every_finding_is_on_the_page_once() -> None:
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (SS\d+): ", page, re.MULTILINE) == list(CATALOGUE)


def test_codes_on_the_pages_exist() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    codes = {code for page in pages for code in re.findall(r"\bSS\d{3}\b", page.read_text(encoding="utf-8"))}
    assert codes <= set(CATALOGUE)


def test_a_page_without_its_comments_is_an_error(generate: ModuleType) -> None:
    with pytest.raises(SystemExit, match="begin recipes"):
        generate.rewritten("# Nothing here", generate.PARTS["recipes.md"])
