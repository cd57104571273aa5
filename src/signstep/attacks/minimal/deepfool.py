"""DeepFool: step onto the nearest of the hyperplanes that the class differences look like from here."""

from functools import partial

import torch
from torch import Tensor

from signstep.attacks.minimal.attack import MinimalAttack, positive
from signstep.attacks.minimal.hyperplane import onto
from signstep.attacks.minimal.nearest import NearestSearch, Planes
from signstep.engine.batch_invariant import row_sum
from signstep.engine.norms import Norm
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.tree import per_row
from signstep.errors import InputError
from signstep.messages import Arg

_LEAST = (
    0.1  # of the overshoot: where the box clips the steps, ever smaller ones would come to the boundary, never over
)


def deepfool(
    *, steps: int = 50, candidates: int = 10, overshoot: float = 0.02, oracle: Oracle | None = None
) -> MinimalAttack:
    """Step onto the nearest linearised class boundary until the answer changes (Moosavi-Dezfooli et al. 2016).

    l = argmin_k |f_k| / |w_k|_q;  d <- d + (1 + overshoot) argmin { |r|_p : <w_l, r> = f_l }

    arXiv:1511.04599, algorithm 2 and section 3.3, for L2 and L-infinity. The paper multiplies the sum of all steps at
    the end; here, as in the authors' program, every step goes that much too far, and the ``candidates`` nearest classes
    are looked at. The paper knows no box: here each step is clipped to it, and steps that have become small go too far
    by a tenth of ``overshoot`` of the whole way.
    """
    positive("deepfool", candidates=candidates)
    if not overshoot >= 0:
        raise InputError(
            Arg("overshoot", overshoot), remedy="pass the share to go beyond the boundary, at least 0", where="deepfool"
        )
    search = partial(_search, steps=steps, candidates=candidates, overshoot=overshoot)
    return MinimalAttack("deepfool", search, steps, ("l2", "linf"), lambda _: (2, steps + 1), oracle or Autograd())


def _search(hunt: NearestSearch, *, steps: int, candidates: int, overshoot: float) -> None:
    d, norm = hunt.origin, hunt.region.norm
    for step in range(steps):
        planes = hunt.planes(d, candidates)
        if step:
            standing = (~planes.look.fooled).nonzero().squeeze(1)
            if len(standing) == 0:
                return
            hunt, d, planes = hunt.take(standing), d[standing], planes.take(standing)
        gap, slope = nearest_plane(planes, norm)
        whole = (gap + row_sum(slope * planes.look.at)).abs()  # <slope, d> on the plane
        beyond = gap.abs() + overshoot * torch.maximum(gap.abs(), _LEAST * whole)
        d = hunt.inside(d + onto(norm, slope, beyond))
    hunt.look(d)


def nearest_plane(planes: Planes, norm: Norm) -> tuple[Tensor, Tensor]:
    """Gap (R,) and slope (R, ...) of the plane that is nearest in this norm; gap 0 where there is none."""
    steep = norm.dual_length(planes.slope.flatten(0, 1)).reshape(planes.gap.shape)
    steep = steep.clamp_min(torch.finfo(steep.dtype).tiny)
    best = (planes.gap.abs() / steep).argmin(1)
    gap = planes.gap.gather(1, best[:, None])[:, 0]
    slope = planes.slope[torch.arange(len(best), device=best.device, dtype=torch.int64), best]
    there = torch.isfinite(gap)
    return torch.where(there, gap, 0.0), torch.where(per_row(there, slope), slope, 0.0)
