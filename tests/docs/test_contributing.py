"""Each addition of CONTRIBUTING.md is made from the page's own blocks, in a package of its own, installed, and run.

Blocks after ``<!-- file -->`` are files, named by their first line; what a ``pyproject.toml`` among them says of entry
points becomes the metadata of an installed package. Commands and Python after ``<!-- run -->`` are run beside them.
"""

import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from signstep.cli import app, main

sys.path.insert(0, str(Path(__file__).parent))
from test_readme_blocks import ROOT, Block, blocks

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PART = PAGE[PAGE.index("\n## Additions\n") : PAGE.index("\n## Documentation\n")]
SHARED, *PAGES = re.split(r"^### ", PART, flags=re.MULTILINE)
TITLES = [page.partition("\n")[0] for page in PAGES]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that packages are installed in; it is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    commands = list(app.registered_commands)
    yield tmp_path
    app.registered_commands[:] = commands


def test_there_is_a_page_for_each_addition() -> None:
    named = ("A recipe", "A norm", "A data format", "A domain", "A finding", "A section", "An option or a command")
    assert tuple(TITLES) == named
    for page in PAGES:
        marks = [block.mark for block in blocks(page)]
        assert "file" in marks
        assert "run" in marks
        paths = re.findall(r"`((?:src|tests)/[\w./-]+)`", page)
        assert paths, "the exact files"
        missing = [path for path in paths if not (ROOT / path).exists()]
        assert all("rms" in path or "NAME" in path for path in missing), missing  # the addition itself


@pytest.mark.parametrize("page", PAGES, ids=TITLES)
def test_the_addition_is_made_and_runs(page: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ran = 0
    namespace: dict[str, object] = {}
    for block in [*blocks(SHARED), *blocks(page)]:
        if block.mark == "file":
            _write(block, place)
        elif block.mark == "run" and block.kind == "sh":
            for words in (shlex.split(line) for line in block.body.splitlines()):
                assert words[0] == "signstep"
                status = main(words[1:])
                said = capfd.readouterr()
                assert status == 0, f"{words}: {said.err}"
                assert said.out.strip()
                ran += 1
        elif block.mark == "run":
            with torch.random.fork_rng(devices=[]):
                exec(compile(block.body, f"line {block.line}", "exec"), namespace)
            ran += 1
    assert ran


SEEN = {
    "A recipe": ["rms-pgd:steps=5", "ourpack.attacks:rms_pgd:steps=5", "decay  of the mean of squares (0.9)"],
    "A norm": ["weighted(0.5) eps=0.3, box=[0, 1]"],
    "A data format": ["ourpack.data:noise: 8 examples of shape 1x8x8", "noise: 8 examples of shape 1x8x8"],
    "A domain": ["What the bridge does not see", "ok    domain: bridge, as its schema has it here"],
    "A finding": ["OUR301 fewer examples than we report: 20 examples, we report 1000"],
    "A section": ["What fell to which attack"],
    "An option or a command": ["class 0: ", "the first 20 of "],
}


@pytest.mark.parametrize("page", PAGES, ids=TITLES)
def test_what_was_added_is_seen(page: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In what the commands print: nothing of an addition runs by without a trace."""
    for block in [*blocks(SHARED), *blocks(page)]:
        if block.mark == "file":
            _write(block, place)
        elif block.mark == "run" and block.kind == "sh":
            for line in block.body.splitlines():
                main(shlex.split(line)[1:])
    shown = capfd.readouterr()
    said = " ".join((shown.out + shown.err).split())
    for words in SEEN[page.partition("\n")[0]]:
        assert " ".join(words.split()) in said, words


def _write(block: Block, place: Path) -> None:
    """A file, or the entry points of the package."""
    first, _, rest = block.body.partition("\n")
    name = first.removeprefix("# ")
    if name == "pyproject.toml":
        info = place / "ourpack-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ourpack\nVersion: 1.0\n", encoding="utf-8")
        groups = tomllib.loads(rest)["project"]["entry-points"]
        lines = [
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in rows.items())
            for group, rows in groups.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
        return
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (place / "ourpack").mkdir(exist_ok=True)
    (place / "ourpack" / "__init__.py").touch()
    path.write_text(block.body if path.suffix == ".py" else rest, encoding="utf-8")
    if "@app.command" in block.body:
        importlib.invalidate_caches()
        importlib.import_module(name.removesuffix(".py").replace("/", "."))
