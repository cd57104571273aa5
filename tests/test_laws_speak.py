"""A law that keeps a table by the names of rows says what to write down for a new row, and raises no KeyError."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import signstep as ss
from signstep.auditing.ladder import LADDERS
from signstep.domains import DOMAINS
from signstep.engine.norms import BY_NAME
from signstep.engine.tasks import TASKS
from signstep.train import TRAINING_RECIPES
from written_down import written_down

TESTS = Path(__file__).resolve().parent
ROWS = {*ss.RECIPES.own, *BY_NAME, *TASKS, *DOMAINS.own, *TRAINING_RECIPES.own, *LADDERS}


def is_by_rows(node: ast.expr | None) -> bool:
    """Whether it is a dict written out whose keys are, at least for the half, names of rows."""
    if not isinstance(node, ast.Dict):
        return False
    keys = [key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
    return bool(keys) and 2 * sum(key in ROWS for key in keys) >= len(keys)


def silent(code: str) -> Iterator[str]:
    """Where such a table is read in a way that a new row ends in a KeyError."""
    tree = ast.parse(code)
    tables = set()
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and is_by_rows(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            tables |= {target.id for target in targets if isinstance(target, ast.Name)}
    for part in ast.walk(tree):
        if isinstance(part, ast.Subscript) and not isinstance(part.slice, ast.Constant):
            named = isinstance(part.value, ast.Name) and part.value.id in tables
            if named or is_by_rows(part.value):
                yield f"line {part.lineno}: {ast.unparse(part)[:60]}"


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_tables_by_the_names_of_rows_are_read_in_sentences(path: Path) -> None:
    found = list(silent(path.read_text(encoding="utf-8")))
    assert not found, f"{found}: read them with written_down(table, name, what is to be written)"


def test_the_law_sees_what_it_is_about() -> None:
    assert list(silent('SIZES = {"linf": 1, "l2": 2}\ndef f(norm): return SIZES[norm]')) == ["line 2: SIZES[norm]"]
    assert list(silent('def f(norm): return {"pgd": 1}[norm]')) == ["line 1: {'pgd': 1}[norm]"]
    for fine in (
        'SIZES = {"a": 1}\nSIZES[norm]',
        'SIZES = {"pgd": 1}\nSIZES["pgd"]',
        'SIZES = {"pgd": 1}\nother[name]',
    ):
        assert list(silent(fine)) == []
    with pytest.raises(AssertionError, match="write down the length of 'new', in the table of this test"):
        written_down({"old": 1}, "new", "the length")


def test_the_tables_of_the_package_say_what_is_missing() -> None:
    for table in (ss.RECIPES, DOMAINS, TRAINING_RECIPES):
        with pytest.raises(KeyError, match="='zzz' is not one of"):
            table["zzz"]
