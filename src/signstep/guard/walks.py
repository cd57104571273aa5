"""Steps from one input of a client to its next: whether they are those of a search.

An input is projected onto a few random directions under a key. Two signs of a search are judged by the steps of clean
traffic, each as a conformal p-value, and the smaller of the two counts twice:

    near       how short the step is
    straight   how far its cosine with the step before is from -1/2, that of independent inputs

Independent x1, x2, x3 have steps x2 - x1 and x3 - x2 that share x2, hence cosine -1/2; a search along a direction has
1, one that probes on both sides of a point has -1 (the feature of GWAD, "Delta Similarity", arXiv 2503.02986, 2025).
A stream of video takes short steps by nature: calibrate on what clients send, in the order in which they send it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from signstep.errors import InputError

Array = np.ndarray[Any, Any]
Sketch = np.ndarray[Any, np.dtype[np.float32]]

WIDE = 48


@dataclass(frozen=True)
class Walks:
    """Judges steps.

    Attributes:
        seed: of the directions.
        size: numbers in an input.
        lengths: of the steps of clean traffic, sorted.
        bends: their distances of the cosine from -1/2, sorted.
    """

    seed: int
    size: int
    lengths: Array
    bends: Array

    @classmethod
    def calibrated(cls, rows: Array, seed: int) -> "Walks":
        """From clean inputs (R, ...) in the order in which a client may send them.

        Raises:
            InputError: there are too few to say anything at 1 %.
        """
        if len(rows) < 200:
            raise InputError(
                f"{len(rows)} rows are too few to know the steps of clean traffic", remedy="calibrate on at least 200"
            )
        made = cls(seed, int(np.prod(rows.shape[1:])), np.zeros(0), np.zeros(0))
        sketches = made.sketches(rows)
        steps = np.diff(sketches, axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        scale = np.maximum(lengths[1:] * lengths[:-1], 1e-12)
        bends = np.abs((steps[1:] * steps[:-1]).sum(axis=1) / scale + 0.5)
        return cls(seed, made.size, np.sort(lengths), np.sort(bends))

    @property
    def rows(self) -> int:
        """Steps behind a p-value."""
        return len(self.bends)

    def sketches(self, rows: Array) -> Sketch:
        """Inputs (R, ...) as (R, `WIDE`)."""
        flat = np.nan_to_num(np.asarray(rows, dtype=np.float32).reshape(len(rows), -1), posinf=0.0, neginf=0.0)
        flat = np.clip(flat, -_MOST, _MOST)
        made: Sketch = (flat @ _directions(self.seed, self.size)).astype(np.float32)
        return made

    def p_value(self, step: Sketch, before: Sketch | None) -> float:
        """How usual a step is among those of clean traffic; ``before`` is the one before it."""
        length = float(np.linalg.norm(step))
        near = (1 + int(np.searchsorted(self.lengths, length, side="right"))) / (len(self.lengths) + 1)
        if before is None:
            return near
        scale = max(length * float(np.linalg.norm(before)), 1e-12)
        bend = abs(float(step @ before) / scale + 0.5)
        above = len(self.bends) - int(np.searchsorted(self.bends, bend, side="left"))
        return min(1.0, 2 * min(near, (1 + above) / (len(self.bends) + 1)))


_MOST = np.float32(1e12)  # whoever sends larger numbers gets no sum that float32 does not hold, and no step that is NaN
_MADE: dict[tuple[int, int], Sketch] = {}


def _directions(seed: int, size: int) -> Sketch:
    if (seed, size) not in _MADE:
        _MADE.clear()  # one guard has one
        made = np.random.default_rng(seed).standard_normal((size, WIDE), dtype=np.float32)
        _MADE[seed, size] = made / np.float32(WIDE**0.5)
    return _MADE[seed, size]
