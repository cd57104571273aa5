"""Atoms: energy is the loss, so the step goes against the forces."""

from signstep.domains.atoms.bundled import graph_potential
from signstep.domains.atoms.case import case, infer
from signstep.domains.atoms.check import check
from signstep.domains.atoms.destabilise import destabilise
from signstep.domains.atoms.potential import AseCalculator, Quiet, TorchPotential
from signstep.domains.atoms.results import Destabilised, SmallestRise
from signstep.domains.atoms.second_order import RECIPES
from signstep.domains.atoms.smallest import smallest_rise

CHECKERS = {"atoms": check}

__all__ = [
    "CHECKERS",
    "RECIPES",
    "AseCalculator",
    "Destabilised",
    "Quiet",
    "SmallestRise",
    "TorchPotential",
    "case",
    "check",
    "destabilise",
    "graph_potential",
    "infer",
    "smallest_rise",
]
