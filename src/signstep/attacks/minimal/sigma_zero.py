"""Sigma-zero: gradients of a smooth count of changes, and a threshold that follows what fools."""

from functools import partial

import torch

from signstep.attacks.minimal.attack import MinimalAttack, positive
from signstep.attacks.minimal.nearest import NearestSearch
from signstep.attacks.minimal.steps import annealed
from signstep.engine.norms import L0
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.tree import per_row
from signstep.errors import InputError
from signstep.messages import Arg

_MEAN, _SPREAD, _TINY = 0.9, 0.999, 1e-8  # of Adam


def sigma_zero(
    *,
    steps: int = 300,
    step: float = 1.0,
    sigma: float = 1e-3,
    threshold: float = 0.3,
    adapt: float = 0.01,
    oracle: Oracle | None = None,
) -> MinimalAttack:
    """Fewest changed coordinates (Cinà et al. 2025, arXiv:2402.01879, algorithm 1), untargeted or towards a target.

    g = grad [max(f, 0) + (1/N) sum_i d_i^2 / (d_i^2 + sigma)], f the margin over that untouched
    d <- box(d - eta Adam(g / max |g|))
    d_i <- 0 where |d_i| < tau;  tau <- tau + adapt eta where the point fooled, else tau - adapt eta

    All in widths of the box; eta falls from ``step`` to a tenth of it along a cosine. The paper takes 1000 steps; Adam
    (Kingma & Ba 2015) is its authors' program's: without it the sets found on MNIST were a twelfth larger. Of a
    threat that counts groups (pixels) the count is of the N groups, d_i^2 the sum over a group, and a group goes to
    zero where all of it is below tau.
    """
    positive("sigma-zero", step=step, sigma=sigma)
    if not 0 <= threshold < 1 or not adapt >= 0:
        raise InputError(
            Arg("threshold", threshold),
            Arg("adapt", adapt),
            remedy="pass a first threshold in widths of the box, at least 0 and below 1, and adapt of at least 0",
            where="sigma-zero",
        )
    search = partial(_search, steps=steps, first=step, sigma=sigma, threshold=threshold, adapt=adapt)
    looks = steps + 1
    return MinimalAttack("sigma-zero", search, steps, ("l0",), lambda _: (looks, looks), oracle or Autograd())


def _search(hunt: NearestSearch, *, steps: int, first: float, sigma: float, threshold: float, adapt: float) -> None:
    norm = hunt.region.norm
    assert isinstance(norm, L0)
    d, unit = hunt.origin, per_row(hunt.unit(), hunt.origin)
    tau = torch.full_like(hunt.region.radius, threshold)
    mean, spread, start = torch.zeros_like(d), torch.zeros_like(d), torch.ones_like(tau)
    for number in range(steps):
        eta = annealed(first, first / 10, number, steps)
        planes = hunt.planes(d)
        fooled = planes.look.fooled
        if number:
            tau = torch.where(fooled, tau + adapt * eta, tau - adapt * eta).clamp(0, 1)
        if number == 0:  # the scale of the scores must not matter
            start = planes.look.margin.abs().clamp_min(torch.finfo(d.dtype).tiny)
        here = d / unit
        square = norm.totals(here * here)
        bend = norm.spread(sigma / ((square + sigma) * (square + sigma)) * (2 / square.shape[1]), here)
        g = here * bend + torch.where(per_row(fooled, d), 0.0, -planes.slope[:, 0] * unit / per_row(start, d))
        g = g / per_row(g.abs().flatten(1).amax(1).clamp_min(torch.finfo(g.dtype).tiny), g)
        mean, spread = _MEAN * mean + (1 - _MEAN) * g, _SPREAD * spread + (1 - _SPREAD) * g * g
        whole, squares = 1 - _MEAN ** (number + 1), 1 - _SPREAD ** (number + 1)
        moved = hunt.inside((here - eta * (mean / whole) / ((spread / squares).sqrt() + _TINY)) * unit)
        large = norm.parts(moved.abs() / unit).amax(2) >= tau[:, None]
        d = torch.where(norm.spread(large, moved), moved, 0.0)
    hunt.look(d)
