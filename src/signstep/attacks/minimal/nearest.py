"""The search for the nearest point that fools: papers ask for looks, the hunt keeps what they come upon."""

from typing import NamedTuple

import torch
from torch import Tensor

from signstep.attacks.minimal.planes import Pick, closest, differentiated, margin
from signstep.engine.batch_invariant import row_sum
from signstep.engine.interrupted import Run, found, settle
from signstep.engine.keys import Key
from signstep.engine.ledger import Ledger
from signstep.engine.oracles import Oracle
from signstep.engine.outcome import Found
from signstep.engine.problem import Problem, confirm, judge
from signstep.engine.region import BallRegion
from signstep.engine.tasks import Score
from signstep.engine.tree import per_row, search_dtype, wide
from signstep.errors import VictimError


class Look(NamedTuple):
    """What was seen at a displacement.

    Attributes:
        at: the displacement (R, ...) of the point that was scored, on the grid and in the precision of the input.
        fooled: (R,) whether the model fails there.
        margin: (R,) how far the outputs are from failing, at most 0 where they have failed.
    """

    at: Tensor
    fooled: Tensor
    margin: Tensor


class Planes(NamedTuple):
    """The boundary as it looks from a point: way m falls to 0 where <slope_m, d - at> = gap_m.

    Attributes:
        look: what was seen there.
        gap: (R, M), how far each way is from 0, inf where a row has fewer ways.
        slope: (R, M, ...), minus the ways' gradients.
    """

    look: Look
    gap: Tensor
    slope: Tensor

    def take(self, index: Tensor) -> "Planes":
        """The planes of the rows at ``index``."""
        return Planes(Look(*(part[index] for part in self.look)), self.gap[index], self.slope[index])


class NearestSearch:
    """Rows that look for the nearest point that fools, within box, mask and grid; no eps limits them.

    Attributes:
        problem: the question.
        region: the allowed set with an infinite radius.
        origin: the displacement of the clean input, zeros (R, ...).
        rounding: the relative rounding error of the input's own dtype.
    """

    def __init__(
        self, name: str, problem: Problem, region: BallRegion, clean: Tensor, key: Key, oracle: Oracle
    ) -> None:
        self.problem = problem
        self.region = region.resized(torch.full_like(region.radius, torch.inf))
        self.origin = torch.zeros_like(clean, dtype=search_dtype(clean.dtype))
        self.rounding = torch.finfo(clean.dtype).eps
        self._clean, self._oracle, self._eps = clean, oracle, region.radius
        self._rows = torch.arange(len(clean), device=clean.device, dtype=torch.int64)
        self._book = _Book(name, key, clean, problem.ids)

    def take(self, index: Tensor) -> "NearestSearch":
        """The hunt of the rows at ``index``; what they find is kept together with what the others find."""
        part = object.__new__(NearestSearch)
        part.problem, part.region, part.origin = self.problem.take(index), self.region.take(index), self.origin[index]
        part.rounding = self.rounding
        part._clean, part._oracle, part._book = self._clean[index], self._oracle, self._book
        part._eps = self._eps
        part._rows = self._rows[index]
        return part

    def demand(self, beyond: Tensor) -> None:
        """Return points whose margin is at most ``-beyond`` (R,), where there are any within eps, to nearer ones.

        Of those the nearest, as always; where none is, the one whose margin is least. ``smallest`` stays the length of
        the nearest that fools.
        """
        self._book.asked = _Asked(beyond, self._eps, self._book)

    def reached(self, look: Look) -> Tensor:
        """Whether the model fails there (R,) bool, as far beyond the boundary as was demanded."""
        asked = self._book.asked
        if asked is None:
            return look.fooled
        beyond = asked.beyond[self._rows]
        return look.fooled & ((beyond == 0) | (look.margin <= -beyond))

    def key(self, purpose: str, number: int = 0) -> Key:
        """Randomness of this hunt."""
        return self._book.key.fold(purpose, number)

    def length(self, d: Tensor) -> Tensor:
        """The length of displacements (R,) in the norm that is to be small."""
        return self.region.norm.length(d)

    def inside(self, d: Tensor) -> Tensor:
        """The displacement clipped to box and mask."""
        return self.region.project(d)

    def within(self, d: Tensor, radius: Tensor) -> Tensor:
        """The displacement projected onto a ball, box and mask."""
        return self.region.resized(radius).project(d)

    def unit(self) -> Tensor:
        """The scale of the inputs (R,): the mean width of the box over free coordinates, 1 where it has an open end."""
        low, high = self.region.lower, self.region.upper
        if low is None or high is None:
            return torch.ones_like(self.region.radius)
        width = (high - low).expand_as(self.origin)
        free = (self.origin[0].numel() - self.region.frozen()).clamp_min(1)
        mean = row_sum(width) / free
        return torch.where(torch.isfinite(mean) & (mean > 0), mean, 1.0)

    def look(self, d: Tensor) -> Look:
        """One forward pass."""
        point, key = self._begin(d)
        score = self._oracle.look(self.problem, point, key)
        self._book.ledger.spend(self._rows, self._oracle.looks)
        return self._seen(point, score, key)

    def ways(self, d: Tensor, count: int) -> tuple[Look, Tensor]:
        """One forward pass, and the ways (R, M) that are nearest to failing there; -1 where a row has fewer."""
        point, key = self._begin(d)
        score = self._oracle.look(self.problem, point, key)
        self._book.ledger.spend(self._rows, self._oracle.looks)
        picked = closest(count, jointly=self.problem.jointly)(score)
        missing = torch.isposinf(score.ways.gather(1, picked))
        return self._seen(point, score, key), picked.masked_fill(missing, -1)

    def climb(self, d: Tensor) -> tuple[Look, Tensor]:
        """One forward and one backward pass: the gradient (R, ...) of the searched loss."""
        point, key = self._begin(d)
        score, gradient = self._oracle(self.problem, point, key)
        self._book.ledger.spend(self._rows, self._oracle.gradients, self._oracle.gradients)
        assert isinstance(gradient, Tensor)
        return self._seen(point, score, key), self._counted(gradient, None)

    def planes(self, d: Tensor, count: int = 1, way: Tensor | None = None) -> Planes:
        """One forward and M backward passes: the hyperplanes of the ``count`` nearest ways, or of ``way`` (R,)."""
        pick: Pick = closest(count, jointly=self.problem.jointly)
        if way is not None:
            chosen = way[:, None]
            pick = lambda score: chosen  # noqa: E731, ARG005
        point, key = self._begin(d)
        seen = differentiated(self._oracle, self.problem, point, key, pick, self._book.name)
        self._book.ledger.spend(self._rows, seen.forwards, seen.backwards)
        there = ~torch.isposinf(seen.score.ways.gather(1, seen.ways))
        there[:, 0] = True
        slopes = [self._counted(s, there[:, n]) for n, s in enumerate(seen.slopes) if isinstance(s, Tensor)]
        gap = (
            torch.nan_to_num(seen.score.ways, nan=torch.inf, posinf=torch.inf)
            .gather(1, seen.ways)
            .to(self.origin.dtype)
        )
        return Planes(self._seen(point, seen.score, key), gap, torch.stack(slopes, 1))

    def nearest(self) -> tuple[Tensor, Tensor]:
        """The nearest displacement (R, ...) that has fooled, with its length (R,); where none has, the last one."""
        book, rows = self._book, self._rows
        near = torch.isfinite(book.length[rows])
        reached = book.point[rows].to(self.origin.dtype) - self._clean.to(self.origin.dtype)
        d = torch.where(per_row(near, reached), reached, book.last[rows])
        return d, self.length(d)

    def found(self, problem: Problem, region: BallRegion, clean: Tensor, ended: str | None = None) -> Found:
        """The nearest point of each row where its radius allows it, else its projection; judged on the model itself.

        ``ended``: why the victim stopped answering on the way, or None; what it was seen to fail on keeps that verdict.
        """
        book, everyone = self._book, self._rows
        near = torch.isfinite(book.length)
        allowed = near & (book.length <= region.radius.to(book.length))
        best, _ = self.nearest()
        point = torch.where(per_row(allowed, clean), book.point, region.land(region.project(best)))
        nearest, short = allowed, torch.zeros_like(allowed)
        if book.asked is not None:
            point = torch.where(per_row(book.asked.there, clean), book.asked.point, point)
            nearest = allowed & ~(book.asked.there & (book.asked.length > book.length))
            short = book.asked.margin > -book.asked.beyond
        transfer = not self._oracle.sees_victim
        seen = allowed & torch.full_like(allowed, not transfer)
        ended = settle(book.ledger, problem, everyone, Run(point, seen, None, ended), book.key)
        verdict = book.ledger.verdict
        assert verdict is not None
        smallest = torch.where(nearest & ~verdict.fooled, torch.inf, book.length)
        silent = ended
        if (transfer or problem.random) and silent is None:
            try:
                smallest = self._asked_again(problem, clean, smallest, near & ~nearest, transfer=transfer)
            except VictimError as error:
                silent = str(error)
        if (transfer or problem.random) and silent is not None:
            smallest = torch.where(near & ~nearest, torch.inf, smallest)
        # The projection of a point beyond eps may fool as well, and is then the nearer one.
        length = self.region.norm.length(wide(point) - wide(clean)).to(smallest)
        smallest = torch.where(verdict.fooled & (length > 0), torch.minimum(smallest, length), smallest)
        whole = found(book.ledger, region, ended)
        notes = (_SHORT.format(book.name),) if bool((short & verdict.fooled).any()) else ()
        return whole._replace(ended=silent, smallest=torch.where(book.untouched, 0.0, smallest), notes=notes)

    def _asked_again(
        self, problem: Problem, clean: Tensor, smallest: Tensor, unseen: Tensor, *, transfer: bool
    ) -> Tensor:
        """The lengths, where those of points that are not returned and that the model does not confirm are infinite.

        They were only seen by others, or in passes that decisions have used.
        """
        book, everyone = self._book, self._rows
        index = unseen.nonzero().squeeze(1)
        if len(index):
            sure = judge(problem.take(index), book.point[index], book.key.fold("smallest"))
            book.ledger.spend(index, sure.passes)
            smallest[index] = torch.where(sure.fooled, smallest[index], torch.inf)
        if transfer:
            untouched = judge(problem, clean, book.key.fold("untouched"))
            book.ledger.spend(everyone, untouched.passes)
            book.untouched = untouched.fooled
        return smallest

    def _begin(self, d: Tensor) -> tuple[Tensor, Key]:
        """The point to look at, and the key of this look."""
        self._book.looks += 1
        key = self._book.key.fold("look", self._book.looks)
        if self._book.looks == 2:
            self.problem = self.problem.take(
                torch.arange(len(self._rows), device=self._rows.device, dtype=torch.int64)
            )  # no longer warm
        return (self._clean if d is self.origin else self._landed(d)), key

    def _landed(self, d: Tensor) -> Tensor:
        grid = self.region.grid
        if grid is not None:
            # `land` truncates towards x to stay in the ball; here no ball limits, so half a step makes it round.
            d = d + d.sign() * (0.5 * (grid.high - grid.low) / grid.steps)
        return self.region.land(d)

    def _counted(self, gradient: Tensor, there: Tensor | None) -> Tensor:
        """The gradient without unusable coordinates; the health of the rows ``there`` (R,) is taken now and then."""
        gradient = self.region.restrict(gradient.to(self.origin.dtype))
        if self._book.looks > 3 and self._book.looks % 10:
            return torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
        if there is not None and not bool(there.all()):
            index = there.nonzero().squeeze(1)
            seen = self._book.ledger.count(self._rows[index], self.region.take(index), gradient[index])
            assert isinstance(seen, Tensor)
            return torch.zeros_like(gradient).index_copy_(0, index, seen)
        cleaned = self._book.ledger.count(self._rows, self.region, gradient)
        assert isinstance(cleaned, Tensor)
        return cleaned

    def _seen(self, point: Tensor, score: Score, key: Key) -> Look:
        """Keep the point where it fools and is nearer than any before it."""
        book, rows, fooled = self._book, self._rows, score.fooled
        exact = wide(point) - wide(self._clean)
        length = self.region.norm.length(exact).to(book.length)
        far = margin(score, jointly=self.problem.jointly).to(self.origin.dtype)
        nearer = fooled & (length > 0) & (length < book.length[rows])
        surer = torch.zeros_like(nearer) if book.asked is None else fooled & book.asked.better(rows, length, far)
        at_clean = point is self._clean
        if self._oracle.sees_victim:
            doubtful = fooled if at_clean else nearer | surer
            sure = confirm(self.problem, point, key, doubtful, exact=self._oracle.exact)
            book.ledger.spend(rows[doubtful] if sure.passes else None, sure.passes)
            fooled = torch.where(doubtful, sure.fooled, fooled)
            nearer, surer = nearer & fooled, surer & fooled
        if at_clean:
            book.untouched[rows] |= fooled
        else:
            book.last[rows] = exact.to(book.last)
            kept = nearer.nonzero().squeeze(1)
            book.point[rows[kept]] = point[kept]
            book.length[rows[kept]] = length[kept]
            if book.asked is not None:
                kept = surer.nonzero().squeeze(1)
                book.asked.keep(rows[kept], point[kept], length[kept], far[kept])
        return Look(exact.to(self.origin), fooled, far)


_SHORT = (
    "{}: some points lie less far beyond the boundary than was asked for: none that far was found within eps, and the "
    "one that came farthest was returned"
)


class _Asked:
    """Of each row the nearest point within eps that fools as clearly as was demanded, else the clearest one there."""

    def __init__(self, beyond: Tensor, eps: Tensor, book: "_Book") -> None:
        self.beyond, self.point = beyond, book.point.clone()
        self.length, self.margin = torch.full_like(book.length, torch.inf), torch.full_like(beyond, torch.inf)
        self._eps = eps.to(book.length)

    @property
    def there(self) -> Tensor:
        """Whether any point within eps fools, (R,) bool."""
        return torch.isfinite(self.length)

    def better(self, rows: Tensor, length: Tensor, margin: Tensor) -> Tensor:
        """Which of these points, one for each of ``rows``, are to be preferred if they fool."""
        least = -self.beyond[rows]
        enough, had = margin <= least, self.margin[rows] <= least
        preferred = torch.where(enough, ~had | (length < self.length[rows]), ~had & (margin < self.margin[rows]))
        return preferred & (length > 0) & (length <= self._eps[rows])

    def keep(self, rows: Tensor, point: Tensor, length: Tensor, margin: Tensor) -> None:
        self.point[rows], self.length[rows], self.margin[rows] = point, length, margin


class _Book:
    """What all rows have found, and what it took."""

    def __init__(self, name: str, key: Key, clean: Tensor, ids: Tensor) -> None:
        self.name, self.key, self.looks = name, key, 0
        self.ledger = Ledger(ids)
        self.point = clean.clone()
        self.last = torch.zeros_like(clean, dtype=search_dtype(clean.dtype))
        number = torch.float32 if clean.device.type == "mps" else torch.float64
        self.length = torch.full((len(clean),), torch.inf, dtype=number, device=clean.device)
        self.untouched = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        self.asked: _Asked | None = None
