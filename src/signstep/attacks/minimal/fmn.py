"""FMN: a ball that shrinks while its boundary fools and grows while it does not, and gradient steps inside it."""

from functools import partial

import torch

from signstep.attacks.minimal.attack import MinimalAttack, positive
from signstep.attacks.minimal.nearest import NearestSearch
from signstep.attacks.minimal.steps import annealed, direction
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.tree import per_row
from signstep.errors import InputError
from signstep.messages import Arg

_BEYOND = 0.01  # of the gap: on the plane itself rounding would say whether a point fools, and so would the batch


def fmn(*, steps: int = 100, step: float = 3.0, gamma: float = 0.05, oracle: Oracle | None = None) -> MinimalAttack:
    """Fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827, algorithm 1), untargeted or towards a target.

    eps <- |d| + f / |grad f|_q before the first success; then (1 - gamma) eps, at most the nearest success, where the
    point fooled, else (1 + gamma) eps;  d <- P_eps(d - alpha grad f / |grad f|_2), f the margin

    alpha falls from ``step`` to a hundredth of it along a cosine, in widths of the box; gamma to 1e-4, as in the paper.
    P projects onto ball and box at once, the paper onto one after the other. The first eps goes a hundredth of
    f / |grad f|_q beyond the paper's, which ends on the boundary itself.
    """
    positive("fmn", step=step)
    if not 0 < gamma < 1:
        raise InputError(
            Arg("gamma", gamma), remedy="pass the share by which the ball changes, between 0 and 1", where="fmn"
        )
    search = partial(_search, steps=steps, step_size=step, gamma=gamma)
    return MinimalAttack("fmn", search, steps, ("linf", "l2", "l1"), lambda _: (steps, steps), oracle or Autograd())


def _search(hunt: NearestSearch, *, steps: int, step_size: float, gamma: float) -> None:
    d, unit = hunt.origin, hunt.unit()
    eps, nearest = torch.zeros_like(unit), torch.full_like(unit, torch.inf)
    tiny = torch.finfo(unit.dtype).tiny
    for step in range(steps):
        planes = hunt.planes(d)
        look, slope = planes.look, planes.slope[:, 0]
        change = annealed(gamma, 1e-4, step, steps)
        length = hunt.length(look.at)
        nearest = torch.where(look.fooled & (length > 0), torch.minimum(nearest, length), nearest)
        to_plane = length + (1 + _BEYOND) * look.margin / hunt.region.norm.dual_length(slope).clamp_min(tiny)
        # Never less than the growth after a success: on the boundary itself f is 0 and nothing would move.
        grown = eps * (1 + change)
        grown = torch.where(torch.isfinite(nearest), grown, torch.maximum(grown, to_plane))
        eps = torch.where(look.fooled, torch.minimum(eps * (1 - change), nearest), grown)
        alpha = unit * annealed(step_size, step_size / 100, step, steps)
        d = hunt.within(d + per_row(alpha, d) * direction(slope), eps)
