"""A model from ``module:factory``: the user's own Python, found from the current folder."""

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import nn

from signstep.errors import InputError, LoadError, SignstepError
from signstep.frames import named, place
from signstep.importing import current_folder_importable, imported_object, split


def build(spec: str, args: Mapping[str, object]) -> nn.Module:
    """Call the factory that ``spec`` names, or return the module that it names.

    The current folder can be imported from, as with ``python -m``. Initial weights are drawn with seed 0, and the
    global random state is left as it was.

    Args:
        spec: "package.module:name", where the name is a function, a class or an ``nn.Module`` that exists already.
        args: Keyword arguments for the factory.

    Raises:
        InputError: If the spec or the arguments do not fit.
        LoadError: If the user's code fails or gives something else than a model.
    """
    with current_folder_importable(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        found = imported_object(spec)
        if isinstance(found, nn.Module):
            if args:
                raise InputError(
                    f"{spec} is a finished model and takes no arguments, got {_shown(args)}: leave them out"
                )
            return found
        if not callable(found):
            raise InputError(f"{spec} is a {type(found).__name__}: name a function or class that returns an nn.Module")
        model = _call(found, args, spec)
    if not isinstance(model, nn.Module):
        raise InputError(f"{spec} returned a {type(model).__name__}: the factory must return a torch.nn.Module")
    return model


def module_of(spec: str) -> str:
    """The module that a spec names.

    Raises:
        InputError: If the spec does not fit.
    """
    return split(spec)[0]


def _call(factory: Callable[..., object], args: Mapping[str, object], spec: str) -> object:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        try:
            signature.bind(**args)
        except TypeError as error:
            raise InputError(f"{spec} takes {signature}, got {_shown(args)} ({error}): pass what it takes") from error
    try:
        torch.default_generator.manual_seed(0)  # again: the import may have drawn, and happens only once
        return factory(**args)
    except (SignstepError, KeyboardInterrupt):
        raise
    except BaseException as error:
        said = f"{spec} raised {named(error)}; called with {_shown(args)}, fix it there{place(error)}"
        raise LoadError(said) from error


def _shown(args: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items()) or "no arguments"
