"""What is declared to happen to an input on its way to the model."""

from typing import Protocol

from torch import Tensor

from signstep.engine.keys import RowDraws


class Transform(Protocol):
    """A differentiable change, drawn for each row; the shape stays."""

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        """The changed inputs (R, ...); every random number comes from ``draws``."""
