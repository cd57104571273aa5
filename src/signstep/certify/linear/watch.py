"""What is known of many bounds on their way back, and which of them need not go on."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(eq=False)
class Watch:
    """Lower bounds of functions (S,), the best at any step of the way back so far.

    On its way a function is one of the outputs of a few steps, each of which has an interval: that is a bound already,
    and where it is enough there is nothing more to be gained by going on.

    Attributes:
        best: (S,), known already, and then found.
        enough: what need not be exceeded.
        widest: how many coefficients one function had at most.
        going: (T,), the places of those that are still on their way.
        open: of how many of these less than enough was known when they were last looked at.
    """

    best: Tensor
    enough: float
    widest: int = 1
    going: Tensor = field(init=False)
    open: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.going = torch.arange(len(self.best), dtype=torch.int64, device=self.best.device)

    def part(self, place: slice) -> "Watch":
        """Over some of them, anew."""
        return Watch(self.best[place].clone(), self.enough)

    def seen(self, bound: Tensor) -> Tensor | None:
        """Keep what is better of bounds (T,); the rows that go on, None for all."""
        bound = bound.nan_to_num(nan=-torch.inf)
        if len(self.going) == len(self.best):
            here = self.best = torch.maximum(self.best, bound)
        else:
            here = torch.maximum(self.best[self.going], bound)
            self.best[self.going] = here
        if self.enough == torch.inf:
            self.open = len(self.going)
            return None
        left = (here < self.enough).nonzero().squeeze(1)
        self.open = len(left)
        if len(left) > _WORTH * len(self.going):
            return None
        self.going = self.going[left]
        return left


# Rows are sorted out when more than so many have nothing left to gain: it costs a copy of the rest.
_WORTH = 0.8
