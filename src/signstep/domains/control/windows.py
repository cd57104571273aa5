"""Long records of a plant, one row for each sample, cut into windows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from signstep.domains.control.series import REGRESSION, Faults, Series
from signstep.errors import InputError


@dataclass(frozen=True, eq=False)
class Record:
    """Consecutive samples ``values`` (N, C) with labels (N,); ``bad`` (N,) marks rows that cannot be used.

    Labels are positions of classes, or real numbers (float64).
    """

    values: NDArray[np.float64]
    labels: NDArray[np.int64] | NDArray[np.float64]
    bad: NDArray[np.bool_]

    @property
    def real(self) -> bool:
        """Whether labels are real numbers."""
        return self.labels.dtype.kind == "f"


def windows(
    records: Sequence[Record],
    *,
    names: tuple[str, ...],
    classes: tuple[str, ...],
    samples: int,
    stride: int,
    faults: Faults,
) -> Series:
    """Every window of ``samples`` rows without a bad one: within one class, or with the real label of its last row.

    Raises:
        InputError: no record is so long, or none keeps its label for so long.
    """
    parts, labels, places, lost, mixed = [], [], [], 0, 0
    for number, record in enumerate(records):
        for first in range(0, len(record.values) - samples + 1, stride):
            piece = slice(first, first + samples)
            if not record.real and len(set(record.labels[piece].tolist())) > 1:
                mixed += 1
                continue
            if record.bad[piece].any():
                lost += 1
                continue
            parts.append(record.values[piece])
            labels.append(record.labels[piece][-1])
            places.append((number, first))
    notes = faults.notes("rows")
    if lost:
        notes = (*notes, f"{lost} windows with such rows left out")
    if not parts:
        longest = max((len(record.values) for record in records), default=0)
        why = f"{longest} rows at most"
        if mixed:
            why = f"the label changes in each of {mixed}"
        elif lost:
            why = f"each of {lost} has a row that cannot be used"
        real = (", or read real numbers with", *REGRESSION) if mixed else ()
        raise InputError(f"no window of {samples} samples fits ({why})", remedy=("write a smaller window", *real))
    x = torch.from_numpy(np.stack(parts)).float()
    dtype = torch.float32 if records[0].real else torch.int64
    y = torch.from_numpy(np.array(labels)).to(dtype)
    return Series(x, y, classes, names, notes, places=tuple(places))
