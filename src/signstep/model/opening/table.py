"""The table of openers, and the one place where a name or a file becomes a `Model`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from signstep.engine.origin import contained
from signstep.engine.untouched import Mode
from signstep.errors import InputError
from signstep.importing import is_spec, split
from signstep.io.files import expanded
from signstep.messages import Arg, Blank
from signstep.model.declaration import Model
from signstep.model.opening import endpoint as address
from signstep.model.opening import estimators, exported, factory, huggingface, onnx_file, vision
from signstep.model.opening.advice import advice
from signstep.model.opening.hashing import state_hash
from signstep.model.opening.opener import SPELLING, Opener, Wanted, row_of
from signstep.model.opening.weights import refuse_non_finite
from signstep.model.shapes import Shape, checked_shape, refuse_shape
from signstep.model.victims.address import Address
from signstep.registry import Registry

_FACTORY = factory.ROW
_ROWS = (
    *(_FACTORY, huggingface.ROW, vision.TORCHVISION, vision.TIMM),
    *(exported.ROW, onnx_file.ROW, estimators.SKOPS, estimators.PICKLE, address.ROW),
)

OPENERS: Registry[Opener] = Registry(
    "signstep.openers",
    SPELLING,
    row_of,
    {row.name: row for row in _ROWS},
    argument="opener",
)


@contained
def open_model(
    spec: str,
    *,
    weights: str | Path | None = None,
    args: Mapping[str, Any] | None = None,
    trust: bool = False,
    mode: Mode = "eval",
    shape: Shape = None,
    endpoint: str | Path | Mapping[str, Any] | None = None,
) -> Model:
    """Open a model by its name or path: what ``--model`` takes, and what every verb takes.

    What a spelling says about itself (mean and std, class names, the size of its inputs) is declared in the model that
    comes back. Nothing that can run code is read from files without ``trust``; a factory is the user's own code.

    Args:
        spec: "module:factory", "net.pt2", or what another row of ``signstep.model.opening.OPENERS`` takes.
        weights: a file of weights for the rows that take one: .safetensors, or whatever ``torch.save`` wrote.
        args: arguments for the rows that take some, such as those of a factory.
        trust: allow files that can run code as they are read.
        mode: "keep" leaves every submodule in the mode that it comes in, instead of evaluation mode.
        shape: of one input of the data to come, where that is known: what a file leaves open is tried with it, and a
            model that takes another is refused here.
        endpoint: of an address: a TOML file that says what it takes and answers, or the same as a mapping.

    Returns:
        An `ss.Model`, with its name, hashes and notes; ``.network`` is what is called in the end.

    Raises:
        InputError: the spelling or an argument does not fit; the message names the row that would.
        LoadError: a file, a folder or the user's module cannot be used.
        MissingExtraError: the row needs a package that is not installed.

    Example:
        >>> import signstep as ss
        >>> model = ss.open("signstep.networks.small:digits_cnn")
        >>> model.title, model.notes
        ('signstep.networks.small:digits_cnn', ('no file of weights given: the model is as the factory made it',))
    """
    if not isinstance(spec, str):
        raise InputError(
            f"spec is a {type(spec).__name__}", remedy="pass a name or a path, or ss.Model(...) of what there is"
        )
    if mode not in ("eval", "keep"):
        raise InputError(Arg("mode", mode), remedy="pass 'eval' or 'keep'")
    row = opener_of(spec)
    if row is None:
        told = advice(spec)
        if told is not None:
            raise told
        split(spec)  # raises, and says how such names are written
        raise InputError(
            f"{spec} names no model", remedy=f"write {', '.join(one.example for one in OPENERS.own.values())}"
        )
    if row is address.ROW:
        Address.of(spec)  # before its spelling is repeated in a message
    elif endpoint is not None:
        raise InputError(
            Arg("endpoint", _named(endpoint)),
            f"describes an address, and {spec} is none",
            remedy=("leave it out, or pass", Arg("model", Blank("https://HOST/PATH"), python="'https://HOST/PATH'")),
        )
    file = None if weights is None else expanded(weights)
    wanted = Wanted(spec, row.rest(spec) or spec, file, dict(args or {}), trust, mode, checked_shape(shape), endpoint)
    row.refuse(wanted)
    model = row.opens(wanted)
    if shape is not None:
        refuse_shape(model.shape, checked_shape(shape) or ())
    return _ready(model, mode, weights or spec) if isinstance(model.network, nn.Module) else model


def _named(endpoint: str | Path | Mapping[str, Any]) -> object:
    """A file by its name; what a mapping says may be secret."""
    return "{...}" if isinstance(endpoint, Mapping) else endpoint


def _ready(model: Model, mode: Mode, origin: str | Path) -> Model:
    """A module in its mode, whose weights are numbers and have a hash.

    Raises:
        LoadError: a weight is NaN or infinite.
    """
    if mode == "keep":
        model = replace(model, mode=mode)
    elif model.mode == "eval":
        model.module.eval()
    refuse_non_finite(origin, model.module.state_dict())
    digest = None if "weights" in model.hashes else state_hash(model.module)
    return model if digest is None else replace(model, hashes={**model.hashes, "weights": digest})


def opener_of(spec: str) -> Opener | None:
    """The row that takes a spelling; None where none does.

    A name of somebody else's row is tried where Signstep's own rows do not take the spelling, before it is read as
    "module:factory".
    """
    for row in OPENERS.own.values():
        if row.rest(spec) is not None:
            return row
    name, colon, _ = spec.partition(":")
    found = OPENERS.get(name) if colon else None
    if found is not None and found.rest(spec) is not None:
        return found
    if is_spec(spec):
        return _FACTORY
    return next((row for row in OPENERS.values() if row.rest(spec) is not None), None)


def is_address(spec: str) -> bool:
    """Whether a spelling is an address, which is asked."""
    return opener_of(spec) is address.ROW


def path_of(spec: str) -> Path | None:
    """The file or folder that a spelling reads; None for what is found by import, or on a hub."""
    row = opener_of(spec)
    if row is None:
        return None if ":" in spec else expanded(spec)
    if row is address.ROW:
        return None
    path = None if row is _FACTORY else expanded(row.rest(spec) or spec)
    return path if path is None or row.suffixes or path.exists() else None
