"""alpha-CROWN: of each open rectifier any line through the kink is a bound; here the best ones are looked for."""

import torch
from torch import Tensor

from signstep.certify.linear.crown import Bounded
from signstep.certify.linear.lines import Lines

STEPS = 20
_RATE, _FALL = 0.25, 0.92
_MEAN, _SQUARES = 0.9, 0.999


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
    free = {
        place: lines.free
        for place, lines in bounded.lines.items()
        if isinstance(lines, Lines) and lines.free is not None and bool(lines.free.any())
    }
    open_ = {place: lines for place, lines in bounded.lines.items() if isinstance(lines, Lines) and place in free}
    best = bounded.margins(ways, shift)
    if not open_:
        return best
    slopes = {
        place: lines.low_slope.expand(len(ways), *lines.low_slope.shape).clone() for place, lines in open_.items()
    }
    means = {place: torch.zeros_like(part) for place, part in slopes.items()}
    squares = {place: torch.zeros_like(part) for place, part in slopes.items()}
    going = torch.arange(len(ways), dtype=torch.int64, device=ways.device)
    for step in range(1, steps + 1):
        going = going[best[going] <= enough]
        if not len(going):
            break
        with torch.enable_grad():
            here = {place: part[going].requires_grad_() for place, part in slopes.items()}
            bound = bounded.margins(ways[going], shift[going], here, alone=True)
            gradients = torch.autograd.grad(bound.sum(), list(here.values()))
        best[going] = torch.maximum(best[going], bound.detach())
        rate = _RATE * _FALL**step
        for (place, lines), gradient in zip(open_.items(), gradients, strict=True):
            mean, square = means[place], squares[place]
            mean[going] = _MEAN * mean[going] + (1 - _MEAN) * gradient
            square[going] = _SQUARES * square[going] + (1 - _SQUARES) * gradient.square()
            towards = mean[going] / (1 - _MEAN**step)
            size = (square[going] / (1 - _SQUARES**step)).sqrt() + 1e-8
            moved = (slopes[place][going] + rate * towards / size).clamp(lines.least, lines.most)
            slopes[place][going] = torch.where(free[place], moved, slopes[place][going])
    if len(going):
        best[going] = torch.maximum(
            best[going], bounded.margins(ways[going], shift[going], {p: part[going] for p, part in slopes.items()})
        )
    return best
