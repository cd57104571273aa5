"""Detectors of attacked inputs, with a promised false-alarm rate, and judged by an attacker who knows of them."""

from signstep.detectors.calibration import band, rows_needed
from signstep.detectors.detector import Detector
from signstep.detectors.fitting import fit, load
from signstep.detectors.foreign import adapt
from signstep.detectors.policy import Decisions, Policy
from signstep.detectors.rule import DetectorRow, Fitting, Rule
from signstep.detectors.seen import Seen
from signstep.detectors.table import DETECTORS

__all__ = [
    "DETECTORS",
    "Decisions",
    "Detector",
    "DetectorRow",
    "Fitting",
    "Policy",
    "Rule",
    "Seen",
    "adapt",
    "band",
    "fit",
    "load",
    "rows_needed",
]
