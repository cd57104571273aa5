"""Imports run one way, wherever in a file they stand: none hides in a function or behind a type."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import signstep as ss

SOURCE = Path(ss.__file__).parent
EXCUSE = "# slow to import"


def modules(folder: Path, package: str = "signstep") -> dict[str, Path]:
    found = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


def imported(tree: ast.Module, known: Mapping[str, object]) -> Iterator[tuple[int, str, ast.stmt]]:
    """Line and name of each own module that a file imports anywhere, and the statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, node) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in known:
                    yield node.lineno, name, node
                elif node.module in known:
                    yield node.lineno, node.module, node


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other around, the first of them named twice; empty where imports run one way."""
    done: set[str] = set()

    def visit(name: str, above: list[str]) -> list[str]:
        if name in above:
            return [*above[above.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := visit(other, [*above, name]):
                return found
        done.add(name)
        return []

    return next(filter(None, (visit(name, []) for name in sorted(graph))), [])


def hidden(source: str, known: Mapping[str, object]) -> list[tuple[int, str]]:
    """Own modules imported elsewhere than at the top of a file, and for no reason that is written beside them."""
    tree, lines = ast.parse(source), source.splitlines()
    return [
        (line, name)
        for line, name, node in imported(tree, known)
        if node not in tree.body and EXCUSE not in " ".join(lines[line - 1 : node.end_lineno])
    ]


def test_no_modules_import_each_other_around() -> None:
    known = modules(SOURCE)
    graph = {
        name: {other for _, other, _ in imported(ast.parse(path.read_text(encoding="utf-8")), known)} - {name}
        for name, path in known.items()
    }
    assert len(graph) > 250
    assert sum(map(len, graph.values())) > 1000
    assert circle(graph) == []


def test_no_import_of_our_own_is_hidden() -> None:
    known = modules(SOURCE)
    found = {name: hidden(path.read_text(encoding="utf-8"), known) for name, path in known.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_circle_is_found_wherever_its_imports_stand(tmp_path: Path) -> None:
    texts = {
        "one.py": "import signstep.two\n",
        "two.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from signstep.three import Kind\n",
        "three.py": "def late():\n    from signstep import one\n    return one\n",
        "four.py": "import signstep.one\ndef slow():\n    from signstep import two  # slow to import\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    known = modules(tmp_path)
    graph = {
        name: {other for _, other, _ in imported(ast.parse(path.read_text()), known)} for name, path in known.items()
    }
    assert circle(graph)[0] == circle(graph)[-1]
    assert sorted(circle(graph)[1:]) == ["signstep.one", "signstep.three", "signstep.two"]
    del graph["signstep.three"]
    assert circle(graph) == []
    assert {name: hidden(text, known) for name, text in texts.items()} == {
        "one.py": [],
        "two.py": [(3, "signstep.three")],
        "three.py": [(2, "signstep.one")],
        "four.py": [],
    }
