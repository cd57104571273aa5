"""Interval bound propagation: what a network can say, at most, anywhere in a box around its input."""

from signstep.certify.bounds.around import ends
from signstep.certify.bounds.interval import Interval
from signstep.certify.bounds.margins import answers, bounds_on, worst_margins

__all__ = ["Interval", "answers", "bounds_on", "ends", "worst_margins"]
