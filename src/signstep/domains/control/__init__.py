"""Sensors and controllers: how small an error of the sensors makes a controlled plant fail, or an alarm stay silent."""

from signstep.domains.control.case import case
from signstep.domains.control.causal import RECIPES, CausalFgsm
from signstep.domains.control.check import check
from signstep.domains.control.controller import controller_for, trained_controller
from signstep.domains.control.infer import infer
from signstep.domains.control.plants import CartPole, Pendulum, Quantity
from signstep.domains.control.rollout import ClosedLoop
from signstep.domains.control.sensors import Sensor, Sensors
from signstep.domains.control.smallest import Smallest, smallest_error
from signstep.domains.control.starts import starts
from signstep.domains.control.threat import SensorThreat, sensor_threat
from signstep.domains.control.trials import Trials, random_trials

CHECKERS = {"sensors": check}

__all__ = [
    "CHECKERS",
    "RECIPES",
    "CartPole",
    "CausalFgsm",
    "ClosedLoop",
    "Pendulum",
    "Quantity",
    "Sensor",
    "SensorThreat",
    "Sensors",
    "Smallest",
    "Trials",
    "case",
    "check",
    "controller_for",
    "infer",
    "random_trials",
    "sensor_threat",
    "smallest_error",
    "starts",
    "trained_controller",
]
