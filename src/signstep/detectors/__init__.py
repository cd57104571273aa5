"""Detectors of attacked inputs, with a promised false-alarm rate, and judged by an attacker who knows of them."""

from signstep.detectors.calibration import band, rows_needed
from signstep.detectors.detector import Detector
from signstep.detectors.evading import evade
from signstep.detectors.fitting import fit, load
from signstep.detectors.foreign import adapt
from signstep.detectors.policy import Decisions, Policy
from signstep.detectors.pursuing import WAYS, Evaded, Way
from signstep.detectors.rule import DetectorRow, Fitting, Rule
from signstep.detectors.seen import Seen
from signstep.detectors.table import DETECTORS

__all__ = [
    "DETECTORS",
    "WAYS",
    "Decisions",
    "Detector",
    "DetectorRow",
    "Evaded",
    "Fitting",
    "Policy",
    "Rule",
    "Seen",
    "Way",
    "adapt",
    "band",
    "evade",
    "fit",
    "load",
    "rows_needed",
]
