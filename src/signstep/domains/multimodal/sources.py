"""Where a model and a tokenizer come from: the user's own Python, or folders of the transformers library."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from torch import nn

from signstep.domains.bare import bare_module
from signstep.domains.case import Request
from signstep.domains.multimodal.schema import Schema
from signstep.domains.multimodal.tokens import PretrainedTokenizer, Tokenizer, WordTokenizer
from signstep.errors import LoadError, MissingExtraError
from signstep.io.files import expanded


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
    """The user's model: module:factory, or a folder of the transformers library."""
    assert request.model is not None
    folder = expanded(request.model)
    if (folder / "config.json").is_file():
        return Loaded(_pretrained(folder), f"{folder.name} (transformers)", (), {"weights": _sha256_of(folder)})
    network, model = bare_module(request)
    return Loaded(network, model.title, tuple(model.notes), dict(model.hashes))


def _pretrained(folder: Path) -> nn.Module:
    """The model that a folder's config names, from safetensors; nothing is downloaded."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "multimodal") from error
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = getattr(transformers, (config.architectures or ["none"])[0])
        model: nn.Module = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, AttributeError) as error:
        said = str(error).partition("\n")[0]
        raise LoadError(
            f"{folder} holds no model that transformers can read ({said})", remedy="save it there anew"
        ) from error
    return model.eval()


def _sha256_of(folder: Path) -> str:
    """Of all weights in a folder, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
