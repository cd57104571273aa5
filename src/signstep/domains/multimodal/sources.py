"""Where a model and a tokenizer come from: the user's own Python, or folders of the transformers library."""

from signstep.domains.bare import bare_module
from signstep.domains.case import Request
from signstep.domains.language.loading import Loaded, folder_of
from signstep.domains.language.tokenizers import PretrainedTokenizer, Tokenizer, WordTokenizer
from signstep.domains.multimodal.schema import Schema


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
    folder = folder_of(request)
    if folder is not None:
        return folder.loaded(request.weights)
    network, model = bare_module(request)
    return Loaded(network, model.title, tuple(model.notes), dict(model.hashes))
