"""What a detector was made with, as digests: the model, the preprocessing, and the rows of both halves."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from signstep.engine.keys import content_ids
from signstep.engine.submodules import reached
from signstep.errors import InputError
from signstep.model.declaration import Model
from signstep.model.version import weights_of

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def model_digest(model: Model) -> str:
    """SHA-256 over the layers and weights that a model reaches.

    A function that holds no weights is known by the SHA-256 that its declaration states, else by its name alone.
    """
    network = model.network
    modules = tuple(network.modules()) if isinstance(network, nn.Module) else reached(network).modules
    digest = hashlib.sha256()
    for module in modules:
        own = module.extra_repr() if type(module).__module__.startswith("torch.") else ""
        digest.update(f"{type(module).__qualname__}({own})\n".encode())
    weights = list(weights_of(modules))
    for part in weights:
        digest.update(f"{part.dtype} {tuple(part.shape)}\n".encode())
        digest.update(_bytes(part))
    if not weights:
        stated = json.dumps(dict(model.hashes), sort_keys=True) if model.hashes else ""
        digest.update((stated or f"{_name(network)}").encode())
    return digest.hexdigest()


def preprocessing_digest(model: Model) -> str:
    """SHA-256 over all that is declared about how inputs reach the network and its outputs are read."""
    said: dict[str, Any] = {
        **model.space().describe(),
        "mode": model.mode,
        "outputs": model.outputs,
        "output": _name(model.output) if callable(model.output) else model.output,
        "task": model.task if isinstance(model.task, str) else _ADDRESS.sub("", str(model.task)),
        "transform": None if model.transform is None else _ADDRESS.sub("", str(model.transform)),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def rows_digest(raw: Tensor) -> str:
    """SHA-256 over the contents of rows, whatever their order; "" of none."""
    if not len(raw):
        return ""
    ids = content_ids(raw).cpu().sort().values
    return hashlib.sha256(ids.numpy().tobytes()).hexdigest()


_WHAT: dict[str, Callable[[Model], str]] = {"model": model_digest, "preprocessing": preprocessing_digest}


def digests_of(model: Model) -> dict[str, str]:
    """Those of the model and its preprocessing."""
    return {name: digest(model) for name, digest in _WHAT.items()}


def refuse_other(kept: Mapping[str, str], model: Model, what: str, prefix: str = "") -> None:
    """See that a model is the one a detector was calibrated with.

    Raises:
        InputError: its weights, layers or preprocessing are others.
    """
    for name, digest in digests_of(model).items():
        if kept.get(prefix + name) != digest:
            words = "model (its weights or layers differ)" if name == "model" else "preprocessing"
            raise InputError(
                f"{what} was calibrated with another {prefix.replace('_', ' ')}{words}",
                remedy="fit it again on this one: its false-alarm rate holds for what it was calibrated with alone",
            )


def _bytes(part: Tensor) -> bytes:
    whole = part.detach().cpu().contiguous()
    if whole.is_quantized:
        whole = whole.int_repr()
    return whole.reshape(-1).view(torch.uint8).numpy().tobytes() if whole.numel() else b""


def _name(thing: object) -> str:
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"
