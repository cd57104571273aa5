"""alpha-CROWN: of each open rectifier any line through the kink is a bound; here the best ones are looked for."""

from collections.abc import Callable

import torch
from torch import Tensor

from signstep.certify.linear.backward import Slopes
from signstep.certify.linear.crown import Bounded
from signstep.certify.linear.lines import Lines

STEPS = 20
_RATE, _FALL = 0.25, 0.92
_MEAN, _SQUARES = 0.9, 0.999

Bound = Callable[[Tensor, Slopes | None], Tensor]
"""From the places of functions (T,) and slopes of the lines below for each of them to lower bounds (T,)."""


def tuned(bounded: Bounded, ways: Tensor, shift: Tensor, enough: float, steps: int = STEPS) -> Tensor:
    """The best lower bounds found of ways @ v + shift, (S,): one set of slopes for each, by Adam on the bound itself.

    Any slopes give a true bound, so that what is found holds however the search goes.

    Source: Xu et al. (2021), "Fast and complete: enabling complete verification with rapid and massively parallel
    incomplete verifiers", section 3.2; here for the margins alone, the bounds of the layers stay as they are.

    Args:
        bounded: the example.
        ways: coefficients (S, D) over the last step's outputs.
        shift: (S,).
        enough: a bound above this is not raised further.
        steps: of the search.
    """

    def bound(index: Tensor, slopes: Slopes | None) -> Tensor:
        return bounded.margins(ways[index], shift[index], slopes, alone=True)

    return _climbed(bound, bounded.margins(ways, shift), _free(bounded), enough, steps)


def _free(bounded: Bounded) -> dict[int, Lines]:
    """By step, lines of which some may be turned."""
    return {
        place: lines
        for place, lines in bounded.lines.items()
        if isinstance(lines, Lines) and lines.free is not None and bool(lines.free.any())
    }


def _climbed(bound: Bound, best: Tensor, lines: dict[int, Lines], enough: float, steps: int) -> Tensor:
    """The best bounds that turning lines comes to, none below those that are known."""
    best = best.clone()
    if not lines:
        return best
    slopes = {place: part.low_slope.expand(len(best), *part.low_slope.shape).clone() for place, part in lines.items()}
    means = {place: torch.zeros_like(part) for place, part in slopes.items()}
    squares = {place: torch.zeros_like(part) for place, part in slopes.items()}
    going = torch.arange(len(best), dtype=torch.int64, device=best.device)
    for step in range(1, steps + 1):
        going = going[best[going] <= enough]
        if not len(going):
            break
        with torch.enable_grad():
            here = {place: part[going].requires_grad_() for place, part in slopes.items()}
            found = bound(going, here)
            gradients = torch.autograd.grad(found.sum(), list(here.values()))
        best[going] = torch.maximum(best[going], found.detach())
        rate = _RATE * _FALL**step
        for (place, part), gradient in zip(lines.items(), gradients, strict=True):
            mean, square = means[place], squares[place]
            mean[going] = _MEAN * mean[going] + (1 - _MEAN) * gradient
            square[going] = _SQUARES * square[going] + (1 - _SQUARES) * gradient.square()
            towards = mean[going] / (1 - _MEAN**step)
            size = (square[going] / (1 - _SQUARES**step)).sqrt() + 1e-8
            moved = (slopes[place][going] + rate * towards / size).clamp(part.least, part.most)
            assert part.free is not None
            slopes[place][going] = torch.where(part.free, moved, slopes[place][going])
    if len(going):
        best[going] = torch.maximum(best[going], bound(going, {place: part[going] for place, part in slopes.items()}))
    return best
