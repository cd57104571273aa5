"""Every block of Python in README.md and docs/ runs, and prints what the page says it prints.

The blocks of a page share one namespace. A page that carries the comment ``<!-- given: model, loader, x, y -->`` gets
those names (and says so to its readers): a small classifier of 10 classes for (B, 1, 8, 8) in [0, 1] with random
weights, 12 digits with their labels, and the same digits as two batches. A ``text`` block that follows a ``python``
block is its output. A block after ``<!-- not run -->`` is only compiled, and so are the files of the tutorial, after
``<!-- file -->``: `test_tutorial` runs those, and `test_contributing` what is marked on that page.
"""

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer
from torch import nn

import signstep as ss
from signstep.auditing.findings import CATALOGUE
from signstep.auditing.ladder import LADDERS, Ladder
from signstep.auditing.table import table
from signstep.cli.candidates import named
from signstep.data.digits import digits
from signstep.domains.text.embedding import asked_for
from signstep.domains.text.schema import Schema, with_threat
from signstep.engine.threat import parse_threat
from signstep.train import Settings, training_recipe
from signstep.train.variants import variant
from signstep_entry import joined

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>not run|file|run(?:: \d+)?) -->\n+)?"
    r"(?P<indent> *)```(?P<kind>\w+)\n(?P<body>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_GIVEN = re.compile(r"<!-- given: ([\w, ]+) -->")


class Block(NamedTuple):
    """One fenced block of a page; ``mark`` is the comment before it, ``output`` the text block right after it."""

    kind: str
    body: str
    line: int
    mark: str | None
    output: str | None


def blocks(text: str) -> Iterator[Block]:
    found = list(_FENCE.finditer(text))
    for here, after in zip(found, [*found[1:], None], strict=False):
        follows = after is not None and after["kind"] == "text" and not text[here.end() : after.start()].strip()
        line = text.count("\n", 0, here.start("kind")) + 1
        output = after["body"] if follows and after is not None else None
        yield Block(here["kind"], here["body"], line, here["mark"], output)


def given(text: str) -> dict[str, Any]:
    names = {name.strip() for found in _GIVEN.findall(text) for name in found.split(",")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).eval()
    x, y = (part[:12] for part in digits("test"))
    known = {"model": model, "loader": [(x[:8], y[:8]), (x[8:], y[8:])], "x": x, "y": y}
    assert names <= set(known)
    return {name: known[name] for name in names}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("autoattack@1", "thorough@1"):
        monkeypatch.setitem(LADDERS, name, _few(LADDERS[name]))
    namespace = given(text)
    with torch.random.fork_rng(devices=[]):
        for block in blocks(text):
            if block.kind != "python":
                continue
            code = compile("\n" * block.line + block.body, str(page), "exec")
            if block.mark is not None:
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
            if block.output is not None:
                where = f"output of the block at line {block.line}:\n{printed.getvalue()}"
                assert _words(printed.getvalue()) == _words(block.output), where


def _few(preset: Ladder) -> Ladder:
    """A tenth of the steps and a hundredth of the queries: the pages print no more than that such a ladder has run."""
    fewer = {"steps": 10, "queries": 100}

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}={max(1, int(found[2]) // fewer[found[1]])}"

    rungs = (replace(rung, recipe=re.sub(r"(steps|queries)=(\d+)", shorter, str(rung.recipe))) for rung in preset.rungs)
    return replace(preset, rungs=tuple(rungs))


def _words(text: str) -> list[Any]:
    """Words, and numbers to one per cent: counts may differ by a few where another machine rounds otherwise."""
    pieces = re.split(r"(?<![\w.])(-?\d+(?:\.\d+)?(?:e-?\d+)?)", text.strip())
    numbers = [pytest.approx(float(piece), rel=0.01) for piece in pieces[1::2]]
    return [" ".join(piece.split()) for piece in pieces[::2]] + numbers


def _commands() -> list[tuple[str, list[str]]]:
    found = []
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.kind != "sh" or (page.name == "CONTRIBUTING.md" and block.mark is not None):
                continue  # those are run, with what they name beside them (`test_contributing`)
            for line in block.body.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] == "signstep":
                    found.append((f"{page.relative_to(ROOT)}:{block.line} {line.strip()}", words[1:]))
    return found


@pytest.mark.parametrize(("shown", "words"), _commands(), ids=[shown for shown, _ in _commands()])
def test_shell_blocks_name_what_exists(shown: str, words: list[str]) -> None:
    from signstep.cli import app

    group: Any = typer.main.get_command(app)
    if words[0] == "--config":
        words = words[2:]
    words = joined(words)
    command = group.commands[words[0]]
    options = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("--"):
            assert words[0].partition(" ")[0] in ("compare", "explain", "guard", "merge", "verify"), shown
            assert words[0] != "explain" or word in ss.RECIPES or word in CATALOGUE, shown
            continue
        assert word in options, f"{shown}: there is no {word}"
        if options[word].is_flag:
            continue
        value = next(rest)
        if word == "--threat" and "--domain text" in " ".join(words):
            assert asked_for(value) or with_threat(Schema(), value)
        elif word == "--threat":
            parse_threat(value)
        if word == "--recipe" and words[0] == "train":
            assert training_recipe(value)
        elif word == "--recipe" and words[0] == "compare":
            assert variant(named(value)[1], Settings()), shown
        elif word in ("--attack", "--recipe"):
            from signstep.cli.options import attacks_of

            assert all(ss.recipe(name) for name in attacks_of([value])), shown
        if word == "--ladder":
            from signstep.auditing.ladder import ladder
            from signstep.cli.options import ladder_of

            chosen = ladder_of([value])
            assert chosen is not None
            assert all(ss.recipe(rung.recipe) for rung in ladder(chosen).rungs), shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_configurations_name_what_exists(page: Path, tmp_path: Path) -> None:
    from signstep.auditing.findings import check_ignored
    from signstep.cli import app
    from signstep.cli.config import read_config

    for block in blocks(page.read_text(encoding="utf-8")):
        if block.kind == "toml" and block.mark is None:
            path = tmp_path / "signstep.toml"
            path.write_text(block.body, encoding="utf-8")
            check_ignored(read_config(path, typer.main.get_command(app)).ignore)


def test_the_table_in_the_readme_has_the_columns_of_today() -> None:
    header = " ".join(_audit_table().splitlines()[_header_line(_audit_table())].split())
    readme = [" ".join(line.split()) for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()]
    assert header in readme


def _audit_table() -> str:
    things = given("<!-- given: model, x, y -->")
    return table(ss.audit(things["model"], (things["x"], things["y"]), threat=ss.linf(0.1)))


def _header_line(text: str) -> int:
    return next(number for number, line in enumerate(text.splitlines()) if line.startswith("attack "))
