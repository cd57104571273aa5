"""A model from ``module:factory``: the user's own Python, found from the current folder."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from signstep.errors import InputError, LoadError, SignstepError
from signstep.frames import named, place
from signstep.importing import current_folder_importable, imported_object, split
from signstep.io.files import refuse_unwritable
from signstep.model.declaration import Model
from signstep.model.opening.adopting import adopted, asks_for_inputs, finished, module_from
from signstep.model.opening.hashing import file_hash
from signstep.model.opening.opener import Opener, Wanted
from signstep.model.opening.sources import code_hash, source_files
from signstep.model.opening.weights import load_weights


def build(spec: str, args: Mapping[str, object]) -> Model:
    """The model that a factory returns, or that a name stands for.

    The current folder can be imported from, as with ``python -m``. Initial weights are drawn with seed 0, and the
    global random state is left as it was.

    Args:
        spec: "package.module:name", where the name is a function or class that makes a model, or a model: an
            ``nn.Module``, a victim (`signstep.model.victims`), a scikit-learn estimator, an `ss.Model`.
        args: Keyword arguments for the factory.

    Raises:
        InputError: If the spec or the arguments do not fit, or what came is no model.
        LoadError: If the user's code fails.
    """
    return adopted(made(spec, args), spec)


def made(spec: str, args: Mapping[str, object], finished: Callable[[object], bool] = finished) -> object:
    """What a factory returns, or what a name stands for where that is ``finished``, as it is.

    Raises:
        InputError: If the spec or the arguments do not fit.
        LoadError: If the user's code fails.
    """
    with current_folder_importable(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        found = imported_object(spec)
        if finished(found):
            if args:
                raise InputError(
                    f"{spec} is a finished model and takes no arguments, got {_shown(args)}", remedy="leave them out"
                )
            return found
        if not callable(found):
            raise InputError(
                f"{spec} is a {type(found).__name__}", remedy="name a function or class that returns an nn.Module"
            )
        return _call(found, args, spec)


def opened(wanted: Wanted) -> Model:
    """The row's model, with the hash of the code behind it, and of the weights where they come from a file."""
    model = build(wanted.spec, wanted.args)
    code = code_hash(source_files(split(wanted.spec)[0], model.network))
    hashes = {**({} if code is None else {"code": code}), **model.hashes}
    if wanted.weights is None:
        made = isinstance(model.network, nn.Module) and "weights" not in hashes
        said = ("no file of weights given: the model is as the factory made it",) if made else ()
        return replace(model, name=model.name or wanted.spec, hashes=hashes, notes=(*model.notes, *said))
    path = wanted.weights
    refuse_unwritable(path, "the name of the weights file")
    notes = load_weights(module_from(model, wanted.spec, path), path)
    hashes |= {"weights": file_hash(path)}
    name = f"{model.name or wanted.spec} with {path}"
    return replace(model, name=name, hashes=hashes, notes=(*model.notes, *notes))


ROW = Opener(
    "factory",
    "your own Python: a function, a class or a finished model, found from the current folder",
    "module:factory",
    opened,
    weights=True,
    args="of the function",
)


def _call(factory: Callable[..., object], args: Mapping[str, object], spec: str) -> object:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        try:
            signature.bind(**args)
        except TypeError as error:
            remedy = "pass what it takes"
            if not args and asks_for_inputs(factory):
                remedy += (
                    "; if it answers inputs itself, name a function that returns it, or that returns "
                    "signstep.model.victims.from_numpy of it where it works on arrays"
                )
            raise InputError(f"{spec} takes {signature}, got {_shown(args)} ({error})", remedy=remedy) from error
    try:
        torch.default_generator.manual_seed(0)  # again: the import may have drawn, and happens only once
        return factory(**args)
    except SignstepError as error:
        raise error if error.where else error.within(spec) from error  # its arguments are the factory's own
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        said = f"{spec} raised {named(error)}; called with {_shown(args)}"
        raise LoadError(said, remedy=f"fix it there{place(error)}") from error


def _shown(args: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items()) or "no arguments"
