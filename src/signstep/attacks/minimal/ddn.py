"""DDN: the direction from the gradient, the length from whether the last point fooled."""

from functools import partial

import torch

from signstep.attacks.minimal.attack import MinimalAttack, positive
from signstep.attacks.minimal.nearest import NearestSearch
from signstep.attacks.minimal.steps import annealed, direction
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.tree import per_row
from signstep.errors import InputError
from signstep.messages import Arg

_FARTHEST = 1e6  # in units: where nothing fools the length would grow without end


def ddn(*, steps: int = 100, gamma: float = 0.05, init: float = 1.0, oracle: Oracle | None = None) -> MinimalAttack:
    """Decoupled direction and norm (Rony et al. 2019, arXiv:1811.09600, algorithm 1), without its rounding to 8 bits.

    d <- d + alpha g / |g|;  eps <- (1 - gamma) eps where the point fooled, else (1 + gamma) eps;  d <- eps d / |d|

    ``init`` (the first eps) and alpha (from 1 to 0.01 along a cosine) are in widths of the box, as in the paper, whose
    box is [0, 1]; in input units where the box is open. Points are rounded as the threat's grid says.
    """
    positive("ddn", init=init)
    if not 0 < gamma < 1:
        raise InputError(
            Arg("gamma", gamma), remedy="pass the share by which the length changes, between 0 and 1", where="ddn"
        )
    search = partial(_search, steps=steps, gamma=gamma, init=init)
    return MinimalAttack("ddn", search, steps, ("l2",), lambda _: (steps + 1, steps + 1), oracle or Autograd())


def _search(hunt: NearestSearch, *, steps: int, gamma: float, init: float) -> None:
    unit = hunt.unit()
    d, eps = hunt.origin, init * unit
    for step in range(steps):
        look, gradient = hunt.climb(d)
        alpha = unit * annealed(1.0, 0.01, step, steps)
        d = look.at + per_row(alpha, d) * direction(gradient)
        eps = torch.where(look.fooled, eps * (1 - gamma), eps * (1 + gamma)).minimum(_FARTHEST * unit)
        d = hunt.inside(per_row(eps, d) * direction(d))
    hunt.look(d)
