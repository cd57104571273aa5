"""The page on models names every field of the values that verbs share, and refuses what the verbs refuse."""

import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

import signstep as ss
from signstep.cli import app

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from test_declarations import REFUSED, UNSEARCHED

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def rows(mark: str) -> list[list[str]]:
    """The cells of the table after a comment, without its header."""
    below = PAGE.partition(f"<!-- {mark} -->")[2].lstrip()
    table = below.partition("\n\n")[0].splitlines()
    assert table, f"no table after <!-- {mark} -->"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def words(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.mark.parametrize("shared", [ss.Model, ss.Search, ss.Run, ss.Curve], ids=lambda shared: str(shared.__name__))
def test_every_field_has_a_row(shared: Any) -> None:
    named = [name for row in rows(f"fields: {shared.__name__}") for name in words(row[0])]
    assert named == [part.name for part in fields(shared)]


def test_what_the_page_says_is_refused_is_refused() -> None:
    said = [(words(row[0])[0], words(row[1]), words(row[2])) for row in rows("refused")]
    assert {(verb, name) for verb, declared, _ in said for name in declared} == REFUSED
    assert {(verb, name) for verb, _, searched in said for name in searched} == UNSEARCHED


def test_every_option_of_a_declaration_is_on_the_page() -> None:
    group: Any = typer.main.get_command(app)
    options = {name for option in group.commands["audit"].params for name in option.opts}
    shared = {part.name for thing in (ss.Model, ss.Search, ss.Run, ss.Curve) for part in fields(thing)}
    wanted = {name for name in options if name.removeprefix("--").replace("-", "_") in shared}
    assert wanted <= set(re.findall(r"--[a-z-]+", PAGE.partition("## On the command line")[2]))
