"""The first pages stay short: the README, the menu, and a home page whose commands exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from mkdocs.utils.yaml import yaml_load

from signstep.cli import app
from signstep.engine.threat import parse_threat

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GROUP: Any = typer.main.get_command(app)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+\.md)(?:#[^)]*)?\)")


def configuration() -> dict[str, Any]:
    """What mkdocs.yml says."""
    with (ROOT / "mkdocs.yml").open("rb") as file:
        found: dict[str, Any] = yaml_load(file)
    return found


def menu() -> dict[str, list[str]]:
    """Pages by group."""
    groups = configuration()["nav"]
    return {
        name: [page for entry in pages for page in entry.values()] for group in groups for name, pages in group.items()
    }


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1085


def test_the_readme_shows_the_two_commands_the_one_and_a_small_picture() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for needed in (
        "make audit",
        "make test",
        "signstep audit --model mynet:build",
        "FGSM alone never proves robustness",
    ):
        assert needed in text
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
        assert (ROOT / picture).is_file()
    assert (DOCS / "images" / "report.png").stat().st_size < 200_000


def test_the_menu_is_short() -> None:
    groups = menu()
    assert len(groups) == 5
    pages = [page for group in groups.values() for page in group]
    assert len(pages) == len(set(pages)) <= 25
    assert [page for page in pages if not (DOCS / page).is_file()] == []


def test_every_page_is_in_the_menu_or_reached_by_links_from_the_home_page() -> None:
    seen: set[str] = set()
    waiting = ["index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        for link in _LINK.findall((DOCS / page).read_text(encoding="utf-8")):
            target = (DOCS / page).parent.joinpath(link).resolve()
            if target.is_relative_to(DOCS.resolve()) and target.is_file():
                waiting.append(target.relative_to(DOCS.resolve()).as_posix())
    in_menu = {page for group in menu().values() for page in group}
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert pages - seen - in_menu == set()
    # Those that are left out of the menu are reached without it.
    assert pages - in_menu <= seen


def rows() -> list[tuple[str, str]]:
    """What somebody has, and the command."""
    text = (DOCS / "index.md").read_text(encoding="utf-8").partition("| I have a ... | the command |\n|---|---|\n")[2]
    lines = text.partition("\n\n")[0].splitlines()
    return [
        (cells[1].strip(), re.findall(r"`(signstep [^`]*)`", cells[2])[0])
        for cells in (line.split("|") for line in lines)
    ]


@pytest.mark.parametrize(("thing", "shown"), rows(), ids=[thing for thing, _ in rows()])
def test_what_the_home_page_names_is_there(thing: str, shown: str) -> None:
    words = shlex.split(shown)[1:]
    command = GROUP.commands[words[0]]
    flags = {text for option in command.params for text in option.opts}
    assert [word for word in words if word.startswith("--") and word not in flags] == []
    if "--threat" in words:
        assert parse_threat(words[words.index("--threat") + 1], box=None)
    with command.make_context(words[0], words[1:]):
        pass
    for link in _LINK.findall(thing):
        assert (DOCS / link).is_file()


def test_the_home_page_asks_about_all_there_is() -> None:
    things = " ".join(thing for thing, _ in rows())
    for word in ("module", "Hugging Face", "torchvision", "ONNX", "API", "text", "table", "controller", "crystal"):
        assert word in things, word


def test_the_search_needs_no_network() -> None:
    whole = configuration()
    assert "offline" in whole["plugins"]
    assert whole["use_directory_urls"] is False
    shims = whole["extra"]["polyfills"]
    assert shims
    assert all("iframe-worker" in shim and (DOCS / shim).is_file() for shim in shims)
