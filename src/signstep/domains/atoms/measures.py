"""What a displacement gains, and what it is compared with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signstep.domains.atoms.surface import Surface
from signstep.domains.atoms.threat import AtomsThreat
from signstep.engine.defaults import plain_tensor
from signstep.engine.keys import Key

# Points of the Gauss-Legendre rule for the work along a straight line.
_POINTS = 8


@dataclass(frozen=True)
class Before:
    """One untouched structure.

    Attributes:
        gradient: of the value, (N + 1, 3): minus the forces that count, along what may move.
        largest: the largest component of it, eV/Angstrom.
        promise: max {<gradient, d> : d allowed}, the gain that first order promises, eV.
    """

    gradient: Tensor
    largest: float
    promise: float

    def relaxed(self, fmax: float, after: float) -> bool:
        """Whether its forces are at most the share ``fmax`` of those ``after`` it was displaced, the scale."""
        return self.largest <= fmax * after


def before(surface: Surface, threat: AtomsThreat, number: int) -> Before:
    """Look at an untouched structure: one calculation."""
    x = surface.rows([number])
    slope = gradient(surface, x)
    region = threat.around(x)
    along = region.restrict(slope)
    assert isinstance(along, Tensor)
    step = region.steepest(along)
    assert isinstance(step, Tensor)
    return Before(along[0], float(along.abs().max()), float((along * step).sum()))


def gradient(surface: Surface, x: Tensor) -> Tensor:
    """The gradient (R, N + 1, 3) of the value at rows."""
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(surface(leaf).sum(), leaf)
    return slope


def largest_force(surface: Surface, threat: AtomsThreat, number: int, x: Tensor) -> float:
    """The largest component, along what may move, of the gradient at a displaced row (1, N + 1, 3), eV/Angstrom."""
    along = threat.around(surface.rows([number])).restrict(gradient(surface, x))
    assert isinstance(along, Tensor)
    return float(along.abs().max())


def random_gains(surface: Surface, threat: AtomsThreat, number: int, count: int, seed: int) -> "np.ndarray[Any, Any]":
    """The values (count,) after random displacements of the same size: the steepest ones of random directions."""
    with torch.no_grad():
        return surface(random_points(surface, threat, number, count, seed)).numpy()


def random_points(surface: Surface, threat: AtomsThreat, number: int, count: int, seed: int) -> Tensor:
    """Randomly displaced copies (count, N + 1, 3)."""
    x = surface.rows([number] * count)
    region = threat.around(x)
    draws = (
        Key(seed)
        .fold("random displacements", number)
        .draws(torch.arange(count, dtype=torch.int64, device="cpu"), x.device)
    )
    point = region.land(region.vertex(draws))
    assert isinstance(point, Tensor)
    return point


def work(surface: Surface, number: int, d: Tensor) -> "np.ndarray[Any, Any]":
    """The energy (N,) in eV that each atom takes up along the straight line to displacement d (N + 1, 3).

    W_i = - integral of <F_i(x + t d), d_i> over t from 0 to 1; they sum to the energy gained. Forces as the potential
    gives them, by a Gauss-Legendre rule of 8 points.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_POINTS)
    x = surface.rows([number] * _POINTS)
    at = plain_tensor((nodes + 1) / 2)[:, None, None]
    slopes = gradient(surface, x + at * d)
    each = (slopes * d).sum(2) * plain_tensor(weights / 2)[:, None]
    return each.sum(0)[: len(surface.structures[number])].numpy()


def curvature(gain: float, along: float, d: Tensor) -> float:
    """2 (gain - <gradient, d>) / |d|^2 in eV/Angstrom^2: the mean curvature that the displacement met."""
    square = float(d.square().sum())
    return 2 * (gain - along) / square if square > 0 else 0.0
