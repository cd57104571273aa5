"""Attention maps under attack and noise: how far their shares move, and whether they become sharper or flatter."""

import torch
from torch import Tensor

from signstep.auditing.sections import Section
from signstep.diagnosing.stain.effect import LEVEL, effect
from signstep.diagnosing.stain.moved import Moved

# Of a map whose shares move by less, it is rounding.
_NOTHING = 1e-9


def attended(seen: Moved) -> tuple[Section | None, dict[str, float]]:
    """A section on attention maps, and the largest effect on them; nothing for networks without attention.

    Of each map the total variation, 1/2 sum |p' - p| over the tokens attended to, and the change of the entropy in
    nats, both means over heads and tokens.
    """
    count = len(seen.clean.maps)
    if not count or any(len(one.maps) != count for one in (seen.attacked, *seen.noisy)):
        return None, {}
    rows, best, more = [], 0.0, 0
    for number in range(count):
        before, after = seen.clean.maps[number], seen.attacked.maps[number]
        moved = variation(before, after)
        noise = torch.stack([variation(before, one.maps[number]) for one in seen.noisy]).mean(0)
        found = effect(moved, noise)
        turned = float((entropy(after) - entropy(before)).mean())
        by_noise = float(torch.stack([entropy(one.maps[number]) - entropy(before) for one in seen.noisy]).mean())
        p = min(1.0, found.p * count)
        more += p < LEVEL and found.times > 1
        best = max(best, found.size)
        rows.append((
            f"map {number + 1}", f"{float(moved.median()):.3f}", f"{float(noise.median()):.3f}", f"{found.times:.2f}",
            f"{found.size:.2f}", f"{p:.2g}", f"{turned:+.3f}", f"{by_noise:+.3f}",
        ))  # fmt: skip
    pairs = zip(seen.clean.maps, seen.attacked.maps, strict=True)
    still = all(float(variation(before, after).max()) < _NOTHING for before, after in pairs)
    told = f"The shares of {more} of {count} maps move more under the attack than under noise of the same size."
    if not more:
        told = f"Null result: no map moves more under the attack than under noise of the same size, of {count}."
    if still:
        told = f"None of {count} maps moves at all."
    text = (
        told,
        "Moved: total variation between before and after, a mean over heads and tokens. Entropy in nats: below 0 the "
        "map has become sharper.",
    )
    header = ("map", "moved", "by noise", "times", "effect size", "p", "entropy", "by noise")
    return Section("What the attack does to attention", text, header, tuple(rows)), {"attention, largest effect": best}


def variation(before: Tensor, after: Tensor) -> Tensor:
    """The total variation of maps (R, heads, T, T), a mean for each row (R,)."""
    return ((after - before).abs().sum(-1) / 2).flatten(1).mean(1)


def entropy(shares: Tensor) -> Tensor:
    """The entropy of maps (R, heads, T, T) in nats, a mean for each row (R,)."""
    found: Tensor = -torch.special.xlogy(shares, shares).sum(-1).flatten(1).mean(1)
    return found
