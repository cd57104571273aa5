"""Tensors and the terms they were found under, in one file of safetensors."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from signstep.engine.counts import Count
from signstep.engine.threat import ThreatModel, threat_model
from signstep.errors import LoadError, SignstepError
from signstep.io.archives import check_safetensors
from signstep.io.documents import json_value
from signstep.io.files import write_whole
from signstep.registry import typed_only

Made = TypeVar("Made")


def save_kept(path: str | Path, kind: str, tensors: Mapping[str, Tensor], terms: Mapping[str, Any]) -> None:
    """Write; the file appears whole or not at all.

    Raises:
        LoadError: it cannot be written.
    """
    parts = {name: part.detach().cpu().contiguous() for name, part in tensors.items()}
    content = save(parts, {"signstep": kind, "terms": json.dumps(dict(terms), sort_keys=True)})
    write_whole(Path(path), content)


def load_kept(path: str | Path, kind: str, make: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Made]) -> Made:
    """What ``make`` makes of the tensors and terms that `save_kept` wrote.

    Raises:
        LoadError: the file is missing, damaged or of another kind, or its parts make no such thing.
    """
    tensors, terms = _read(path, kind)
    for name, part in tensors.items():
        if not torch.isfinite(part).all():
            raise LoadError(
                f"{path}: {name} holds NaN or infinite values", remedy=f"pass a file that signstep saved as a {kind}"
            )
    try:
        return make(tensors, terms)
    except (SignstepError, KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise LoadError(
            f"{path} does not hold the parts of a {kind} ({type(error).__name__}: {error})",
            remedy="pass a file that signstep saved as one",
        ) from error


def count_of(plain: Any) -> Count:
    """A count from [hits, of].

    Raises:
        ValueError: it is none.
    """
    hits, of = plain
    if not (type(hits) is int and type(of) is int and 0 <= hits <= of):
        raise ValueError(f"{plain} is no count")
    return Count(hits, of)


def _read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        check_safetensors(Path(path))
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        found, terms = said.get("signstep"), json_value(said.get("terms", "null"), "what it says of itself")
    except (OSError, SafetensorError, LoadError) as error:
        raise LoadError(
            f"{path} cannot be read: {error}", remedy=f"pass a file that signstep saved as a {kind}"
        ) from error
    if found != kind or not isinstance(terms, dict):
        raise LoadError(
            f"{path} holds {found or 'no signstep object'}, not a {kind}", remedy="pass a file saved as one"
        )
    return tensors, terms


def threat_terms(threat: ThreatModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A threat as plain values, and the tensors among its parts."""
    plain: dict[str, Any] = {"norm": threat.norm.name, "grid": threat.grid, "label": threat.label}
    tensors: dict[str, Tensor] = {}
    for name in ("eps", "low", "high", "mask"):
        part = getattr(threat, name)
        if isinstance(part, Tensor):
            tensors[name] = part
        else:
            plain[name] = part
    return plain, tensors


def threat_from(plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ThreatModel:
    """The threat that `threat_terms` took apart."""
    parts = {**plain, **{name: tensors[name] for name in ("eps", "low", "high", "mask") if name in tensors}}
    with typed_only():  # the name of the norm is the file's
        made = threat_model(
            parts["norm"], parts["eps"], box=(parts["low"], parts["high"]), mask=parts.get("mask"), grid=parts["grid"]
        )
    return ThreatModel(made.norm, made.eps, made.low, made.high, made.mask, made.grid, parts["label"])
