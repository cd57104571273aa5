"""The examples in docstrings are run."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import signstep

_FOUND = sorted(found.name for found in pkgutil.walk_packages(signstep.__path__, "signstep."))
MODULES = ["signstep", *(name for name in _FOUND if not name.endswith(".__main__"))]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    module = importlib.import_module(name)
    with torch.random.fork_rng(devices=[]):
        found = doctest.testmod(module)
    assert found.failed == 0


def test_there_are_doctests() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(examples) >= 6
