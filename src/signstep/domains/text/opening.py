"""From what a person names to a model of texts: a folder of transformers, Python of their own, a fitted estimator."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from signstep.domains.case import Request
from signstep.domains.language.loading import Folder, folder_of
from signstep.domains.language.spelling import longest, speller
from signstep.domains.language.tokenizers import PretrainedTokenizer, Tokenizer
from signstep.domains.text.reading import CallableReader, Reader, TextModel, TokenReader
from signstep.errors import InputError, ModelError
from signstep.importing import is_spec, split
from signstep.io.files import refuse_unwritable
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.opening import open_model, parse_args
from signstep.model.opening.adopting import asks_for_inputs, finished
from signstep.model.opening.estimators import is_estimator
from signstep.model.opening.factory import made
from signstep.model.opening.hashing import file_hash
from signstep.model.opening.huggingface import class_names
from signstep.model.opening.sources import code_hash, source_files
from signstep.model.opening.weights import load_weights
from signstep.model.victims.estimator import EstimatorVictim

_RETURN = (
    "let it return a function from a list of texts to scores, a pair (tokenizer, network), or an ss.Model of such a "
    "function"
)
_NO_GRADIENTS = "the model gives no gradients: it is asked for scores alone, and may be less robust than queries find"
# Of a declaration, what has no meaning for texts.
_UNITS = ("mean", "std", "inputs", "transform", "task")


@dataclass(frozen=True, eq=False)
class Given:
    """A model of texts.

    Attributes:
        model: with a `TextModel` for its network, and the names of its classes where it has any.
        gradients: whether gradients can be had.
        length: tokens that it reads of a text; None where nobody knows.
    """

    model: Model
    gradients: bool
    length: int | None = None

    @property
    def network(self) -> TextModel:
        """What is asked."""
        assert isinstance(self.model.network, TextModel)
        return self.model.network


def given_model(request: Request, length: int = 0) -> Given:
    """The model that a request names; ``length`` tokens are read of a text, 0 for as many as it says itself.

    Raises:
        InputError: it is none that reads texts.
        LoadError: a file, or code of somebody's own, cannot be used.
        MissingExtraError: transformers or scikit-learn is not installed.
    """
    assert request.model is not None
    folder = folder_of(request)
    if folder is not None:
        return _of_folder(folder, request.weights, length)
    if is_spec(request.model) and not Path(request.model).exists():
        return _own(request, length)
    model = open_model(request.model, weights=request.weights, args=parse_args(request.model_args), trust=request.trust)
    if isinstance(model.network, EstimatorVictim):
        return of_estimator(model.network.estimator, model)
    raise InputError(
        f"{request.model} is a {type(model.network).__name__}, which reads no texts",
        remedy=("pass", Arg("model", "hf:FOLDER"), ", a fitted text classifier (.skops), or module:factory"),
    )


def of_estimator(estimator: Any, model: Model) -> Given:
    """A pipeline of scikit-learn that takes texts.

    Raises:
        InputError: it takes something else, or gives no scores.
    """
    kind = next((name for name in ("predict_proba", "decision_function") if hasattr(estimator, name)), None)
    if kind is None:
        raise InputError(
            f"the {type(estimator).__name__} gives no scores", remedy="pass one with predict_proba or decision_function"
        )

    def ask(texts: list[str]) -> Any:
        found = np.asarray(getattr(estimator, kind)(texts), dtype=np.float64)
        # Logits whose softmax are the probabilities.
        return np.log(np.maximum(found, np.finfo(np.float64).tiny)) if kind == "predict_proba" else found

    try:
        ask(["a text", "another text"])
    except Exception as error:
        raise InputError(
            f"the {type(estimator).__name__} takes no list of texts ({type(error).__name__})",
            remedy="fit a pipeline that begins with a vectoriser, such as make_pipeline(CountVectorizer(), ...)",
        ) from error
    return Given(replace(model, network=TextModel(CallableReader(ask)), outputs="logits"), gradients=False)


def of_pair(
    tokenizer: Any, network: nn.Module, model: Model, length: int = 0, *, argument: str = "", mask: str = ""
) -> Given:
    """A network of tokens with its tokenizer: one of transformers, or any with encode(text) -> list of int.

    Networks of transformers are called with ``input_ids`` and ``attention_mask``, others with one tensor (N, T), where
    no ``argument`` and ``mask`` say otherwise.

    Raises:
        InputError: there is no such tokenizer.
    """
    config = getattr(network, "config", None)
    named = hasattr(config, "model_type")
    plain = _tokenizer(tokenizer)
    most = length or longest(plain, config)
    pad = _pad(plain)
    reader = TokenReader(
        network,
        speller(plain, most),
        pad,
        argument=argument or ("input_ids" if named else _first_argument(network)),
        mask=mask or ("attention_mask" if named else ""),
        output=model.output,
    )
    return Given(replace(model, network=TextModel(reader), output=None), gradients=True, length=most)


def _of_folder(folder: Folder, weights: Path | None, length: int) -> Given:
    found = folder.found
    if "ForSequenceClassification" not in found.architecture:
        raise InputError(
            f"{found.folder} holds a {found.architecture}, which is no classifier of texts",
            remedy="pass one whose name ends in ForSequenceClassification",
        )
    if found.config.get("problem_type") == "multi_label_classification":
        raise InputError(
            f"{found.folder} gives several labels to a text (multi_label_classification)",
            remedy="pass one that decides for a class, or a function that returns the scores of one label",
        )
    classes = class_names(found.config, found.folder)
    tokenizer = PretrainedTokenizer.folder(found.folder)
    loaded = folder.loaded(weights)
    model = Model(loaded.model, classes=classes, name=loaded.description, hashes=loaded.hashes, notes=loaded.notes)
    return of_pair(tokenizer, loaded.model, model, length)


def _own(request: Request, length: int) -> Given:
    """What somebody's own Python stands for or makes."""
    assert request.model is not None
    spec = request.model
    found = made(spec, parse_args(request.model_args), _is_model)
    declared = found if isinstance(found, Model) else None
    if declared is not None:
        for name in _UNITS:
            if declared.says(name):
                raise InputError(f"{spec} declares {name}, which texts do not have", remedy="leave it out")
        found = declared.network
    model = declared or Model(_nothing)
    if request.output is not None:
        model = replace(model, output=request.output)
    pair = isinstance(found, (tuple, list)) and len(found) == 2
    network = found[1] if isinstance(found, (tuple, list)) and pair else found
    code = code_hash(source_files(split(spec)[0], network if callable(network) else _nothing))
    hashes = {**({} if code is None else {"code": code}), **model.hashes}
    notes: Sequence[str] = model.notes
    if request.weights is not None:
        if not isinstance(network, nn.Module):
            raise InputError(
                Arg("weights", request.weights),
                f"need an nn.Module, and {spec} gives a {type(network).__name__}",
                remedy="load them in the factory",
            )
        refuse_unwritable(request.weights, "the name of the weights file")
        notes = (*notes, *load_weights(network, request.weights))
        hashes["weights"] = file_hash(request.weights)
    model = replace(model, name=model.name or spec, hashes=hashes, notes=tuple(notes))
    if pair:
        assert isinstance(found, (tuple, list))
        if not isinstance(network, nn.Module):
            raise InputError(f"{spec} gives a pair whose second part is a {type(network).__name__}", remedy=_RETURN)
        return of_pair(found[0], network, model, length)
    if is_estimator(found):
        names = [*getattr(found, "classes_", ())]
        classes = [str(name) for name in names] if all(isinstance(name, str) for name in names) else ()
        return of_estimator(found, replace(model, classes=model.classes or classes))
    if isinstance(found, nn.Module) and not isinstance(found, TextModel):
        raise InputError(f"{spec} gives a network without its tokenizer", remedy="return a pair (tokenizer, network)")
    if not callable(found) or isinstance(found, type):
        raise InputError(f"{spec} gives a {type(found).__name__}", remedy=_RETURN)
    reader: Reader = CallableReader(found, model.output)
    return Given(replace(model, network=TextModel(reader), output=None), gradients=False)


def _is_model(thing: object) -> bool:
    """Whether a name stands for a model of texts itself, and not for what makes one."""
    return finished(thing) or isinstance(thing, (tuple, list)) or (callable(thing) and asks_for_inputs(thing))


def _nothing(texts: list[str]) -> Any:
    """Stands where a declaration needs a network before it has one."""
    raise ModelError(f"asked about {len(texts)} texts before there is a model", remedy="report this")


def _tokenizer(thing: Any) -> Tokenizer:
    """A tokenizer of transformers behind our own few words, or one that has them."""
    if hasattr(thing, "all_special_ids") and callable(thing):
        return PretrainedTokenizer(thing)
    if not callable(getattr(thing, "encode", None)):
        raise InputError(f"the tokenizer is a {type(thing).__name__} without encode(text)", remedy=_RETURN)
    return thing  # type: ignore[no-any-return]


def _pad(tokenizer: Tokenizer) -> int | None:
    if isinstance(tokenizer, PretrainedTokenizer):
        return None if tokenizer.inner.pad_token_id is None else int(tokenizer.inner.pad_token_id)
    pad = getattr(tokenizer, "pad", None)
    return pad if isinstance(pad, int) else None


def _first_argument(network: nn.Module) -> str:
    """The name of the first argument of a network's forward; "" where it has none."""
    named = (part.name for part in inspect.signature(network.forward).parameters.values() if part.kind in _BY_NAME)
    return next(named, "")


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
