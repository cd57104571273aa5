"""A detector in one file of safetensors: its rule's state, the calibration scores, digests and options."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from signstep.physical.storage import load_kept, save_kept

KIND = "detector"
FORMAT = 1
_STATE = "state."
_DIGESTS = ("model", "preprocessing", "fit", "calibration", "second_model", "second_preprocessing")


class Stored(NamedTuple):
    """What a file holds, checked for its form; whose model it belongs to is seen by who loads it."""

    name: str
    options: dict[str, Any]
    calibration: Tensor
    classes: Tensor | None
    digests: dict[str, str]
    state: dict[str, Tensor]
    fit_rows: int
    recipes: tuple[str, ...]
    notes: tuple[str, ...]
    guides: Tensor | None


def save_detector(path: str | Path, stored: Stored) -> None:
    """Write; the file appears whole or not at all.

    Raises:
        LoadError: it cannot be written.
    """
    tensors = {f"{_STATE}{name}": part for name, part in stored.state.items()}
    tensors["calibration"] = stored.calibration
    if stored.classes is not None:
        tensors["classes"] = stored.classes
    if stored.guides is not None:
        tensors["guides"] = stored.guides
    terms = {
        "format": FORMAT,
        "name": stored.name,
        "options": stored.options,
        "digests": stored.digests,
        "fit_rows": stored.fit_rows,
        "recipes": list(stored.recipes),
        "notes": list(stored.notes),
    }
    save_kept(path, KIND, tensors, terms)


def read_detector(path: str | Path) -> Stored:
    """What a file holds.

    Raises:
        LoadError: it is missing, damaged, of another kind, or its parts do not make a detector.
    """
    return load_kept(path, KIND, _made)


def _made(tensors: Mapping[str, Tensor], terms: Mapping[str, Any]) -> Stored:
    if terms["format"] != FORMAT:
        raise ValueError(f"format {terms['format']!r} is not {FORMAT}")
    calibration, classes = tensors["calibration"], tensors.get("classes")
    if calibration.dtype != torch.float64 or calibration.ndim != 1 or not len(calibration):
        raise ValueError("its calibration is not a list of float64 scores")
    if bool((calibration.diff() < 0).any()):
        raise ValueError("its calibration scores are not sorted")
    if classes is not None and (classes.dtype != torch.int64 or classes.shape != calibration.shape):
        raise ValueError("its classes do not fit its calibration scores")
    digests = terms["digests"]
    if not isinstance(digests, dict) or not {"model", "preprocessing"} <= set(digests) <= set(_DIGESTS):
        raise ValueError("its digests are none")
    texts = [terms["name"], *digests.values(), *terms["recipes"], *terms["notes"]]
    if not all(isinstance(text, str) for text in texts) or not isinstance(terms["options"], dict):
        raise ValueError("its texts are none")
    if type(terms["fit_rows"]) is not int or terms["fit_rows"] < 0:
        raise ValueError("its count of rows is none")
    guides = tensors.get("guides")
    if guides is not None and (guides.is_complex() or not guides.ndim):
        raise ValueError("its guides are no rows")
    state = {name.removeprefix(_STATE): part for name, part in tensors.items() if name.startswith(_STATE)}
    return Stored(
        terms["name"],
        terms["options"],
        calibration,
        classes,
        digests,
        state,
        terms["fit_rows"],
        tuple(terms["recipes"]),
        tuple(terms["notes"]),
        guides,
    )
