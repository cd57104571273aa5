"""Losses for each example on logits: what an attack climbs.

Every function maps logits z (R, K), labels y (R,) and perhaps an aim (R,) to a value for each row that grows as the row
comes nearer to failing. Where an aim is given the row is led towards that class.

A logit of minus infinity marks a class that the model does not have for this row (a mask over classes or actions): no
loss counts it, no rank names it, and it is infinitely far from being the answer. A row without another class than its
own cannot fail, and its loss is minus infinity; one whose own class is absent has failed, and its loss is infinity.
Gradients are finite in both.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from signstep.engine.batch_invariant import softplus


def log_odds(z: Tensor, k: Tensor) -> Tensor:
    """logsumexp over j != k of z_j, minus z_k: the log-odds against class k, shape (R,).

    Cross-entropy is softplus of it, so both have the same gradient direction; but the gradient of cross-entropy is
    scaled by the probability of error, which underflows on confident examples, while this one never saturates.
    """
    column = k.unsqueeze(1)
    others = z.scatter(1, column, -torch.inf)
    return total(others) - z.gather(1, column).squeeze(1)


def total(z: Tensor) -> Tensor:
    """logsumexp over dimension 1, with a finite gradient where the sum is infinite or over nothing."""
    most = torch.finfo(z.dtype).max
    found = torch.logsumexp(z.clamp(-most, most), 1)
    return torch.where(found.abs() == most, found.detach() * torch.inf, found)


def plain_ce(z: Tensor, k: Tensor) -> Tensor:
    """Cross-entropy as other tools differentiate it, (R,): its gradient vanishes on confident examples.

    Only to reproduce their figures; search on `log_odds`.
    """
    return cross_entropy(z, k, reduction="none")


def runner_up(z: Tensor, k: Tensor) -> Tensor:
    """The largest logit of a class other than k, shape (R,)."""
    return z.scatter(1, k.unsqueeze(1), -torch.inf).amax(1)


def margins(z: Tensor, y: Tensor) -> Tensor:
    """z_y - z_k for every class k (R, K); +inf at k = y and where k is absent. At most 0: failed that way."""
    column = y.unsqueeze(1)
    gaps = torch.where(torch.isneginf(z), torch.inf, z.gather(1, column) - z)
    return gaps.scatter(1, column, torch.inf)


def margin(z: Tensor, y: Tensor) -> Tensor:
    """max over k != y of z_k, minus z_y (Carlini & Wagner 2017, f6 without its floor), shape (R,)."""
    return runner_up(z, y) - z.gather(1, y.unsqueeze(1)).squeeze(1)


def dlr(z: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio: margin over the gap between first and third logit; needs K >= 3.

    Croce & Hein 2020 (AutoAttack), section 4.1. Rows that have fewer than three classes take the margin.
    """
    top = z.topk(3, dim=1).values
    return _ratio(margin(z, y), top[:, 0] - top[:, 2] + _floor(z))


def dlr_targeted(z: Tensor, y: Tensor, aim: Tensor) -> Tensor:
    """(z_t - z_y) over z_(1) - (z_(3) + z_(4)) / 2; needs K >= 4. Croce & Hein 2020, section 4.1.

    Rows that have fewer than four classes take the difference alone.
    """
    top = z.topk(4, dim=1).values
    gap = -margins(z, y).gather(1, aim.unsqueeze(1)).squeeze(1)
    return _ratio(gap, top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _floor(z))


def _ratio(gap: Tensor, spread: Tensor) -> Tensor:
    """Their ratio (R,), or the gap itself where one of the two is infinite."""
    return gap / torch.where(torch.isfinite(spread) & torch.isfinite(gap), spread, 1.0)


def log_softplus(a: Tensor) -> Tensor:
    """log(softplus(a)) without underflow: for very negative a it is a itself."""
    safe = a.clamp_min(-15.0)
    return torch.where(a > -15.0, softplus(safe).log(), a)


def _floor(z: Tensor) -> Tensor:
    # Relative, so that the loss does not depend on the scale of the logits; tiny, so that it never decides.
    there = torch.where(torch.isneginf(z), 0.0, z).detach()
    return (there.abs().amax(1) * 1e-12).clamp_min(torch.finfo(z.dtype).tiny)
