"""Every message in the source has its remedy as a field, and its arguments as such, so that options can be named."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import signstep as ss
from signstep import errors, registry
from signstep.cli import app
from signstep.cli.option_names import options_by_argument
from signstep.messages import Message

SOURCE = Path(ss.__file__).parent
NAMES = {
    name
    for module in (errors, registry)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
}
# What is said of somebody else's failure: there is nothing to be done but what it says itself.
OTHERS = {"engine/origin.py": "ModelError", "model/victims/endpoint.py": "VictimError"}
GROUP = typer.main.get_command(app)
ARGUMENTS = {name for command in GROUP.commands.values() for name in options_by_argument(command)}  # type: ignore[attr-defined]
WRITTEN = re.compile(rf"(?<![\w.'\"-])({'|'.join(sorted(ARGUMENTS, key=len, reverse=True))})=")
OPTION = re.compile(r"(?<![\w'-])--[a-z]")
QUOTED = re.compile(r"'signstep [^']*'?|on the command line --\S+ \S+|signstep --cap")


def messages(source: str) -> Iterator[ast.Call]:
    """The calls that make an error or a warning of ours, also by a parameter called kind that is raised."""
    tree = ast.parse(source)
    raised = {id(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id in NAMES or (node.func.id == "kind" and id(node) in raised):
            yield node


def texts(call: ast.Call) -> Iterator[str]:
    """The literal text in the parts and the remedy of a message."""
    for place in (*call.args, *(word.value for word in call.keywords if word.arg == "remedy")):
        inside: list[ast.AST] = [place]
        while inside:
            node = inside.pop()
            if isinstance(node, ast.Call):
                continue  # an argument, or what somebody else writes
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            inside += [part for part in ast.iter_child_nodes(node) if not isinstance(node, ast.FormattedValue)]


def without_remedy(source: str) -> list[int]:
    return [
        call.lineno
        for call in messages(source)
        if call.args
        and ast.unparse(call.func) not in ("MissingExtraError", "SignstepWarning", "WriteError")
        and not any(word.arg == "remedy" for word in call.keywords)
    ]


def names_in_text(source: str, *, options: bool) -> list[tuple[int, str]]:
    """Arguments that a sentence writes itself, and options where nobody knows of a command line."""
    found = []
    for call in messages(source):
        if any(word.arg == "where" for word in call.keywords):
            continue  # of a recipe, a file, a table: not the command's
        for text in (QUOTED.sub("", text) for text in texts(call)):
            for match in [*WRITTEN.finditer(text), *(OPTION.finditer(text) if options else ())]:
                found.append((call.lineno, text[match.start() :][:40]))
    return found


FILES = sorted(SOURCE.rglob("*.py"))


def test_there_are_messages_to_look_at() -> None:
    assert sum(1 for path in FILES for _ in messages(path.read_text(encoding="utf-8"))) > 900


def test_every_error_says_what_to_do() -> None:
    found = {}
    for path in FILES:
        where = path.relative_to(SOURCE).as_posix()
        lines = without_remedy(path.read_text(encoding="utf-8")) if where not in OTHERS else []
        if lines:
            found[where] = lines
    assert found == {}


def test_no_sentence_writes_an_argument_or_an_option_itself() -> None:
    found = {}
    for path in FILES:
        where = path.relative_to(SOURCE)
        lines = names_in_text(path.read_text(encoding="utf-8"), options=where.parts[0] != "cli")
        if lines:
            found[where.as_posix()] = lines
    assert found == {}


@pytest.mark.parametrize(
    ("line", "remedies", "names"),
    [
        ('raise InputError(Arg("mean", 3), "is wrong", remedy=("pass", Arg("std")))', [], []),
        ('raise InputError(Arg("mean", 3), "is wrong")', [1], []),
        ('raise InputError("mean=3 is wrong", remedy="drop it")', [], [(1, "mean=3 is wrong")]),
        ('raise InputError(f"{x} with mean={y}", remedy="drop it")', [], [(1, "mean=")]),
        ('raise kind(f"{x}", remedy=("drop", f"{x} and box= too"))', [], [(1, "box= too")]),
        ('raise InputError("steps=3 is wrong", remedy="drop it", where="mean=3")', [], []),
        ('raise LoadError("no file", remedy="pass --data")', [], [(1, "--data")]),
        ("raise LoadError('no key', remedy=\"make one with 'signstep sign --new-key'\")", [], []),
        ('kind("mean=3")', [], []),
        ('warnings.warn(SignstepWarning("mean=3 is odd"))', [], [(1, "mean=3 is odd")]),
    ],
)
def test_what_the_laws_see(line: str, remedies: list[int], names: list[tuple[int, str]]) -> None:
    assert without_remedy(line) == remedies
    assert names_in_text(line, options=True) == names
