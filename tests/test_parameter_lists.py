"""No parameter list grows long again: what several verbs share travels as one value."""

import ast
from pathlib import Path

import pytest

import signstep

SOURCE = Path(signstep.__file__).parent
MOST = 12


def functions() -> list[tuple[str, int]]:
    """Every function of the package with the number of its parameters, without self and cls."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not is_command(node):
                names = [part.arg for part in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                count = len([name for name in names if name not in ("self", "cls")])
                found.append((f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}", count))
    return found


def is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether typer reads its options from the parameters."""
    return any("app.command" in ast.unparse(mark) for mark in node.decorator_list)


def test_no_parameter_list_is_longer_than_twelve() -> None:
    everything = functions()
    assert len(everything) > 2000
    long = [f"{name}: {count}" for name, count in everything if count > MOST]
    assert not long, f"{long}: let what belongs together travel as one value, as ss.Model and ss.Search do"


@pytest.mark.parametrize("name", ["attack", "fgsm", "audit", "maximise", "transfer", "universal", "certified", "fit"])
def test_verbs_say_nothing_about_how_to_read_a_model(name: str) -> None:
    """Beside mean and std, the short form for bare networks."""
    verb = getattr(signstep, name)
    declared = set(signstep.Model.__dataclass_fields__) - {"network", "mean", "std"}
    code = verb.__wrapped__ if hasattr(verb, "__wrapped__") else verb
    assert not declared & set(code.__code__.co_varnames[: code.__code__.co_argcount + code.__code__.co_kwonlyargcount])
