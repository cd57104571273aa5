"""From a batch and its allowed set to what is proved of each row, by methods from the cheapest to the dearest."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from signstep.certify import auto_lirpa
from signstep.certify.bounds import answers, bounds_on, ends
from signstep.certify.bounds.interval import Interval
from signstep.certify.branching import shown
from signstep.certify.exact import searched
from signstep.certify.linear.alpha import tuned
from signstep.certify.linear.ball import Ball
from signstep.certify.linear.crown import Bounded, ways_of
from signstep.certify.linear.program import Program, program
from signstep.certify.methods import LETTERS, OPEN, SECONDS
from signstep.engine.region import BallRegion
from signstep.engine.tree import wide
from signstep.errors import ModelError

_ROWS = 256
# What a margin must exceed, of the scores' size: rounding in float64 is far below it, in float32 mostly.
SLACK = 1e-6
# So much of the difference that is seen between the model's own arithmetic and float64 is left for what is not seen.
_UNSEEN = 4
# What the tolerances of the solver may make of a margin, in slacks.
_SOLVER = 100
# The share of the time for exact search that branching has; the solver, which also finds points, has the rest.
_BRANCHED = 0.5
_ROUNDING = 1e-9  # float64, relative
_BALLS = {"l2": "l2", "l1": "l1"}


@dataclass(eq=False)
class Prover:
    """A network and how it is proved; what is prepared for it once serves every batch.

    Attributes:
        network: the model's own layers, in evaluation mode when `prove` is called; nothing here changes them.
        to_model: from inputs in the units of the threat to what the network is called with; number by number.
        method: the dearest to try; the cheaper ones come first.
        seconds: for each example, of exact search.
        notes: what the reader must know, once there was a batch.
        points: by row of the last batch, an allowed change (...) in the units of the threat that exact search found,
            at which a margin is too small; the model itself has not been asked.
    """

    network: nn.Module
    to_model: Callable[[Tensor], Tensor]
    method: str = "interval"
    seconds: float = SECONDS
    notes: list[str] = field(default_factory=list)
    points: dict[int, Tensor] = field(default_factory=dict)
    _exact: nn.Module | None = None
    _program: tuple[tuple[int, ...], Program] | None = None

    @torch.no_grad()
    def prove(self, region: BallRegion, y: Tensor, tolerance: float) -> str:
        """A letter for each row: of the method that has proved that no allowed point is answered otherwise, or "-".

        The ball is widened by ``tolerance``, what a checker of points lets pass, so that no point that it accepts is
        outside of what was proved.

        Args:
            region: around inputs (R, ...) in the units of the threat.
            y: classes (R,).
            tolerance: in the same units.

        Raises:
            ModelError: no interval goes through a part of the model, or the model leaves its own bounds.
        """
        self.points.clear()
        region = widened(region, tolerance)
        low, high = ends(region)
        exact = self._copy(low)
        y = y.to(low.device)
        letters, slacks = [], []
        for start in range(0, len(y), _ROWS):
            part = slice(start, start + _ROWS)
            held, slack, hopeful = self._by_intervals(
                exact, self.to_model(low[part]), self.to_model(high[part]), self.to_model(region.x[part]), y[part]
            )
            letters += ["i" if here else "?" if there else OPEN for here, there in zip(held, hopeful, strict=True)]
            slacks += slack
        for row, letter in enumerate(letters):
            if letter == "?":
                letters[row] = (
                    OPEN
                    if self.method == "interval"
                    else self._by_lines(exact, region, (low, high), row, int(y[row]), slacks[row])
                )
        return "".join(letters)

    def classes(self, low: Tensor) -> int:
        """How many the network has, by its answer to one input in the units of the threat."""
        exact = self._copy(low)
        one = self.to_model(wide(low[:1]))
        shape = tuple(bounds_on(exact, one, one).centre.shape)
        if len(shape) != 2 or shape[1] < 2:
            raise ModelError(
                f"the model's outputs have shape {shape} for one row",
                remedy="return scores (R, K), K > 1, as a certificate needs",
            )
        return shape[1]

    def _copy(self, like: Tensor) -> nn.Module:
        """The network in float64, in evaluation mode."""
        if self._exact is None:
            self._exact = copy.deepcopy(self.network).to(wide(like).device).double().eval()
            for part in self._exact.parameters():
                part.requires_grad_(False)
        return self._exact

    def _by_intervals(
        self, exact: nn.Module, low: Tensor, high: Tensor, x: Tensor, y: Tensor
    ) -> tuple[list[bool], list[float], list[bool]]:
        """Whether no other class reaches this one in the box; what a margin must exceed; whether x itself does.

        The model is asked at three points: a part that does not do what its type promises shows there, and how far its
        own arithmetic is from float64.
        """
        margins, outputs = answers(exact, low, high, y)
        rounding = _ROUNDING * (1 + outputs.centre.abs() + outputs.radius)
        apart, size = torch.zeros(len(y), dtype=low.dtype, device=low.device), None
        own = next((part for part in self.network.parameters() if part.is_floating_point()), low)
        for point in (x, low, high):
            said = exact(point)
            if bool(((said - outputs.centre).abs() > outputs.radius + rounding).any()):
                raise ModelError(
                    f"{type(self.network).__name__} leaves its own bounds: a part of it does more than its layers say "
                    "(a value overwritten, a random draw, code outside of the trace), and no certificate can be given",
                    remedy="pass a model of plain layers",
                )
            size = said if size is None else size
            seen = point.to(device=own.device, dtype=own.dtype)
            differs = wide(self.network(seen)).to(low.device) - exact(wide(seen).to(low.device))
            apart = torch.maximum(apart, differs.abs().amax(1))
        assert size is not None
        slack = SLACK * (1 + size.abs().amax(1)) + _UNSEEN * apart
        own_margin = (size.gather(1, y.unsqueeze(1)) - size).scatter(1, y.unsqueeze(1), torch.inf).amin(1)
        held = margins.scatter(1, y.unsqueeze(1), -torch.inf).amax(1) < -slack
        return held.tolist(), slack.tolist(), (own_margin > slack).tolist()

    def _by_lines(
        self, exact: nn.Module, region: BallRegion, box: tuple[Tensor, Tensor], row: int, y: int, slack: float
    ) -> str:
        """The letter of one row that intervals leave open."""
        low, high = (self.to_model(end[row : row + 1]) for end in box)
        clean = region.x[row : row + 1]
        centre = self.to_model(clean)
        scale = self.to_model(torch.ones_like(clean)) - self.to_model(torch.zeros_like(clean))
        ball = Ball(
            centre[0], Interval.between(low, high), _BALLS.get(region.norm.name), float(region.radius[row]), scale[0]
        )
        if self.method == "auto-lirpa":
            return self._by_other(exact, low, high, y, slack)
        made = self._programmed(exact, ball.box)
        bounded = Bounded.of(made, ball)
        count = made.head.out_features if made.head is not None else bounded.intervals[-1].centre.shape[-1]
        ways, shift = ways_of(made, y, [k for k in range(count) if k != y], low)
        for method, letter in LETTERS.items():
            if method == "interval":
                continue
            if method == "exact":
                return self._by_search(region, row, bounded, (ways, shift), slack)
            stages = bounded.refinements() if method == "crown" else [bounded]
            for stage in stages:
                bounded = stage
                if method != "alpha" and not bounded.final and not bool(bounded.nearest(ways, shift) > slack):
                    continue
                bound = tuned(bounded, ways, shift, slack) if method == "alpha" else bounded.margins(ways, shift)
                left = ~(bound > slack)
                if not bool(left.any()):
                    return letter
                ways, shift = ways[left], shift[left]
            if method == self.method:
                return OPEN
        return OPEN

    def _by_other(self, exact: nn.Module, low: Tensor, high: Tensor, y: int, slack: float) -> str:
        """The letter of one row by somebody else's bounds."""
        count = exact(low).shape[1]
        eye = torch.eye(count, dtype=low.dtype, device=low.device)
        others = [k for k in range(count) if k != y]
        bound = auto_lirpa.margins(exact, low, high, eye[y] - eye[others])
        return LETTERS["auto-lirpa"] if bool((bound > slack).all()) else OPEN

    def _by_search(
        self,
        region: BallRegion,
        row: int,
        bounded: Bounded,
        margins: tuple[Tensor, Tensor],
        slack: float,
    ) -> str:
        """The letter of a row that lines leave open; where the program finds a point, it is kept."""
        ways, shift = margins
        began = time.monotonic()
        each = self.seconds * _BRANCHED / len(ways)
        open_ = [not shown(bounded, ways[k : k + 1], shift[k : k + 1], slack, each) for k in range(len(ways))]
        if not any(open_):
            return LETTERS["exact"]
        index = torch.tensor(open_, dtype=torch.bool, device=ways.device)
        left = self.seconds - (time.monotonic() - began)
        found = searched(bounded, ways[index], shift[index], _SOLVER * slack, left)
        if found is None:
            note = "bounds: exact search is for networks of affine layers and rectifiers, of which few are open"
            self.notes += [] if note in self.notes else [note]
            return OPEN
        if found.proved:
            return LETTERS["exact"]
        if found.point is not None:
            clean = region.x[row]
            scale = self.to_model(torch.ones_like(clean)[None]) - self.to_model(torch.zeros_like(clean)[None])
            self.points[row] = (found.point - self.to_model(clean[None])[0]) / scale[0]
        return OPEN

    def _programmed(self, exact: nn.Module, box: Interval) -> Program:
        shape = tuple(box.centre.shape)
        if self._program is None or self._program[0] != shape:
            made = program(exact, box)
            self._program = shape, made
            for name in made.stops:
                note = f"bounds: no line goes through {name}, whose interval is taken instead"
                if note not in self.notes:
                    self.notes.append(note)
        return self._program[1]


def widened(region: BallRegion, tolerance: float) -> BallRegion:
    """The same region in float64, its ball and the ends of a box of many numbers wider by a tolerance."""
    x = wide(region.x)
    radius = wide(region.radius).to(x.device) + tolerance
    low, high = (None if end is None else wide(end) for end in (region.low, region.high))
    if low is not None and low.numel() > 1:
        low = low - tolerance
    if high is not None and high.numel() > 1:
        high = high + tolerance
    mask = None if region.mask is None else region.mask.to(x.device)
    return BallRegion(region.norm, x, radius.expand(len(x)), low, high, mask, None)
