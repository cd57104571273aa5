"""Signstep: how little must change in the input for a model to fail, and can that number be trusted?

import signstep as ss
outcome = ss.attack(model, x, y, recipe="pgd", threat=ss.linf("8/255"))
x_adv = ss.fgsm(model, x, y, eps="8/255")
"""

from signstep import _start  # noqa: F401 - first of all
from signstep.api import attack, fgsm
from signstep.attacks.bpda import bpda
from signstep.attacks.recipes import RECIPES, recipe
from signstep.auditing.matrix import TransferMatrix
from signstep.auditing.merge import merge
from signstep.auditing.result import Result
from signstep.auditing.run import audit
from signstep.auditing.transfer import transfer
from signstep.certify.certified import certified
from signstep.engine.attack import Attack, GradientAttack
from signstep.engine.norms import L1, L2, Grouped, Linf
from signstep.engine.outcome import Outcome
from signstep.engine.tasks import Binary, Custom, Multiclass, Multilabel, Objective, Regression, Segmentation
from signstep.engine.threat import ThreatModel, l1, l2, linf, parse_threat, threat_model
from signstep.errors import SignstepError, SignstepWarning
from signstep.io.caps import caps
from signstep.maximum import Maximum, maximise
from signstep.physical import transforms
from signstep.physical.patch import Patch, patch
from signstep.physical.universal import Universal, universal
from signstep.train.loss import adversarial_loss
from signstep.version import VERSION

__version__ = VERSION

__all__ = [
    "L1",
    "L2",
    "RECIPES",
    "Attack",
    "Binary",
    "Custom",
    "GradientAttack",
    "Grouped",
    "Linf",
    "Maximum",
    "Multiclass",
    "Multilabel",
    "Objective",
    "Outcome",
    "Patch",
    "Regression",
    "Result",
    "Segmentation",
    "SignstepError",
    "SignstepWarning",
    "ThreatModel",
    "TransferMatrix",
    "Universal",
    "adversarial_loss",
    "attack",
    "audit",
    "bpda",
    "caps",
    "certified",
    "fgsm",
    "l1",
    "l2",
    "linf",
    "maximise",
    "merge",
    "parse_threat",
    "patch",
    "recipe",
    "threat_model",
    "transfer",
    "transforms",
    "universal",
]
