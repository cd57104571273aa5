"""Whether the stream as a whole is still what it was: a conformal martingale on its p-values.

Each new score is ranked among all before it, ties broken at random; while the stream is exchangeable these ranks are
uniform and independent, whatever the scores are (Vovk, Nouretdinov and Gammerman 2003). Against that the simple jumper
bets, C <- sum over e in {-1, 0, 1} of C_e (1 + e (p - 1/2)) with a share of 1 % moved between them at each step (Vovk
et al. 2021, "Retrain or not retrain", section 3). Ville: the capital ever reaches c with probability at most 1 / c.
"""

import math
from bisect import bisect_left, bisect_right, insort

import numpy as np

_JUMP = 0.01


class Drift:
    """The martingale.

    Args:
        seed: of the ties.
        capital: of the alarm; a false one comes with probability 1 / capital in each stretch at most.
        stretch: scores after which it begins anew, which bounds its memory.

    Attributes:
        log10: of the capital.
    """

    def __init__(self, seed: int, *, capital: float = 1e4, stretch: int = 50_000) -> None:
        self._random = np.random.default_rng(seed)
        self.capital, self.stretch = capital, stretch
        self._begin()

    def _begin(self) -> None:
        self._seen: list[float] = []
        self._parts = np.full(3, 1 / 3)
        self.log10 = 0.0
        self.raised = False

    def saw(self, score: float) -> bool:
        """Count a score; whether the alarm comes now, once in each stretch."""
        if len(self._seen) >= self.stretch:
            self._begin()
        below, upto = bisect_left(self._seen, score), bisect_right(self._seen, score)
        ties = upto - below + 1
        p = (below + ties * float(self._random.random())) / (len(self._seen) + 1)
        insort(self._seen, score)
        moved = (1 - _JUMP) * self._parts + _JUMP * self._parts.sum() / 3
        bets = moved * (1 + np.array([-1.0, 0.0, 1.0]) * (p - 0.5))
        total = float(bets.sum())
        self.log10 += math.log10(total)
        self._parts = bets / total
        if self.log10 >= math.log10(self.capital) and not self.raised:
            self.raised = True
            return True
        return False
