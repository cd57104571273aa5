"""The nearest point beyond a hyperplane, inside a box, by other means than the code: programmes, bisection."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Array = NDArray[np.float64]


def shortest(norm: str, w: Array, gain: float, low: Array, high: Array) -> float:
    """min { length(d) : w.d >= gain, low <= d <= high }; inf where no d gains that much. All (D,)."""
    if gain <= 0:
        return 0.0
    if _most(w, low, high) < gain:
        return math.inf
    if norm == "l2":
        small, large = 0.0, 1.0
        while w @ np.clip(large * w, low, high) < gain and large < 1e12:
            large *= 2
        for _ in range(200):
            middle = (small + large) / 2
            small, large = (small, middle) if w @ np.clip(middle * w, low, high) >= gain else (middle, large)
        return float(np.linalg.norm(np.clip(large * w, low, high)))
    size, eye = len(w), np.eye(len(w))
    many = 1 if norm == "linf" else size
    # Variables d and t, |d_i| <= t_i (one t for all in L-infinity); the sum of t is to be small.
    bound = np.ones((size, 1)) if norm == "linf" else eye
    rows = np.block([[eye, -bound], [-eye, -bound], [-w[None, :], np.zeros((1, many))]])
    found = linprog(
        np.concatenate([np.zeros(size), np.ones(many)]),
        A_ub=rows,
        b_ub=np.concatenate([np.zeros(2 * size), [-gain]]),
        bounds=[*zip(low, high, strict=True), *[(0, None)] * many],
    )
    assert found.success, found.message
    return float(found.fun)


def _most(w: Array, low: Array, high: Array) -> float:
    reach = np.where(w > 0, high, low)
    return float(sum(a * b for a, b in zip(w, reach, strict=True) if a != 0))
