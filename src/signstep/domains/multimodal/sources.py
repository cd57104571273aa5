"""Where a model and a tokenizer come from: the user's own Python, or folders of the transformers library."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from torch import nn

from signstep.domains.bare import bare_module
from signstep.domains.case import Request
from signstep.domains.multimodal.schema import Schema
from signstep.domains.multimodal.tokens import PretrainedTokenizer, Tokenizer, WordTokenizer
from signstep.io.files import expanded
from signstep.model.opening.huggingface import place_of
from signstep.model.opening.pretrained import CONFIG, Pretrained


class Loaded(NamedTuple):
    """A model, what it is, and the hashes of its parts."""

    model: nn.Module
    description: str
    notes: tuple[str, ...]
    hashes: dict[str, str]


def tokenizer_of(schema: Schema) -> Tokenizer | None:
    """The tokenizer that a schema names; None where it names none."""
    if schema.tokenizer is None:
        return None
    path = schema.folder / schema.tokenizer.path
    if schema.tokenizer.kind == "words":
        return WordTokenizer.read(path)
    return (
        PretrainedTokenizer.wordpiece(path)
        if schema.tokenizer.kind == "wordpiece"
        else PretrainedTokenizer.folder(path)
    )


def model_of(request: Request) -> Loaded:
    """The user's model: what `signstep.open` takes, or a folder of the transformers library, as FOLDER or hf:FOLDER."""
    assert request.model is not None
    name = request.model.removeprefix("hf:")
    if name != request.model or (expanded(name) / CONFIG).is_file():
        folder, title, origin = place_of(name, trust=request.trust)
        found = Pretrained.of(folder, trust=request.trust, weightless=request.weights is not None)
        network, notes, hashes = found.loaded(request.weights)
        return Loaded(network, f"{title} (transformers)", (*origin, *notes), hashes)
    network, model = bare_module(request)
    return Loaded(network, model.title, tuple(model.notes), dict(model.hashes))


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
