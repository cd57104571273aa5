"""Norms: the geometry of the sets that a perturbation may not leave, and of nothing else.

A row is one example; tensors are (R, ...), float32 or float64, and every result has the dtype of its input. What is
feasible for a row is a ball around zero cut by a box,

    S = {d : length(d) <= radius, low <= d <= high},

with ``radius`` (R,) >= 0, perhaps +inf, and ``low`` <= 0 <= ``high`` None or broadcastable to d, perhaps infinite (a
frozen coordinate has low = high = 0). All three are in units of d.

Three rules hold everywhere. An infinite radius counts as the largest finite number of the dtype, so that it never meets
a zero. Sums of a row do not depend on the other rows, so a batch gives what its rows give alone. Results of rounded
formulas aim a few ulp inside the ball (`boxed.inner`), so that rounding does not carry them out of it.
"""

from signstep.engine.norms.balls import L1, L2, Linf
from signstep.engine.norms.boxed import largest
from signstep.engine.norms.counted import L0, first
from signstep.engine.norms.grouped import Grouped
from signstep.engine.norms.norm import CheckedNorm, Draws, Norm
from signstep.engine.norms.table import BUILT_IN, BY_NAME, FAMILIES, NORMS, norm

__all__ = [
    "BUILT_IN",
    "BY_NAME",
    "FAMILIES",
    "L0",
    "L1",
    "L2",
    "NORMS",
    "CheckedNorm",
    "Draws",
    "Grouped",
    "Linf",
    "Norm",
    "first",
    "largest",
    "norm",
]
