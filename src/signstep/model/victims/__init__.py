"""Models that live elsewhere, as functions from a tensor of inputs to a tensor of scores or labels.

What they return can be attacked like any model, by attacks that need no gradients:

    from signstep.model import victims

    victim = victims.from_http("http://127.0.0.1:8000/predict")
    signstep.attack(victim, x, y, threat=signstep.linf(0.1), recipe="square:queries=500")
"""

from signstep.model.victims.arrays import ArrayVictim, from_numpy
from signstep.model.victims.endpoint import HttpVictim, from_http
from signstep.model.victims.estimator import from_sklearn
from signstep.model.victims.session import from_onnx

__all__ = ["ArrayVictim", "HttpVictim", "from_http", "from_numpy", "from_onnx", "from_sklearn"]
