"""The graph potential that comes with Signstep, and its use in ASE."""

import hashlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from signstep.domains.atoms.graph import GraphPotential
from signstep.domains.atoms.potential import TorchPotential
from signstep.engine.defaults import plain_torch
from signstep.errors import LoadError
from signstep.io.documents import json_value

_FILE = "graph_potential.safetensors"


def graph_potential(path: str | Path | None = None) -> TorchPotential:
    """The small graph network trained on EMT (H, C, N or O on copper), or one of your own weights, in float64.

    It is an example of a potential that autograd differentiates, good for slabs like those it was trained on
    (examples/atoms/train_potential.py) and for nothing else; `facts` has its errors on held-out structures.

    Raises:
        LoadError: the file is missing or holds something else.
    """
    return TorchPotential(_loaded(_path(path)), "graph")


def facts(path: str | Path | None = None) -> dict[str, Any]:
    """What the file says of itself: elements, cutoff, errors on held-out structures.

    Raises:
        LoadError: as `graph_potential`.
    """
    place = _path(path)
    try:
        with safe_open(place, framework="pt") as file:
            return dict(json_value((file.metadata() or {})["signstep"], "what it says of itself"))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise LoadError(
            f"{place} does not hold a graph potential ({type(error).__name__})",
            remedy="write one with examples/atoms/train_potential.py",
        ) from error


def weights_hash(path: str | Path | None = None) -> str:
    """SHA-256 of the file."""
    return hashlib.sha256(_path(path).read_bytes()).hexdigest()


@lru_cache(maxsize=4)
@plain_torch()
def _loaded(path: Path) -> GraphPotential:
    stated = facts(path)
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = GraphPotential(tuple(stated["elements"]), **stated["shape"])
        model.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError) as error:
        raise LoadError(f"{path} does not fit the graph network ({error})", remedy="train it again") from error
    return model.double().eval().requires_grad_(requires_grad=False)


def _path(path: str | Path | None) -> Path:
    return Path(str(files(__package__) / _FILE)) if path is None else Path(path)
