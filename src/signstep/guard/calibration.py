"""What the guard knows of clean inputs: their shape and ends, the steps between them, the weights it was measured with.

It lies in a folder: ``calibration.json``, ``steps.safetensors``, and a file for each detector of the policy. The seed
of the random directions lies there too, so that the folder is for its owner's eyes.
"""

import json
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from signstep.errors import InputError, LoadError
from signstep.guard.band import Band, band, share_band
from signstep.guard.fingerprints import clean_share
from signstep.guard.walks import Walks
from signstep.guard.watch import ODD_STEP
from signstep.io.documents import content_of, read_json
from signstep.io.files import write_whole
from signstep.messages import Arg

Array = np.ndarray[Any, Any]
NAME, STEPS = "calibration.json", "steps.safetensors"
FORMAT = 1
_LAST = 1e11  # seconds since 1970; a calendar ends somewhere
_MOST_STEPS = 2**27  # bytes of a file of steps


@dataclass(frozen=True)
class Calibration:
    """What is known of clean inputs.

    Attributes:
        digest: of the weights that were calibrated.
        rows: clean rows.
        shape: of an input.
        ends: (low, high): the least and the largest number in them; for fingerprints.
        box: numbers outside of it are none that the model was made for; None where no ends were declared.
        unsure_rows: rows whose confidence was low; None where that was not counted.
        similar: the share of a fingerprint from which on two inputs are similar, which no clean ones are.
        walks: of the steps between them; None where they were too few.
        made: seconds since 1970.
        detectors: names of the files of detectors, in the order of the policy.
        terms: what else the command wrote down: rates, model, data.
    """

    digest: str
    rows: int
    shape: tuple[int, ...]
    ends: tuple[float, float]
    box: tuple[float, float] | None = None
    unsure_rows: int | None = None
    similar: float = 0.5
    walks: Walks | None = None
    made: float = 0.0
    detectors: tuple[str, ...] = ()
    terms: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rows: Array,
        digest: str,
        *,
        box: tuple[float, float] | None = None,
        unsure_rows: int | None = None,
        detectors: tuple[str, ...] = (),
        terms: Mapping[str, Any] | None = None,
    ) -> "Calibration":
        """From clean rows (R, ...), in the order in which a client may send them.

        Raises:
            InputError: there are none, or they are not finite.
        """
        if not len(rows) or not np.isfinite(rows).all():
            raise InputError(Arg("rows"), "are none, or not finite", remedy="pass clean inputs")
        low, high = float(rows.min()), float(rows.max())
        ends = box or (low, high if high > low else low + 1)
        walks = Walks.calibrated(rows, secrets.randbits(60)) if len(rows) >= 200 else None
        shape = tuple(int(size) for size in rows.shape[1:])
        return cls(
            digest,
            len(rows),
            shape,
            ends,
            box,
            unsure_rows,
            clean_share(rows, ends),
            walks,
            time.time(),
            detectors,
            dict(terms or {}),
        )

    def flags(self, nominal: float) -> Band:
        """The band of a rate of flags.

        Raises:
            InputError: the rows cannot carry it.
        """
        return band(nominal, self.rows)

    @property
    def unsure(self) -> Band | None:
        """The band of the share of clean inputs with low confidence."""
        return None if self.unsure_rows is None else share_band(self.unsure_rows, self.rows)

    @property
    def steps(self) -> Band | None:
        """The band of the share of clean steps that are odd."""
        return None if self.walks is None else band(ODD_STEP, self.walks.rows)

    def age(self, now: float) -> float:
        """Days since it was made."""
        return (now - self.made) / 86_400

    def save(self, folder: Path) -> None:
        """Write it into a folder that is there.

        Raises:
            LoadError: it cannot be written.
        """
        plain: dict[str, Any] = {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("digest", "rows", "made", "unsure_rows", "similar")},
            **{name: list(getattr(self, name)) for name in ("shape", "ends", "detectors")},
            "box": None if self.box is None else list(self.box),
            "seed": None if self.walks is None else self.walks.seed,
            "terms": dict(self.terms),
        }
        if self.walks is not None:
            write_whole(folder / STEPS, save({"lengths": self.walks.lengths, "bends": self.walks.bends}))
        write_whole(folder / NAME, json.dumps(plain, indent=1) + "\n")
        for path in (folder / NAME, folder / STEPS):
            if path.exists():
                path.chmod(0o600)

    @classmethod
    def load(cls, folder: Path) -> "Calibration":
        """Read it from a folder.

        Raises:
            LoadError: it is none, or damaged.
        """
        plain = read_json(folder / NAME, "the calibration")
        try:
            return _read(plain, folder)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, LoadError):
                raise
            raise LoadError(
                f"the calibration {folder / NAME} is damaged ({type(error).__name__}: {error})",
                remedy="calibrate again",
            ) from error


def _read(plain: Any, folder: Path) -> Calibration:
    if plain["format"] != FORMAT:
        raise ValueError(f"format {plain['format']!r} is not {FORMAT}")
    shape, rows, seed = tuple(plain["shape"]), plain["rows"], plain["seed"]
    if not shape or not all(type(size) is int and 0 < size < 2**24 for size in shape) or math.prod(shape) > 2**28:
        raise ValueError("its shape is none")
    if type(rows) is not int or not 0 < rows < 2**40 or not isinstance(plain["digest"], str):
        raise ValueError("its rows or its digest are none")
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**64):
        raise ValueError("its seed is none")
    unsure = plain["unsure_rows"]
    if unsure is not None and (type(unsure) is not int or not 0 <= unsure <= rows):
        raise ValueError("its count of low confidence is none")
    detectors = tuple(plain["detectors"])
    if not all(isinstance(name, str) and Path(name).name == name and name not in ("", ".", "..") for name in detectors):
        raise ValueError("a detector is not a file of this folder")
    walks = None if seed is None else _walks(folder, seed, math.prod(shape))
    box = None if plain["box"] is None else _ends(plain["box"])
    terms = dict(plain["terms"])
    made, similar = float(plain["made"]), float(plain["similar"])
    if not (0 <= made < _LAST and 0.5 <= similar < 2):
        raise ValueError("a number is out of range")
    return Calibration(
        plain["digest"], rows, shape, _ends(plain["ends"]), box, unsure, similar, walks, made, detectors, terms
    )


def _walks(folder: Path, seed: int, size: int) -> Walks:

    content = content_of(folder / STEPS, "the steps", _MOST_STEPS)
    try:
        found = load(content)
    except Exception as error:  # of safetensors, which has a class of its own
        raise ValueError("its steps are none") from error
    lengths, bends = found["lengths"].astype(np.float64), found["bends"].astype(np.float64)
    for part in (lengths, bends):
        if part.ndim != 1 or not len(part) or not np.isfinite(part).all() or (np.diff(part) < 0).any():
            raise ValueError("its steps are not sorted numbers")
    return Walks(seed, size, lengths, bends)


def _ends(pair: Any) -> tuple[float, float]:
    low, high = (float(end) for end in pair)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError("its ends are none")
    return low, high
