"""What an audit is told from another by: every term that its numbers follow from, as text by name.

Two audits with the same terms give the same units. So a ledger is gone on with under these alone, and a worker that
makes the audit anew from names has to come to the same ones.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from signstep.auditing.run import Curve, Job
from signstep.model.declaration import Model
from signstep.model.opening.hashing import state_hash
from signstep.version import VERSION

_DEEPEST = 12
_NOT_OF_A_MODEL = ("network", "name", "hashes", "notes", "shape")


def identity(job: Job, device: str) -> dict[str, str]:
    """The terms of an audit.

    Args:
        job: as it was asked for.
        device: the kind that it runs on.

    Raises:
        InputError: what was asked for makes no sense.
    """
    search, run = job.search, job.run
    curve = job.curve if isinstance(job.curve, Curve) else Curve(job.curve)
    stated: dict[str, Any] = {
        "version of signstep": VERSION,
        "model": job.model.title,
        **_of_model("", job.model),
        "data": run.data,
        **{f"SHA-256 of the {name}": digest for name, digest in sorted({**job.model.hashes, **run.hashes}.items())},
        "threat": job.threat,
        "attacks": list(job.names),
        "on a ladder": job.ladder is not None,
        "curve": [curve.levels, list(curve.attacks)],
        "limit": job.limit,
        **{part.name: getattr(search, part.name) for part in fields(search) if part.name != "surrogate"},
        "bounds": run.bounds,
        "policy": None if run.policy is None else run.policy.terms(),
        "ways": None if run.ways is None else [way.name for way in run.ways],
        "unit": run.unit,
        "points kept": None if run.evidence is None else run.evidence.limit,
        "device": device,
    }
    for number, other in enumerate(search.surrogates):
        stated |= _of_model(f"surrogate {number} ", other)
    for name, other in run.transfer_to.items():
        stated |= _of_model(f"{name}'s ", other)
    return {name: text_of(value) for name, value in stated.items()}


def key_of(terms: Mapping[str, str]) -> str:
    """SHA-256 of the terms."""
    return hashlib.sha256(json.dumps(dict(terms), sort_keys=True).encode()).hexdigest()


def text_of(value: Any) -> str:
    """A value in words that are the same in every process."""
    plain = _plain(value, _DEEPEST)
    return plain if isinstance(plain, str) else json.dumps(plain, sort_keys=True)


def _of_model(whose: str, model: Any) -> dict[str, Any]:
    network = model.network if isinstance(model, Model) else model
    found: dict[str, Any] = {f"{whose}network": _name(type(network))}
    if isinstance(network, nn.Module):
        found[f"{whose}weights"] = state_hash(network)
    if isinstance(model, Model):
        told = (part.name for part in fields(model) if part.name not in _NOT_OF_A_MODEL)
        found |= {f"{whose}{name}": getattr(model, name) for name in told}
    return found


def _plain(value: Any, deep: int) -> Any:  # noqa: PLR0911 - a kind a line
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (Tensor, np.ndarray)):
        return _array(torch.as_tensor(value))  # any dtype, any device: those of what was passed
    if isinstance(value, (torch.dtype, torch.device, range, bytes, complex)):
        return repr(value)
    if isinstance(value, Enum):
        return f"{_name(type(value))}.{value.name}"
    if isinstance(value, nn.Module):
        return {_name(type(value)): state_hash(value)}
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return _name(value)
    if deep == 0:
        return _name(type(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(part, deep - 1) for name, part in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_plain(part, deep - 1), sort_keys=True) for part in value)
    if isinstance(value, Sequence):
        return [_plain(part, deep - 1) for part in value]
    parts = _parts(value)
    return {_name(type(value)): {name: _plain(part, deep - 1) for name, part in parts.items()}}


def _parts(value: Any) -> Mapping[str, Any]:
    if is_dataclass(value):
        return {part.name: getattr(value, part.name) for part in fields(value)}
    return getattr(value, "__dict__", {})


def _array(value: Tensor) -> str:
    plain = value.detach().cpu().contiguous()
    digest = hashlib.sha256(plain.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
    return f"{plain.dtype} {tuple(plain.shape)} {digest}"


def _name(kind: Any) -> str:
    # In a process that was spawned, the script that began it all goes by another name.
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__
    return f"{module}.{kind.__qualname__}"
