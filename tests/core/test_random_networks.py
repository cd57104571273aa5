"""Networks drawn at random: what any of their numbers is found to be lies within what is said of it."""

import random
from collections.abc import Callable

import pytest
import torch
from test_linear_bounds import bounded_of
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from signstep.certify.bounds.interval import Interval
from signstep.certify.linear.alpha import tuned
from signstep.certify.linear.crown import ways_of

ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU,
    nn.ReLU,
    lambda: nn.LeakyReLU(0.2),
    nn.Tanh,
    nn.Sigmoid,
    nn.GELU,
    nn.SiLU,
    nn.Hardtanh,
)
SEEDS = range(10)


class Drawn(nn.Module):
    """A few parts after each other, some beside what came in: added, or put beside it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw, channels, side = random.Random(seed), 2, 8
        self.parts, self.joins = nn.ModuleList(), []
        for _ in range(draw.randint(2, 4)):
            groups = draw.choice((1, 1, channels if channels > 1 else 1))
            out = draw.choice((channels, 2 * channels)) if channels < 8 else channels
            join = draw.choice(("", "", "add", "cat")) if out == channels or groups == 1 else ""
            out = channels if join == "add" else out
            stride = 1 if join or side < 5 else draw.choice((1, 2))
            gap = draw.choice((1, 1, 2)) if stride == 1 and side > 4 else 1
            convolution = nn.Conv2d(channels, out, 3, stride, gap, gap, groups, bias=draw.random() < 0.7)
            norm = nn.BatchNorm2d(out) if draw.random() < 0.5 else nn.Identity()
            if isinstance(norm, nn.BatchNorm2d):
                for part in (norm.weight, norm.bias, norm.running_mean):
                    assert part is not None
                    nn.init.normal_(part)
            pool = draw.choice((nn.Identity, lambda: nn.AvgPool2d(2), lambda: nn.MaxPool2d(2)))
            pools = pool() if not join and side >= 6 else nn.Identity()
            self.parts.append(nn.Sequential(convolution, norm, draw.choice(ACTIVATIONS)(), pools))
            self.joins.append(join)
            channels = channels + out if join == "cat" else out
            side = (side - 1) // stride + 1
            side = side // 2 if not isinstance(pools, nn.Identity) else side
        self.head = nn.Sequential(nn.Linear(channels * side * side, 9), draw.choice(ACTIVATIONS)(), nn.Linear(9, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.45) / 0.25
        for part, join in zip(self.parts, self.joins, strict=True):
            y = part(x)
            x = x + y if join == "add" else torch.cat([x, y], 1) if join == "cat" else y
        scores: Tensor = self.head(F.relu(x.flatten(1)))
        return scores


def lowest(model: nn.Module, low: Tensor, high: Tensor, way: Tensor, generator: torch.Generator) -> float:
    """The least of way @ z that signs of gradients, corners and draws come to."""
    share = torch.rand((60, *low.shape[1:]), generator=generator, dtype=torch.float64)
    share[:20] = share[:20].round()
    x = low + (high - low) * share
    best = torch.inf
    for _ in range(12):
        x = x.detach().requires_grad_()
        value = model(x) @ way
        best = min(best, float(value.detach().min()))
        (gradient,) = torch.autograd.grad(value.sum(), x)
        x = torch.minimum(torch.maximum(x - 0.3 * (high - low) * gradient.sign(), low), high)
    return best


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_that_is_found_lies_below_what_is_proved(seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Drawn(seed).double().eval()
    for part in model.parameters():
        part.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((1, 2, 8, 8), generator=generator).double()
    eps = float(torch.rand(1, generator=generator)) * 0.04 + 0.002
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    with torch.no_grad():
        last = bounded_of(model, low, high).refined()
        ways, shift = ways_of(last.program, 0, [1, 2], x)
        found = tuned(last, ways, shift, torch.inf)
        points = low + (high - low) * torch.rand((15, 2, 8, 8), generator=generator, dtype=torch.float64)
        seen = [last.program.intervals(Interval(point[None], torch.zeros_like(x))) for point in points]
    for place, box in enumerate(last.intervals):
        for one in seen:
            size = 1e-9 * (1 + one[place].centre.abs())
            assert bool((one[place].centre >= box.low - size).all())
            assert bool((one[place].centre <= box.high + size).all())
    for row, k in enumerate((1, 2)):
        way = torch.zeros(3, dtype=torch.float64)
        way[0], way[k] = 1.0, -1.0
        assert lowest(model, low, high, way, generator) >= float(found[row]) - 1e-9
