"""The battery: a test a file, its page beside it, and the table of them all."""

from signstep.diagnosing.battery import (
    backward,
    descent,
    dynamic,
    graph,
    health,
    losses,
    mode,
    numerics,
    one_step,
    order,
    randomness,
    scores,
    self_test,
    smoothness,
    witness,
)
from signstep.diagnosing.test import Test, row_of
from signstep.importing import Spelling
from signstep.registry import Registry

_OWN = (
    *(graph, scores, health, randomness, mode, dynamic, numerics, backward, smoothness),
    *(one_step, losses, descent, order, self_test, witness),
)

# In the order in which they are asked; of causes that take away alike, the first is named first.
TESTS: Registry[Test] = Registry(
    "signstep.tests",
    Spelling("the test", "Test", "my_tests:mine"),
    row_of,
    {test.ROW.id: test.ROW for test in _OWN},
    argument="test",
)
