"""What every test may rely on: one thread, so that sums have one order and two cores stay usable."""

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks() -> Iterator[None]:
    """Only a loss of power could tell; a thousand small reports that wait for a disk cost minutes.

    Commands in processes of their own do wait, and `tests/test_faults.py` sees to what is synced, in which order.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def no_global_seed() -> Iterator[None]:
    """The test may seed the global generator as it likes; the next test finds it as before."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
