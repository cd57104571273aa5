"""What every test may rely on: one thread, so that sums have one order and two cores stay usable."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from forger import Forged


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_global_seed() -> Iterator[None]:
    """The test may seed the global generator as it likes; the next test finds it as before."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests/verify: a folder with a model and data, and in it two honest reports, "honest" and "climbed"."""
    from forger import ATTACKS, IMAGES, OWN, RUNGS, audited, workplace

    folder = workplace(tmp_path_factory.mktemp("workplace"))
    before = Path.cwd()
    os.chdir(folder)
    try:
        audited(folder / "honest", *OWN, "--attack", ATTACKS)
        audited(folder / "climbed", *IMAGES, "--ladder", RUNGS)
    finally:
        os.chdir(before)
        sys.modules.pop("forgednets", None)
    return folder


@pytest.fixture
def forged(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Forged":
    """A copy of the report to forge; the current folder is the verifier's."""
    from forger import Forged

    monkeypatch.chdir(honest)
    monkeypatch.delitem(sys.modules, "forgednets", raising=False)
    return Forged.of(honest / "honest", tmp_path / "report")


@pytest.fixture
def climbed(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Forged":
    """The same of a ladder."""
    from forger import Forged

    monkeypatch.chdir(honest)
    monkeypatch.delitem(sys.modules, "forgednets", raising=False)
    return Forged.of(honest / "climbed", tmp_path / "climbed")
