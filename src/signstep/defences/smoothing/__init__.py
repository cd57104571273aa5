"""Randomised smoothing: a vote under Gaussian noise, and the radius that it proves."""

from signstep.defences.smoothing.record import Certificates
from signstep.defences.smoothing.smooth import Smoothed, smooth

__all__ = ["Certificates", "Smoothed", "smooth"]
