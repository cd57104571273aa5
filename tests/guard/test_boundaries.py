"""A process that ends at any write: what was answered is stored, and the store is whole."""

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from guard_bench import clean, made

from signstep.guard.store import Store

pytest.importorskip("sqlalchemy")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
if not FOLDER.is_dir():
    pytest.skip("needs the benchmarks of the repository", allow_module_level=True)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark, of which this is the short form."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location("guard_faults", FOLDER / "guard_faults.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["guard_faults"] = module
    spec.loader.exec_module(module)
    yield module
    for name in set(sys.modules) - before:
        if name.startswith(("guard_", "harness")):
            del sys.modules[name]


def made_at(store: str) -> object:
    """A guard with a store at a URL."""
    return made(store)


def test_a_process_that_ends_at_a_write_loses_nothing_that_was_answered(faults: ModuleType) -> None:
    rows = torch.from_numpy(clean(5))
    made()  # what is known of clean inputs is worked out here once, and not in each process
    try:
        held, writes = faults.every_write(made_at, rows, 37)
    except SystemExit as error:
        pytest.skip(str(error))
    assert writes > 60  # tables, decisions and checkpoints
    assert held.lives == 3 * -(-writes // 37)
    assert 0 < held.answered < held.lives * len(rows)
    assert (held.missing, held.broken) == (0, [])


def test_a_store_that_tells_too_early_is_found_out(
    faults: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The test of the test: an answer that leaves before its commit is missed."""
    commit = Store._commit

    def early(self: Store, group: list[object]) -> None:
        for one in group:
            done, one.done = one.done, type(one.done)()  # type: ignore[attr-defined]
            done.set_result(True)
        time.sleep(0.05)  # for the answer to leave
        commit(self, group)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "_commit", early)
    made()
    held = faults.Held()
    _, writes = faults.written_life(
        made_at, f"sqlite:///{tmp_path}/counted.db", torch.from_numpy(clean(5)), faults.At(0)
    )
    for number in range(writes // 2, writes - 9, 20):
        url = f"sqlite:///{tmp_path}/{number}.db"
        at = faults.At(number, "before")
        ids, ended = faults.written_life(made_at, url, torch.from_numpy(clean(5)), at)
        assert ended is None
        held.look(url, ids)
    assert held.missing > 0
