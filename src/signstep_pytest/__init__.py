"""The pytest plugin: a fixture ``assert_robust``.

A package of its own beside ``signstep``, so that pytest can load it at every start without importing torch.
"""

from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def assert_robust() -> Callable[..., None]:
    """`signstep.testing.assert_robust`: fails unless enough examples survive every attack tried."""
    from signstep.testing import assert_robust as check

    return check
