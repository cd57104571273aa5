"""What the pages and docstrings call by name is there under that name: arguments, modules, options of commands.

Blocks of code are run by `test_readme_blocks`. This looks at the rest: code within sentences, tables and docstrings.
"""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

import signstep as ss
from signstep.attacks.recipe import defaults_of
from signstep.cli import app
from signstep.data import open_data
from signstep.engine import norms, tasks
from signstep.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = sorted(
    path for folder in ("src", "examples", "benchmarks", "scripts") for path in (ROOT / folder).rglob("*.py")
)

# What is passed on as one value, and no argument of any verb.
DECLARED = (ss.Model, ss.Search, ss.Run, ss.Curve, ss.Placement)

_FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
_MODULE = re.compile(r"(?<![\w./\[])signstep(?:\.[a-zA-Z_]\w*)+(?::[a-z_]\w*)?(?![\w/])")
# What looks like a module: files, and how streams name a way to write what an encoding lacks.
_FILE = re.compile(r"\.(?:toml|json|html|egg-info|escaped)$")


class Code(NamedTuple):
    """Code within a sentence, and where it stands."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} `{self.text}`"


def of_page(page: Path) -> Iterator[Code]:
    text = _FENCE.sub(lambda block: "\n" * block[0].count("\n"), page.read_text(encoding="utf-8"))
    yield from _spans(text, r"(?<!`)`([^`]+)`", str(page.relative_to(ROOT)), 0)


def of_docstrings(path: Path) -> Iterator[Code]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node, clean=False)
            if text is not None:
                yield from _spans(text, r"``([^`]+)``", str(path.relative_to(ROOT)), node.body[0].lineno - 1)


def _spans(text: str, pattern: str, file: str, before: int) -> Iterator[Code]:
    for found in re.finditer(pattern, text):
        yield Code(file, before + text.count("\n", 0, found.start()) + 1, " ".join(found[1].split()))


def unknown_arguments(code: Code) -> list[str]:
    """Arguments in calls of public names which these do not take."""
    try:
        tree = ast.parse(code.text, mode="eval")
    except SyntaxError:
        return []
    wrong = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and (name := _public(call.func)) is not None:
            taken = inspect.signature(getattr(ss, name)).parameters
            wrong += [f"{name}({word.arg}=)" for word in call.keywords if word.arg and word.arg not in taken]
    return wrong


def _public(called: ast.expr) -> str | None:
    """The public name that is called, ``ss.attack`` or ``attack``."""
    owner, _, name = ast.unparse(called).rpartition(".")
    return name if owner in ("", "ss", "signstep") and name in ss.__all__ else None


@cache
def arguments() -> frozenset[str]:
    """All that can be passed to a function, as an option of a recipe, or to a task or a transform."""
    functions: list[Any] = [getattr(ss, name) for name in ss.__all__ if inspect.isfunction(getattr(ss, name))]
    made = [part for module in (ss.transforms, tasks, norms) for part in vars(module).values() if is_dataclass(part)]
    taken = {name for function in (*functions, open_data) for name in inspect.signature(function).parameters}
    taken |= {part.name for thing in made for part in fields(thing)}
    return frozenset(taken | {name for row in ss.RECIPES.own.values() for name in defaults_of(row)})


def alone(code: Code) -> str | None:
    """An argument by itself, ``eot=8``, which belongs to one value and would be tried on a verb."""
    word = re.match(r"\.?(\w+)=(?!=)", code.text)
    if word is None or word[1] in arguments():
        return None
    owners = [thing.__name__ for thing in DECLARED if word[1] in {part.name for part in fields(thing)}]
    return f"ss.{owners[0]}({word[1]}=...)" if owners else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_arguments_in_sentences_are_taken(page: Path) -> None:
    wrong = [f"{code}: {word}" for code in of_page(page) for word in unknown_arguments(code)]
    assert not wrong, "\n".join(wrong)
    lonely = [f"{code}: no verb takes it, write {whole}" for code in of_page(page) if (whole := alone(code))]
    assert not lonely, "\n".join(lonely)


def test_arguments_in_docstrings_are_taken() -> None:
    found = [code for path in SOURCES for code in of_docstrings(path)]
    assert sum("(" in code.text for code in found) > 50
    wrong = [f"{code}: {word}" for code in found for word in unknown_arguments(code)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("ss.attack(..., eot=8)", ["attack(eot=)"]),
        ("audit(..., shard=(i, n))", ["audit(shard=)"]),
        ("ss.attack(ss.Model(net, colour=1), x, threat=...)", ["Model(colour=)"]),
        ("ss.audit(..., run=ss.Run(shard=(0, 4)))", []),
        ("other.attack(..., eot=8)", []),
        ("pgd:steps=50,restarts=10", []),
    ],
)
def test_an_argument_that_is_gone_is_seen(text: str, wrong: list[str]) -> None:
    assert unknown_arguments(Code("page", 1, text)) == wrong


def test_an_argument_by_itself_is_one_of_a_verb() -> None:
    told = {
        "eot=": "ss.Search(eot=...)",
        "surrogate=other": "ss.Search(surrogate=...)",
        "mean=": None,  # the short form of most verbs
        "steps=10": None,  # an option of recipes
        "epsilons=1": None,  # another tool's
    }
    assert {text: alone(Code("page", 1, text)) for text in told} == told


@cache
def groups() -> frozenset[str]:
    """How packages call what they bring: the groups of entry points of all tables."""
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "signstep"]
    things = [thing for module in modules for thing in vars(module).values()]
    return frozenset(thing.group for thing in things if isinstance(thing, Registry))


def test_every_table_is_on_the_page() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    table = page.partition("<!-- tables -->")[2].partition("\n\n## ")[0]
    assert len(groups()) >= 6
    assert set(re.findall(r"\| `(signstep\.[a-z_]+)` \|", table)) == groups()


def _found(name: str) -> bool:
    """Whether a module, something in one, or a group of entry points has this full name."""
    if name in groups():
        return True
    dotted = name.replace(":", ".")
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            annotated = getattr(thing, "__annotations__", {}) if inspect.isclass(thing) else {}
            if not hasattr(thing, part) and part not in annotated:
                return False
            thing = getattr(thing, part, None)
        return True
    return False


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_where_they_are_said_to_be(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    names = {name for name in _MODULE.findall(text) if not _FILE.search(name)}
    assert [name for name in sorted(names) if not _found(name)] == []


def test_a_module_that_has_moved_is_seen() -> None:
    text = "`signstep.models.small:mnist_cnn`, `signstep.networks.small:mnist_cnn`, signstep.toml, signstep.RECIPES"
    names = [name for name in _MODULE.findall(text) if not _FILE.search(name)]
    assert {name: _found(name) for name in names} == {
        "signstep.models.small:mnist_cnn": False,
        "signstep.networks.small:mnist_cnn": True,
        "signstep.RECIPES": True,
    }


# Options of other programs.
OTHERS = {"--junitxml"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_in_sentences_exist(page: Path) -> None:
    group: Any = typer.main.get_command(app)
    known = {
        name
        for command in (group, *group.commands.values())
        for option in command.params
        for name in (*option.opts, *option.secondary_opts)
    }
    known |= OTHERS | {"--help"}
    text = page.read_text(encoding="utf-8")
    if page.name == "CONTRIBUTING.md" or "benchmarks/" in text or "`python examples/" in text:
        known |= _of_scripts()
    named = {(code, name) for code in of_page(page) for name in re.findall(r"(?<![\w-])--[a-z][\w-]*", code.text)}
    assert [f"{code}: there is no {name}" for code, name in sorted(named) if name not in known] == []


@cache
def _of_scripts() -> frozenset[str]:
    """Options of what is run beside the package: benchmarks, examples, scripts, the tests."""
    texts = [path.read_text(encoding="utf-8") for path in (*SOURCES, ROOT / "tests" / "conftest.py")]
    return frozenset(name for text in texts for name in re.findall(r'"(--[a-z][\w-]*)"', text))
