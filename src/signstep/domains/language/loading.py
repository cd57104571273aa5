"""A folder of the transformers library as a network with its name, notes and hashes."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from torch import nn

from signstep.domains.case import Request
from signstep.io.files import expanded
from signstep.model.opening.huggingface import place_of
from signstep.model.opening.pretrained import CONFIG, Pretrained


class Loaded(NamedTuple):
    """A model, what it is, and the hashes of its parts."""

    model: nn.Module
    description: str
    notes: tuple[str, ...]
    hashes: dict[str, str]


class Folder(NamedTuple):
    """A folder that ``save_pretrained`` wrote, before its weights are read, with its title and notes on its origin."""

    found: Pretrained
    title: str
    notes: tuple[str, ...]

    def loaded(self, weights: Path | None) -> Loaded:
        """The network with its own weights, or those of a file."""
        network, notes, hashes = self.found.loaded(weights)
        return Loaded(network, f"{self.title} (transformers)", (*self.notes, *notes), hashes)


def folder_of(request: Request) -> Folder | None:
    """The folder that a request names, as FOLDER or hf:FOLDER; None where its model is something else.

    Raises:
        InputError: it needs trust.
        LoadError: there is none, or a part is missing.
    """
    assert request.model is not None
    name = request.model.removeprefix("hf:")
    if name == request.model and not (expanded(name) / CONFIG).is_file():
        return None
    folder, title, origin = place_of(name, trust=request.trust)
    found = Pretrained.of(folder, trust=request.trust, weightless=request.weights is not None)
    return Folder(found, title, origin)


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
