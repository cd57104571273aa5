"""Interval bound propagation: what a network can say, at most, anywhere in a box around its input."""

from signstep.core.bounds.around import ends
from signstep.core.bounds.interval import Interval
from signstep.core.bounds.margins import bounds_on, worst_margins

__all__ = ["Interval", "bounds_on", "ends", "worst_margins"]
