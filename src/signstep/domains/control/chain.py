"""Series whose neighbours may not differ by more than r: the exact steepest member, and the nearest one.

The set is {e : low_t <= e_t <= high_t, |e_t - e_(t-1)| <= r}, e_(-1) = 0. All tensors are (N, T) float64, one series to
a row, with r (N,).
"""

import torch
from torch import Tensor


def envelope(bound: Tensor, r: Tensor) -> Tensor:
    """The largest |e_t| that the limits of the neighbours leave: min_s (bound_s + r |t - s|), bound_(-1) = 0.

    The result changes by no more than r from sample to sample itself, so every value within it can be reached.
    """
    padded = torch.cat([bound.new_zeros(len(bound), 1), bound], 1)
    return -_majorant(-padded, r)[:, 1:]


def nearest(d: Tensor, r: Tensor, bound: Tensor) -> Tensor:
    """The member of the set that is nearest to d in the largest difference; d itself where it is one.

    With the series cut to |d_t| <= bound_t (an `envelope`), it is the mean of the smallest series above and the largest
    below that change by at most r (McShane 1934; Whitney 1934): no series within the rate is nearer.
    """
    cut = torch.clamp(d, -bound, bound)
    padded = torch.cat([cut.new_zeros(len(cut), 1), cut], 1)
    mean = (_majorant(padded, r) - _majorant(-padded, r)) / 2
    return torch.clamp(mean[:, 1:], -bound, bound)


def steepest(g: Tensor, r: Tensor, low: Tensor, high: Tensor, near: Tensor) -> Tensor:
    """The member e of the set that maximises <g, e>: FGSM's step under a rate limit, an exact linear programme.

    Dynamic programming over time with the value V_t(z) = max of sum_(s<=t) g_s e_s over members with e_t = z, which is
    concave and linear between breakpoints. One sample on, its maximum over |z' - z| <= r moves the rising part left by
    r and the falling part right by r; g_t is added to every slope; and the ends are cut to [low_t, high_t]. A piece
    that appeared at time s has slope g_s + ... + g_t at time t: pieces keep their order for ever, which is that of the
    sums before s, so all T + 1 breakpoints can be carried along in sorted order from the start. T sweeps over
    (N, T + 1).

    Where the gradient has no preference (zeros) e stays as close to ``near`` (N, T), a member, as it can.
    """
    count, steps = g.shape
    after = g.cumsum(1)
    before = after - g
    order = before.sort(1)
    rank = torch.empty_like(order.indices).scatter_(
        1, order.indices, torch.arange(steps, dtype=torch.int64, device="cpu").expand(count, -1).clone()
    )
    rising = torch.searchsorted(order.values, after.contiguous())  # pieces with a positive slope at time t
    flat = torch.searchsorted(order.values, after.contiguous(), right=True)
    place = torch.arange(steps + 1, dtype=torch.int64, device="cpu")
    points = g.new_zeros(count, steps + 1)
    r_ = r[:, None]
    best = torch.empty_like(g)
    for t in range(steps):
        points = points + torch.where(place > rank[:, t : t + 1], r_, -r_)
        points = torch.minimum(torch.maximum(points, low[:, t : t + 1]), high[:, t : t + 1])
        left, right = points.gather(1, rising[:, t : t + 1])[:, 0], points.gather(1, flat[:, t : t + 1])[:, 0]
        best[:, t] = torch.minimum(torch.maximum(near[:, t], left), right)
    for t in range(steps - 2, -1, -1):
        ahead = best[:, t + 1]
        best[:, t] = torch.minimum(torch.maximum(best[:, t], ahead - r), ahead + r)
    # Rounding of the rates may leave a hair of an error where none is allowed: the bounds have the last word.
    return torch.minimum(torch.maximum(best, low), high)


def _majorant(d: Tensor, r: Tensor) -> Tensor:
    """max_s (d_s - r |t - s|), the smallest series above d that changes by at most r."""
    ramp = r[:, None] * torch.arange(d.shape[1], dtype=d.dtype, device="cpu")
    forward = (d + ramp).cummax(1).values - ramp
    backward = ((d - ramp).flip(1).cummax(1).values).flip(1) + ramp
    return torch.maximum(torch.maximum(forward, backward), d)
