"""Signstep: how little must change in the input for a model to fail, and can that number be trusted?

import signstep as ss
outcome = ss.attack(model, x, y, recipe="pgd", threat=ss.linf("8/255"))
x_adv = ss.fgsm(model, x, y, eps="8/255")
"""

from signstep import (
    _start,  # noqa: F401 - first of all
    defences,
    detectors,
)
from signstep.api import attack, fgsm
from signstep.attacks.bpda import bpda
from signstep.attacks.recipes import RECIPES, recipe
from signstep.auditing.bracket import Bounds
from signstep.auditing.compare import compare
from signstep.auditing.matrix import TransferMatrix
from signstep.auditing.merge import merge
from signstep.auditing.result import Result
from signstep.auditing.run import Curve, Run, audit
from signstep.auditing.sections import Section
from signstep.auditing.transfer import transfer
from signstep.certify.certified import certified
from signstep.defences.defend import defend
from signstep.defences.smoothing import smooth
from signstep.detectors.policy import Decisions, Policy
from signstep.diagnosing.diagnosis import Diagnosis
from signstep.diagnosing.run import diagnose
from signstep.engine.attack import Attack, GradientAttack
from signstep.engine.norms import L0, L1, L2, Grouped, Linf
from signstep.engine.outcome import Outcome
from signstep.engine.tasks import Binary, Custom, Multiclass, Multilabel, Objective, Regression, Segmentation
from signstep.engine.threat import ThreatModel, l0, l1, l2, linf, threat_model
from signstep.errors import SignstepError, SignstepWarning
from signstep.guard.guard import Guard
from signstep.io.caps import caps
from signstep.maximum import Maximum, maximise
from signstep.model.declaration import Model
from signstep.model.opening import open_model as open  # noqa: A004 - as gzip and other modules call what opens theirs
from signstep.model.search import Search
from signstep.physical import transforms
from signstep.physical.patch import Patch, patch
from signstep.physical.placement import Placement
from signstep.physical.universal import Universal, universal
from signstep.scale import Pool, Ray, Slurm
from signstep.train.loop import fit
from signstep.train.loss import adversarial_loss
from signstep.verifying import Verification, verify
from signstep.version import VERSION

__version__ = VERSION

__all__ = [
    "L0",
    "L1",
    "L2",
    "RECIPES",
    "Attack",
    "Binary",
    "Bounds",
    "Curve",
    "Custom",
    "Decisions",
    "Diagnosis",
    "GradientAttack",
    "Grouped",
    "Guard",
    "Linf",
    "Maximum",
    "Model",
    "Multiclass",
    "Multilabel",
    "Objective",
    "Outcome",
    "Patch",
    "Placement",
    "Policy",
    "Pool",
    "Ray",
    "Regression",
    "Result",
    "Run",
    "Search",
    "Section",
    "Segmentation",
    "SignstepError",
    "SignstepWarning",
    "Slurm",
    "ThreatModel",
    "TransferMatrix",
    "Universal",
    "Verification",
    "adversarial_loss",
    "attack",
    "audit",
    "bpda",
    "caps",
    "certified",
    "compare",
    "defences",
    "defend",
    "detectors",
    "diagnose",
    "fgsm",
    "fit",
    "l0",
    "l1",
    "l2",
    "linf",
    "maximise",
    "merge",
    "open",
    "patch",
    "recipe",
    "smooth",
    "threat_model",
    "transfer",
    "transforms",
    "universal",
    "verify",
]
