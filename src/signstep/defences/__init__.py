"""Transformations of inputs as defences, attacked by one who knows of them; and what each is worth."""

from signstep.defences.chain import Chain
from signstep.defences.cost import Bench, Candidate, CostRow, CostTable, table
from signstep.defences.custom import custom
from signstep.defences.defend import defend
from signstep.defences.known import DEFENCES
from signstep.defences.row import Defence
from signstep.defences.smoothing import Certificates, Smoothed, smooth
from signstep.defences.step import Step

__all__ = [
    "DEFENCES",
    "Bench",
    "Candidate",
    "Certificates",
    "Chain",
    "CostRow",
    "CostTable",
    "Defence",
    "Smoothed",
    "Step",
    "custom",
    "defend",
    "smooth",
    "table",
]
