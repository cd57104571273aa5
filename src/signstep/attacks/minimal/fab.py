"""FAB: onto the linearised boundary inside the box, leaning towards the clean input; a step back when it fools."""

from functools import partial

import torch
from torch import Tensor

from signstep.attacks.minimal.attack import MinimalAttack, positive
from signstep.attacks.minimal.deepfool import nearest_plane
from signstep.attacks.minimal.hyperplane import onto
from signstep.attacks.minimal.nearest import Look, NearestSearch
from signstep.engine.batch_invariant import row_sum
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.passes import Setting
from signstep.engine.tree import per_row
from signstep.errors import InputError
from signstep.messages import Arg

_FINAL = 3
_BEYOND = 1 / 16


def fab(
    *,
    steps: int = 100,
    restarts: int = 1,
    targets: int = 0,
    candidates: int = 10,
    bias: float = 0.1,
    overshoot: float = 1.05,
    backward: float = 0.9,
    oracle: Oracle | None = None,
) -> MinimalAttack:
    """Fast adaptive boundary attack (Croce & Hein 2020, arXiv:1907.02044, algorithm 1).

    d_i, d_o: the shortest ways onto the nearest plane inside the box, from the point and from the clean input
    a = min(|d_i| / (|d_i| + |d_o|), bias);  d <- (1 - a)(d + overshoot d_i) + a overshoot d_o
    d <- backward * d where that fools; at the end of each run three secant steps from the nearest point to the clean

    ``candidates``: planes looked at, those of the nearest classes (the paper takes all). ``targets=9`` is FAB-T: a run
    towards each of the nine closest classes, one plane each. Restarts begin at random within half the distance of the
    nearest point so far; eps does not limit them, so that results do not depend on it.
    """
    positive("fab", restarts=restarts, candidates=candidates, overshoot=overshoot)
    if targets < 0:
        raise InputError(
            Arg("targets", targets), remedy="pass the number of classes to lead to, at least 0", where="fab"
        )
    for option, value in (("bias", bias), ("backward", backward)):
        if not 0 <= value <= 1:
            raise InputError(Arg(option, value), remedy="pass a share between 0 and 1", where="fab")
    search = partial(
        _search,
        steps=steps,
        restarts=restarts,
        targets=targets,
        candidates=candidates,
        rule=(bias, overshoot, backward),
    )

    def looks(setting: Setting) -> tuple[int, int]:
        led = targets > 0 and setting.ways > 0
        count = int(led) + restarts * (setting.reachable(targets) if led else 1) * (2 * steps + 1 + _FINAL)
        return count, count

    return MinimalAttack("fab", search, steps, ("linf", "l2", "l1"), looks, oracle or Autograd(), random=restarts > 1)


def _search(
    hunt: NearestSearch, *, steps: int, restarts: int, targets: int, candidates: int, rule: tuple[float, float, float]
) -> None:
    clean: Look | None = None
    aims: list[Tensor | None] = [None]
    if targets and hunt.problem.classwise:
        clean, ways = hunt.ways(hunt.origin, targets)
        aims = list(ways.T)
    for restart in range(restarts):
        for number, aim in enumerate(aims):
            there = None if aim is None or bool((aim >= 0).all()) else (aim >= 0).nonzero().squeeze(1)
            part = hunt if there is None else hunt.take(there)
            aimed = aim if aim is None or there is None else aim[there]
            if len(part.origin) == 0:
                continue
            d = part.origin if restart == 0 else _scattered(part, restart * len(aims) + number)
            for _ in range(steps):
                d, seen = _step(part, d, aimed, candidates, rule)
                clean = seen if clean is None else clean
            assert clean is not None
            # After each run, as in the authors' program: once at the end, a restart could lead it to a longer line.
            _final(part, clean.margin if there is None else clean.margin[there])


def _step(
    hunt: NearestSearch, d: Tensor, aim: Tensor | None, candidates: int, rule: tuple[float, float, float]
) -> tuple[Tensor, Look]:
    bias, overshoot, backward = rule
    norm, low, high = hunt.region.norm, hunt.region.lower, hunt.region.upper
    planes = hunt.planes(d, candidates, aim)
    gap, slope = nearest_plane(planes, norm)
    offset = gap + row_sum(slope * planes.look.at)  # <slope, d> on the plane
    # The gap is that of the point as it landed: on a grid, small steps add up in d until they show. Scores in half
    # precision may tie, and a gap of 0 would move nothing.
    gain = torch.where(planes.look.fooled, gap, torch.maximum(gap, hunt.rounding * offset.abs()))
    here = onto(norm, slope, gain, None if low is None else low - d, None if high is None else high - d)
    home = onto(norm, slope, offset, low, high)
    near, far = norm.length(here), norm.length(home)
    share = torch.where(near + far > 0, near / (near + far), 0.0).clamp_max(bias)
    lean = per_row(share, d)
    ahead = hunt.inside((1 - lean) * (d + overshoot * here) + lean * overshoot * home)
    fooled = hunt.look(ahead).fooled
    return torch.where(per_row(fooled, d), backward * ahead, ahead), planes.look


def _scattered(hunt: NearestSearch, number: int) -> Tensor:
    """Uniform in the ball of half the distance of the nearest point so far."""
    draws = hunt.key("restart", number).draws(hunt.problem.ids, hunt.origin.device)
    radius = (hunt.nearest()[1] / 2).to(hunt.origin)
    unit = hunt.region.norm.sample(draws, tuple(hunt.origin.shape[1:])).to(hunt.origin)
    return hunt.inside(per_row(radius, unit) * unit)


def _final(hunt: NearestSearch, margin: Tensor) -> None:
    """Section 3.3: a little beyond where the margin, taken for linear between the two, would be zero; three times.

    The paper looks at the zero itself. Near the end most networks are linear on the line, the zero is exact, and
    whether it fools was for rounding to say: the distance hung on it by up to a hundredth, and so on the other rows of
    a batch. A sixteenth of the way to the outer point beyond it the answer is certain until it no longer matters.

    Args:
        hunt: the rows of the run.
        margin: theirs at the clean input, (R,).
    """
    d, _ = hunt.nearest()
    inner, outer = torch.zeros_like(margin), torch.ones_like(margin)
    above, below = margin, hunt.look(d).margin
    for _ in range(_FINAL):
        share = torch.nan_to_num(above / (above - below), 0.5).clamp(0, 1)
        share = share + _BEYOND * (1 - share)
        t = inner + share * (outer - inner)
        look = hunt.look(per_row(t, d) * d)
        inner, above = torch.where(look.fooled, inner, t), torch.where(look.fooled, above, look.margin)
        outer, below = torch.where(look.fooled, t, outer), torch.where(look.fooled, look.margin, below)
