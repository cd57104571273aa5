"""Detectors of attacked inputs, with a promised false-alarm rate, and judged by an attacker who knows of them."""

from signstep.detectors.calibration import band, rows_needed
from signstep.detectors.checking import Checked, check
from signstep.detectors.detector import Detector
from signstep.detectors.evading import evade
from signstep.detectors.fitting import fit, load
from signstep.detectors.foreign import adapt
from signstep.detectors.policy import ACTIONS, Decisions, Policy
from signstep.detectors.pursuing import WAYS, Evaded, Way
from signstep.detectors.rule import DetectorRow, Fitting, Rule
from signstep.detectors.seen import Seen
from signstep.detectors.table import DETECTORS

__all__ = [
    "ACTIONS",
    "DETECTORS",
    "WAYS",
    "Checked",
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
    "check",
    "evade",
    "fit",
    "load",
    "rows_needed",
]
