"""By how much one thing exceeds another on the same examples: an effect size, and whether it is more than chance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.engine.statistics import mcnemar

LEVEL = 0.01


@dataclass(frozen=True)
class Effect:
    """Attack against noise, on the same examples.

    Attributes:
        times: the median of their ratio.
        size: the mean of the ratio's logarithm over its standard deviation (Cohen's d of pairs); 0 where both vanish.
        p: exact two-sided sign test over the examples.
        rows: examples.
    """

    times: float
    size: float
    p: float
    rows: int

    @property
    def more(self) -> bool:
        """Whether the attack does more than noise, by more than chance."""
        return self.p < LEVEL and self.times > 1


def effect(attack: Tensor, noise: Tensor) -> Effect:
    """From what the attack (R,) and the noise (R,) did, none below 0; pairs in which both vanish are left out."""
    there = (attack > 0) | (noise > 0)
    a, b = attack[there].double(), noise[there].double()
    if not len(a):
        return Effect(1.0, 0.0, 1.0, 0)
    tiny = 1e-12 * float(torch.cat([a, b]).max())
    ratio = (a.clamp_min(tiny) / b.clamp_min(tiny)).log()
    spread = float(ratio.std()) if len(ratio) > 1 else 0.0
    size = float(ratio.mean()) / spread if spread > 0 else 0.0
    won, lost = int((a > b).sum()), int((a < b).sum())
    return Effect(float(ratio.median().exp()), size, mcnemar(lost, won), len(a))
