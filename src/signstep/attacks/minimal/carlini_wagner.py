"""Carlini & Wagner: distance plus c times the margin, by Adam, in a variable that cannot leave the box."""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from signstep.attacks.minimal.attack import MinimalAttack, positive
from signstep.attacks.minimal.nearest import NearestSearch
from signstep.attacks.minimal.steps import annealed
from signstep.engine.norms import L2
from signstep.engine.oracles import Autograd, Oracle
from signstep.engine.tree import per_row
from signstep.errors import InputError
from signstep.messages import Arg

_BETAS, _TINY = (0.9, 0.999), 1e-8  # of Adam
_SHORT = 0.999  # arctanh is infinite at the ends of the box, and tanh so flat near them that nothing would move


def carlini_wagner(
    *,
    steps: int = 200,
    searches: int = 6,
    rate: float = 0.05,
    c: float = 1.0,
    confidence: float = 0.0,
    oracle: Oracle | None = None,
) -> MinimalAttack:
    """min over w of |d|^2 / r^2 + c max(f / f_0, -confidence), d = middle + half tanh(w), f the margin (C & W 2017).

    arXiv:1608.04644, section 6. Adam with ``steps`` steps of size ``rate`` for each of ``searches`` values of c: ten
    times larger until one reaches f <= -confidence f_0, then halfway between the largest that did not and the smallest
    that did. The nearest point that reaches it is returned; where none within eps does, the one whose f is least.
    Different here: f is measured in f_0, its value at the clean input, and d in r, the distance at which a linear f
    would be 0, so that neither the scale of the scores nor that of the inputs matters (a linear model needs
    c = 2 (1 + confidence)); ``rate`` falls to a hundredth of itself along a cosine (there it stays 0.01), so that few
    steps come to rest. Where a side of the box is open w is d itself, in units of (1 + confidence) r / sqrt(D), and d
    is clipped.
    """
    positive("cw", rate=rate, c=c, searches=searches)
    if not (confidence >= 0 and math.isfinite(confidence)):
        raise InputError(
            Arg("confidence", confidence),
            remedy=("pass how far beyond the boundary to go, in units of the margin untouched, a number of at least 0"),
            where="cw",
        )
    search = partial(_search, steps=steps, searches=searches, rate=rate, first=c, confidence=confidence)
    looks = searches * steps + 1
    return MinimalAttack("cw", search, steps, ("l2",), lambda _: (looks, looks), oracle or Autograd())


def _search(hunt: NearestSearch, *, steps: int, searches: int, rate: float, first: float, confidence: float) -> None:
    clean = hunt.planes(hunt.origin)
    scale, r = _scales(clean.look.margin, clean.slope[:, 0])
    if confidence:
        hunt.demand(confidence * scale)
    variable = _Variable.of(hunt, (1 + confidence) * r)
    c = torch.full_like(r, first)
    low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
    for _ in range(searches):
        d, here, adam = hunt.origin, clean, _Adam.at(variable.start)
        reached = torch.zeros_like(c, dtype=torch.bool)
        for step in range(steps):
            wanting = here.look.margin / scale > -confidence
            pull = torch.where(wanting, c / scale, 0.0)
            gradient = 2 * d / per_row(r.square(), d) - per_row(pull, d) * here.slope[:, 0]
            size = torch.full_like(r, annealed(rate, rate / 100, step, steps)).minimum(variable.longest)
            adam = adam.step(variable.chain(adam.w, gradient), per_row(size, d))
            d = variable.displacement(hunt, adam.w)
            here = hunt.planes(d)
            reached |= hunt.reached(here.look)
        low, high = torch.where(reached, low, c), torch.where(reached, c, high)
        c = torch.where(torch.isinf(high), 10 * c, (low + high) / 2)


def _scales(margin: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The margin's size at the clean input and the distance at which a linear one would be 0, both (R,)."""
    tiny = torch.finfo(slope.dtype).tiny
    scale = torch.where(torch.isfinite(margin) & (margin != 0), margin.abs(), 1.0)
    r = scale / L2().length(slope).clamp_min(tiny)
    return scale, torch.where(torch.isfinite(r) & (r.square() > tiny), r, 1.0)


class _Variable(NamedTuple):
    """The change of variables: d = middle + half tanh(w) in a box, d = half w where it is open.

    ``longest`` (R,) is the longest step of w that makes sense for the row.
    """

    middle: Tensor | None
    half: Tensor
    start: Tensor
    longest: Tensor

    @classmethod
    def of(cls, hunt: NearestSearch, far: Tensor) -> "_Variable":
        """For displacements of about the length ``far`` (R,)."""
        low, high = hunt.region.lower, hunt.region.upper
        zero = hunt.origin
        if low is None or high is None or not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
            half = per_row(far / zero[0].numel() ** 0.5, zero).expand_as(zero)
            return cls(None, half, zero, torch.full_like(far, torch.inf))
        low, high = low.expand_as(zero), high.expand_as(zero)
        middle, half = (low + high) / 2, (high - low) / 2
        share = torch.where(half > 0, -middle / half, 0.0)
        # Adam's first steps go at full length whatever the gradient; far beyond that they would only have to come back.
        return cls(middle, half, _arctanh(share.clamp(-1, 1) * _SHORT), 0.2 * far / hunt.unit())

    def displacement(self, hunt: NearestSearch, w: Tensor) -> Tensor:
        return hunt.inside(self.half * w if self.middle is None else self.middle + self.half * torch.tanh(w))

    def chain(self, w: Tensor, gradient: Tensor) -> Tensor:
        """The gradient with respect to w."""
        if self.middle is None:
            return gradient * self.half
        return gradient * self.half * (1 - torch.tanh(w).square())


def _arctanh(share: Tensor) -> Tensor:
    """By logarithms: torch's own rounds by where a number lies in memory, and so by the batch."""
    return ((1 + share) / (1 - share)).log() / 2


class _Adam(NamedTuple):
    """Kingma & Ba 2015, algorithm 1, in pure functions; every row has its own moments."""

    w: Tensor
    first: Tensor
    second: Tensor
    taken: int

    @classmethod
    def at(cls, w: Tensor) -> "_Adam":
        return cls(w, torch.zeros_like(w), torch.zeros_like(w), 0)

    def step(self, gradient: Tensor, rate: Tensor) -> "_Adam":
        one, two = _BETAS
        count = self.taken + 1
        first = one * self.first + (1 - one) * gradient
        second = two * self.second + (1 - two) * gradient.square()
        size = (second / (1 - two**count)).sqrt() + _TINY
        return _Adam(self.w - rate * (first / (1 - one**count)) / size, first, second, count)
