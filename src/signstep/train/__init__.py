"""Adversarial training: recipes as data, one loop, and an alarm for catastrophic overfitting.

import signstep as ss
loss = ss.adversarial_loss(model, x, y, "n-fgsm", threat=ss.linf("8/255"))
"""

from signstep.train.alarm import Call, Event, Reading, judge
from signstep.train.loop import Moment, Trained, fit
from signstep.train.loss import adversarial_loss
from signstep.train.memory import Memory
from signstep.train.recipes import TRAINING_RECIPES, TrainingRecipe, training_recipe
from signstep.train.settings import Settings
from signstep.train.torchrun import Torchrun

__all__ = [
    "TRAINING_RECIPES",
    "Call",
    "Event",
    "Memory",
    "Moment",
    "Reading",
    "Settings",
    "Torchrun",
    "Trained",
    "TrainingRecipe",
    "adversarial_loss",
    "fit",
    "judge",
    "training_recipe",
]
