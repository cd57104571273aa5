"""The least value of linear functions on an allowed set: box, or ball cut with box."""

from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.certify.bounds.interval import Interval
from signstep.certify.linear.windows import Rows

# How many scales are tried where a ball and a box share a change between them; any of them gives a true bound.
_SCALES = 24


@dataclass(frozen=True)
class Ball:
    """The inputs of one example that are allowed, in the model's units.

    Attributes:
        centre: the clean input, (...).
        box: all inputs that ball, box and mask allow number by number, (1, ...).
        norm: "l2" or "l1"; None where the box is all there is.
        radius: of the ball, in the units of the threat.
        scale: from a change in the units of the threat to one in the model's, (...).
    """

    centre: Tensor
    box: Interval
    norm: str | None
    radius: float
    scale: Tensor

    def least(self, rows: Rows) -> Tensor:
        """Lower bounds of sum_i a_i u_i over the allowed inputs u, for coefficients a; (S,), in float64."""
        rows = rows.like(rows.values.to(self.centre.dtype))
        if self.norm is None:
            return rows.dot(self.box.centre[0]) - rows.like(rows.values.abs()).dot(self.box.radius[0])
        flat = rows.whole(tuple(self.centre.shape)).values.flatten(1)
        middle, reach = self.box.centre.flatten(), self.box.radius.flatten()
        boxed = flat @ middle - flat.abs() @ reach
        clean, scale = self.centre.flatten(), self.scale.flatten()
        down = ((middle - reach - clean) / scale).clamp(max=0.0)
        up = ((middle + reach - clean) / scale).clamp(min=0.0)
        # A change raises -a.d by at most what the ball allows of a part p, and the box of the rest.
        ways = -flat * scale
        found = [_shared(ways, part, down, up, self.norm, self.radius) for part in self._parts(ways, down, up)]
        return torch.maximum(boxed, flat @ clean - torch.stack(found).amin(0))

    def _parts(self, ways: Tensor, down: Tensor, up: Tensor) -> list[Tensor]:
        if self.norm == "l1":
            # max(0, sum) is linear between the sizes of coefficients: the knapsack's threshold is one of these.
            sizes = ways.abs()
            order = sizes.sort(dim=1, descending=True)
            room = torch.where(ways > 0, up, -down).gather(1, order.indices).cumsum(1)
            last = (room < self.radius).sum(1, keepdim=True).clamp(max=ways.shape[1] - 1)
            level = order.values.gather(1, last)
            return [ways.clamp(-level, level)]
        # The change that helps most is clamp(t w): its share of the ball is w itself where the box leaves it free.
        length = ways.square().sum(1, keepdim=True).sqrt()
        time = torch.where(length > 0, self.radius / length.clamp(min=1e-300), 0.0)
        parts = [ways]
        low, high = time, time * 2.0**20
        for _ in range(_SCALES):
            middle = (low * high).sqrt()
            short = (middle * ways).clamp(down, up).square().sum(1, keepdim=True).sqrt() < self.radius
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        scale = low.clamp(min=1e-300)
        return [*parts, (scale * ways).clamp(down, up) / scale]


def _shared(ways: Tensor, part: Tensor, down: Tensor, up: Tensor, norm: str, radius: float) -> Tensor:
    """max over ball and box of w.d <= (what the ball allows of p) + (what the box allows of w - p), (S,)."""
    ball = radius * (part.square().sum(1).sqrt() if norm == "l2" else part.abs().amax(1))
    rest = ways - part
    return ball + torch.maximum(rest * up, rest * down).sum(1)
