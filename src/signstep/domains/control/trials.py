"""Random errors of the same size as an attack's: what bad luck alone would do.

Four kinds, each allowed by the same sensors: "noise", uniform at each sample; "signs", a random corner of the set, the
largest error with a random sign at each sample (under a rate limit: the extreme error in a random direction); "held",
the same with signs that last, for 2 samples up to half of the series; "bias", one uniform number for each sensor.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from signstep.domains.control.rollout import ClosedLoop
from signstep.domains.control.threat import SensorRegion, SensorThreat
from signstep.engine.keys import Key, RowDraws, content_ids
from signstep.engine.tree import per_row
from signstep.errors import InputError
from signstep.messages import Arg

Kind = Literal["noise", "signs", "held", "bias"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_TOGETHER = 4096


class Trials(NamedTuple):
    """For each kind and each start (R,): how many of its trials failed; and how many trials each kind had."""

    failed: dict[Kind, Tensor]
    each: int

    @property
    def total(self) -> int:
        """Trials for each start."""
        return self.each * len(self.failed)

    @property
    def any(self) -> Tensor:
        """Starts (R,) at which at least one trial failed."""
        return torch.stack(list(self.failed.values())).sum(0) > 0

    @property
    def share(self) -> float:
        """Failed trials of all trials."""
        every = torch.stack(list(self.failed.values()))
        return float(every.sum()) / (every.numel() * self.each) if every.numel() else 0.0


def random_errors(region: SensorRegion, kind: Kind, draws: RowDraws) -> Tensor:
    """One random allowed error (R, T, S) for each row of the region."""
    shape = tuple(region.x.shape[1:])
    if kind == "noise":
        return region.sample(draws)
    if kind == "signs":
        return region.vertex(draws)
    if kind == "bias":
        number = 2 * draws.uniform("bias", (1, shape[1])).double() - 1
        return region.project(per_row(region.radius, number) * number * region.bound)
    direction = draws.normal("held", shape)
    longest = max(2.0, shape[0] / 2)
    length = (2 * (longest / 2) ** draws.uniform("length", (1, shape[1])).double()).round().long()
    block = torch.arange(shape[0], dtype=torch.int64, device="cpu")[:, None] // length
    return region.steepest(region.restrict(direction.gather(1, block)))


def random_trials(
    loop: ClosedLoop, start: Tensor, steps: int, *, threat: SensorThreat, count: int = 1000, seed: int = 0
) -> Trials:
    """Try ``count`` random errors at each start (R, N), a quarter of each kind, and count the failures.

    Raises:
        InputError: count is not a multiple of the kinds.
    """
    if count < 1 or count % len(KINDS):
        raise InputError(Arg("count", count), remedy=f"pass a multiple of {len(KINDS)}, the kinds of random error")
    each = count // len(KINDS)
    ids = content_ids(start)
    failed = {}
    for kind in KINDS:
        hits = torch.zeros(len(start), dtype=torch.int64, device="cpu")
        for index, number in _pieces(len(start), each):
            rows = start[index]
            eps = threat.eps[index] if isinstance(threat.eps, Tensor) and threat.eps.ndim else threat.eps
            region = threat.sized(eps).around(rows.new_zeros(len(index), steps, start.shape[1]))
            draws = Key(seed).fold("trials", kind).draws(ids[index] + number, start.device)
            with torch.no_grad():
                margin = loop(error=region.land(random_errors(region, kind, draws)), start=rows)
            hits.index_add_(0, index, (margin >= 0).long())
        failed[kind] = hits
    return Trials(failed, each)


def _pieces(rows: int, each: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Every trial of every row, some thousands at a time: the places of their rows and their own numbers."""
    for begin in range(0, rows * each, _TOGETHER):
        flat = torch.arange(begin, min(begin + _TOGETHER, rows * each), dtype=torch.int64, device="cpu")
        yield flat // each, flat % each
