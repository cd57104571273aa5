"""HopSkipJump: the nearest point that fools, found from the model's answers alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.attacks.search.label_queries import LabelQueries
from signstep.attacks.search.windows import Layout
from signstep.engine.attack import Needs
from signstep.engine.batch_invariant import row_sum
from signstep.engine.interrupted import Run, found, settle
from signstep.engine.keys import Key
from signstep.engine.ledger import Ledger
from signstep.engine.norms import L2, Linf
from signstep.engine.oracles import Oracle
from signstep.engine.outcome import Found
from signstep.engine.passes import Passes, Setting
from signstep.engine.problem import HELD_OUT, LOOKS, Problem
from signstep.engine.region import BallRegion, ProductRegion, Region, ball_of
from signstep.engine.tree import Tree, per_row, search_dtype
from signstep.errors import InputError, ThreatError, VictimError
from signstep.messages import Arg

_FINEST = 10  # halvings of a search on a line, at least
_TOGETHER = 32  # probes of a row that are asked at once, fewer of large inputs, so that few rows keep a model busy
_ROOM = 2**16
_HALVINGS = 25  # of a step that lands where the model does not fail, at most


@dataclass(frozen=True)
class HopSkipJump:
    """Along the boundary of the model's answer towards the clean input, by answers alone.

        d_b on the boundary, by halving;  g = mean of (phi_b - mean phi) v_b over probes d_b + delta v_b;
        d = d_b + xi * g / |g|  (sign(g) for L-infinity),  xi = length(d_b) / sqrt(t), halved until d fools

    phi is +1 where the model fails and -1 elsewhere. Source: Chen, Jordan & Wainwright 2020 (arXiv:1904.02144),
    algorithms 1 and 2. Differs: every try for a first point draws noise in blocks of another size, since noise of
    single positions is one class to many models; a point of another attack that fools is preferred; the length of a
    probe never falls below what the input's precision, or its grid, can show; the nearest point of the whole run
    counts, not the last one.

    Attributes:
        queries: forward passes of a row; the verdict comes on top.
        samples: probes of the first estimate; the t-th takes sqrt(t) times as many.
    """

    queries: int = 5000
    samples: int = 100
    name: str = "hop-skip-jump"
    steps: int = 0
    draws: bool = True
    from_clean: bool = False
    needs: Needs = "labels"

    def __post_init__(self) -> None:
        if self.queries < 1 or self.samples < 2:
            raise InputError(
                Arg("queries", self.queries),
                Arg("samples", self.samples),
                remedy="pass at least 1 query and 2 samples",
                where="hop-skip-jump",
            )

    def passes(self, setting: Setting) -> Passes:
        """What the plan lets one example spend: half the budget goes into the search for a first point alone."""
        verdict = HELD_OUT if setting.random else 1
        budget = max(0, self.queries - (LOOKS if setting.random else 0))
        return Passes(verdict, min(budget, 1 + budget // 2) + verdict, self.queries + verdict, 0, 0)

    @torch.no_grad()
    def __call__(
        self,
        problem: Problem,
        region: Region,
        clean: Tree,  # noqa: ARG002
        key: Key,
        begin: Tree | None = None,
    ) -> Found:
        """The nearest point of each row that fools, or what is left of it inside the radius.

        ``smallest`` has its length, also beyond the radius; of a random model only if most of several looks agree.

        Raises:
            ThreatError: a norm other than L-infinity and L2, or several attacked inputs.
        """
        part, name = _alone(region)
        asked = problem if name is None else problem.through(lambda u: {name: _tensor(u)})
        start = begin[name] if isinstance(begin, dict) and name is not None else begin
        jury = LabelQueries(asked, part, key, self.queries - (LOOKS if problem.random else 0))
        try:
            _Walk(jury, part, problem.ids, key, self.samples).run(None if start is None else _tensor(start))
            jury.agree()
        except VictimError as error:
            jury.ended = str(error)
        reached = jury.length <= part.radius.to(jury.length)
        cut = part.land(part.project(_displacement(jury.point, part.x)))
        point = torch.where(per_row(reached, cut), jury.point, cut)
        run = Run(point if name is None else {name: point}, reached, jury.answer, jury.ended)
        ledger, everyone = (
            Ledger(problem.ids),
            torch.arange(len(problem.ids), device=problem.ids.device, dtype=torch.int64),
        )
        ledger.forwards += jury.spent
        ended = settle(ledger, problem, everyone, run, key)
        return found(ledger, region, ended)._replace(smallest=jury.length)


class _Walk:
    """One run along the boundary: the rows stay in step, and those that are out of queries are left where they are.

    ``d`` (R, ...) holds a displacement that fools for every row that is still named by an index.
    """

    def __init__(self, jury: LabelQueries, region: BallRegion, ids: Tensor, key: Key, samples: int) -> None:
        self._jury, self._region, self._ids, self._key, self._samples = jury, region, ids, key, samples
        self._features = region.x[0].numel()
        self._linf = isinstance(region.norm, Linf)
        self._fine = max(_FINEST, math.ceil((2 if self._linf else 1.5) * math.log2(max(2, self._features))))
        self._spacing = math.sqrt(self._features) * _spacing(region)
        self._block = max(1, min(_TOGETHER, _ROOM // self._features))
        self._d = torch.zeros_like(region.x, dtype=search_dtype(region.x.dtype))

    def run(self, begin: Tensor | None) -> None:
        """From a first point that fools, hop along the boundary until the queries are spent."""
        index = self._first(begin)
        self._approach(index)
        step = 1
        while len(index := self._able(index, 4)):
            self._jump(index, self._estimate(index, step), step)
            self._approach(index)
            step += 1

    def _able(self, index: Tensor, queries: int = 1) -> Tensor:
        """The rows of ``index`` that can still ask as often as this."""
        return index[self._jury.left(index) >= queries]

    def _first(self, begin: Tensor | None) -> Tensor:
        """The rows with a point that fools: ``begin``, or the first noise that does.

        A row whose clean input fools is done: nothing is nearer.
        """
        index = self._able(torch.arange(len(self._d), device=self._d.device, dtype=torch.int64))
        if len(index):
            index = index[~self._jury.fooled(self._d[index], index)]
        having = []
        if begin is not None and len(index := self._able(index)):
            self._d[index] = _displacement(begin, self._region.x)[index]
            good = self._jury.fooled(self._d[index], index)
            having.append(index[good])
            index = index[~good]
        for attempt in range(self._jury.queries // 2):
            if not len(index := self._able(index)):
                break
            self._d[index] = self._noise(attempt, index)
            good = self._jury.fooled(self._d[index], index)
            having.append(index[good])
            index = index[~good]
        return torch.cat([self._ids.new_zeros(0), *having]).sort().values

    def _noise(self, attempt: int, index: Tensor) -> Tensor:
        """Uniform in the box, in blocks of 1, 2, 4 or 8 positions; where the box is open, in a cube that grows."""
        region = self._region.take(index)
        layout = Layout.of(tuple(region.x.shape[1:]))
        draws = self._key.fold("noise", attempt).draws(self._ids[index], region.x.device)
        block = 2 ** (attempt % 4)
        down, across = (
            torch.arange(size, device=region.x.device, dtype=torch.int64) // block * block for size in layout[1:]
        )
        share = draws.uniform("box", tuple(layout))[:, :, down][..., across].reshape(region.x.shape).to(self._d.dtype)
        size = torch.where(torch.isfinite(region.radius) & (region.radius > 0), region.radius, 1.0)
        size = per_row(size, share) * 2.0 ** min(30, attempt // 4)
        low = torch.full_like(share, -torch.inf) if region.lower is None else region.lower.expand(share.shape)
        high = torch.full_like(share, torch.inf) if region.upper is None else region.upper.expand(share.shape)
        bounded = torch.isfinite(low) & torch.isfinite(high)
        inside = torch.where(bounded, low, 0.0) + share * torch.where(bounded, high - low, 0.0)
        return torch.where(bounded, inside, (2 * share - 1) * size).clamp(low, high)

    def _approach(self, index: Tensor) -> None:
        """To the boundary by halving, on the line to the clean input; for L-infinity by shrinking the cube."""
        far = self._d
        low, high = torch.zeros_like(self._region.radius), torch.ones_like(self._region.radius)
        for _ in range(self._fine):
            if not len(index := self._able(index)):
                break
            middle = (low[index] + high[index]) / 2
            good = self._jury.fooled(self._shrunk(far[index], middle), index)
            high[index[good]] = middle[good]
            low[index[~good]] = middle[~good]
        self._d = self._shrunk(far, high)

    def _shrunk(self, d: Tensor, share: Tensor) -> Tensor:
        if not self._linf:
            return d * per_row(share, d)
        side = per_row(share * d.flatten(1).abs().amax(1), d)
        return torch.minimum(torch.maximum(d, -side), side)

    def _estimate(self, index: Tensor, step: int) -> Tensor:
        """The direction in which the model fails, for the rows of ``index``; not normalised."""
        here, region = self._d[index], self._region.take(index)
        reach = torch.maximum(region.norm.length(here) / self._features, self._spacing[index])
        wanted = int(self._samples * math.sqrt(step))
        count = (self._jury.left(index) - _FINEST).clamp(2, wanted)
        signed, plain, phis = torch.zeros_like(here), torch.zeros_like(here), torch.zeros_like(reach)
        key = self._key.fold("probe", step)
        for start in range(0, int(count.max()), self._block):
            live = (count > start).nonzero().squeeze(1)
            v = self._directions(key.fold(start), index[live], here.dtype)
            asked = (start + torch.arange(self._block, device=index.device, dtype=torch.int64)) < count[live].unsqueeze(
                1
            )
            v, phi = self._probes(here[live], v, reach[live], index[live], asked)
            signed[live] += (v * _to_each(phi, v)).sum(1)
            plain[live] += v.sum(1)
            phis[live] += phi.sum(1)
        mean = phis / count
        # Where all answers are alike the mean of the probes leads to, or away from, that side.
        weight = torch.where(mean.abs() == 1, 0.0, -mean)
        return signed + per_row(weight, plain) * plain

    def _directions(self, key: Key, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Random directions (rows, block, ...) of length 1 in L2, inside the mask."""
        region, shape = self._region.take(index), (self._block, *self._region.x.shape[1:])
        draws = key.draws(self._ids[index], region.x.device)
        v = (2 * draws.uniform("v", shape) - 1 if self._linf else draws.normal("v", shape)).to(dtype)
        v = torch.stack([region.restrict(part) for part in v.unbind(1)], 1)
        return v / _to_each(v.flatten(2).square().sum(2).sqrt().clamp_min(torch.finfo(dtype).tiny), v)

    def _probes(self, here: Tensor, v: Tensor, reach: Tensor, index: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Where the probes lay once the box had cut them, and the answers +1 or -1; zeros where none was asked.

        Args:
            here: (rows, ...).
            v: directions (rows, block, ...).
            reach: length of the probes, (rows,).
            index: the rows.
            asked: which to ask, (rows, block) bool.
        """
        length = reach.reshape(-1, *([1] * (v.ndim - 1)))
        points = (here.unsqueeze(1) + length * v).flatten(0, 1)[asked.flatten()]
        owners = index.repeat_interleave(self._block)[asked.flatten()]
        points = self._boxed(points, owners)
        phi = torch.zeros_like(asked, dtype=here.dtype)
        phi[asked] = torch.where(self._jury.fooled(points, owners), 1.0, -1.0).to(here.dtype)
        cut = torch.zeros_like(v)
        cut[asked] = points - self._d[owners]
        return cut / length, phi

    def _jump(self, index: Tensor, towards: Tensor, step: int) -> None:
        """A step along ``towards``, halved until it lands where the model fails; rows where none does stay."""
        here = self._d[index]
        size = self._region.take(index).norm.length(here) / math.sqrt(step)
        if self._linf:
            towards = towards.sign()
        else:
            length = row_sum(towards.square()).sqrt().clamp_min(torch.finfo(here.dtype).tiny)
            towards = towards / per_row(length, towards)
        live = torch.arange(len(index), device=index.device, dtype=torch.int64)
        for _ in range(_HALVINGS):
            live = live[self._jury.left(index[live]) >= 1]
            if not len(live):
                break
            there = self._boxed(here[live] + per_row(size[live], here) * towards[live], index[live])
            good = self._jury.fooled(there, index[live])
            self._d[index[live[good]]] = there[good]
            live = live[~good]
            size[live] /= 2

    def _boxed(self, d: Tensor, index: Tensor) -> Tensor:
        region = self._region.take(index)
        return d if region.lower is None and region.upper is None else d.clamp(region.lower, region.upper)


def _to_each(values: Tensor, like: Tensor) -> Tensor:
    """View (rows, block) so that it broadcasts over (rows, block, ...)."""
    return values.reshape(*values.shape, *([1] * (like.ndim - 2)))


def _spacing(region: BallRegion) -> Tensor:
    """The smallest change of one coordinate that surely reaches the model, for each row."""
    if region.grid is not None:
        return torch.full_like(region.radius, (region.grid.high - region.grid.low) / region.grid.steps)
    size = region.x.flatten(1).abs().amax(1).to(region.radius)
    return 16 * torch.finfo(region.x.dtype).eps * size.clamp_min(1e-3)


def _alone(region: Region) -> tuple[BallRegion, str | None]:
    """The one attacked input's region, and its name in a dict of inputs.

    Raises:
        ThreatError: several attacked inputs, or a norm without a rule here.
    """
    name = None
    if isinstance(region, ProductRegion):
        if len(region.parts) != 1:
            raise ThreatError(
                f"hop-skip-jump measures the change of one input, the threat names {list(region.parts)}",
                remedy="attack one",
            )
        ((name, region),) = region.parts.items()
    ball = ball_of(region, "hop-skip-jump")
    if not isinstance(ball.norm, (Linf, L2)):
        raise ThreatError(f"norm {ball.norm.name}: hop-skip-jump is defined for linf and l2", remedy="pass one of them")
    return ball, name


def _displacement(point: Tensor, x: Tensor) -> Tensor:
    return point.to(search_dtype(x.dtype)) - x.to(search_dtype(x.dtype))


def _tensor(tree: Tree) -> Tensor:
    assert isinstance(tree, Tensor)
    return tree


def hop_skip_jump(*, queries: int = 5000, samples: int = 100, oracle: Oracle | None = None) -> HopSkipJump:  # noqa: ARG001
    """Along the boundary of the model's answer towards the clean input, by answers alone (Chen et al. 2020)."""
    return HopSkipJump(queries, samples)
