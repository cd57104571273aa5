"""Two attacks on the same examples: who fells what the other does not, and is that chance?"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from signstep.auditing.compare import holm
from signstep.engine.statistics import mcnemar

LEVEL = 0.01


@dataclass(frozen=True)
class Pair:
    """Of two attacks, the examples that only the one, and only the other, felled.

    Attributes:
        said: what would be in order, and is not if ``won`` is more than chance.
        won: felled by the one alone, which should be no better.
        lost: felled by the other alone.
    """

    said: str
    won: int
    lost: int

    @property
    def p(self) -> float:
        """Of the exact two-sided McNemar test; 1 where the one does not lead."""
        return mcnemar(self.lost, self.won) if self.won > self.lost else 1.0


def pair(said: str, one: Tensor, other: Tensor) -> Pair:
    """From whom each felled, (N,) each."""
    return Pair(said, int((one & ~other).sum()), int((other & ~one).sum()))


def adjusted(pairs: Sequence[Pair]) -> tuple[float, ...]:
    """Their p-values by Holm's rule, in the same order."""
    return holm([one.p for one in pairs])
