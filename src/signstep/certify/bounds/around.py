"""The box around an allowed set."""

import torch
from torch import Tensor

from signstep.engine.norms import L0
from signstep.engine.region import BallRegion
from signstep.engine.tree import per_row


def ends(region: BallRegion) -> tuple[Tensor, Tensor]:
    """The least and the largest inputs (R, ...) that ball, box and mask allow, number by number.

    For L-infinity the allowed set is this box. The balls of the other norms lie inside it, since no coordinate of a
    vector is longer than the vector: what is bounded over the box is bounded there too, and loosely. In L0 any
    coordinate may go to the ends of the threat's own box as soon as one may change.
    """
    reach = per_row(region.radius, region.x).expand(region.x.shape)
    if isinstance(region.norm, L0):
        reach = torch.where(reach >= 1, torch.inf, 0.0).to(region.x.dtype)
    if region.mask is not None:
        reach = torch.where(region.mask, reach, 0.0)
    low, high = region.x - reach, region.x + reach
    if region.low is not None:
        low = torch.maximum(low, region.low)
    if region.high is not None:
        high = torch.minimum(high, region.high)
    return low, high
