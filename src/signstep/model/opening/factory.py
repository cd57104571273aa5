"""A model from ``module:factory``: the user's own Python, found from the current folder."""

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from signstep.engine.origin import named, place
from signstep.errors import InputError, LoadError, SignstepError


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
    module_name, name = _split(spec)
    with _current_folder_importable(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        found = _attribute(_import(module_name), name, spec)
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
    return _split(spec)[0]


def _split(spec: str) -> tuple[str, str]:
    module_name, _, name = spec.partition(":")
    if not name.isidentifier():
        raise InputError(f"a model is written module:factory, e.g. my_model:build, got {spec!r}")
    if "/" in module_name or "\\" in module_name or module_name.endswith(".py"):
        dotted = ".".join(part for part in Path(module_name).with_suffix("").parts if part not in ("/", "."))
        raise InputError(f"name the module as Python imports it, e.g. {dotted}:{name}, got {spec!r}")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise InputError(f"a model is written module:factory, e.g. my_model:build, got {spec!r}")
    return module_name, name


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise InputError(
                f"there is no module {missing} to import from {Path.cwd()}{_near_modules(missing)}"
            ) from error
        raise LoadError(f"the module {name} imports {missing}, which is not installed: install it first") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() in a script must not end this process as if all were well
        raise LoadError(f"importing {name} failed with {named(error)}; fix it there{place(error)}") from error


def _near_modules(missing: str) -> str:
    here = [path.stem for path in Path.cwd().iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    near = difflib.get_close_matches(missing, here, n=3)
    return f": did you mean {' or '.join(near)}?" if near else ": run from the folder that holds it, or install it"


def _attribute(module: ModuleType, name: str, spec: str) -> object:
    if hasattr(module, name):
        found: object = getattr(module, name)
        return found
    public = [key for key, value in vars(module).items() if not key.startswith("_") and callable(value)]
    near = difflib.get_close_matches(name, public, n=3)
    own = [key for key in public if getattr(vars(module)[key], "__module__", None) == module.__name__]
    hint = f"did you mean {' or '.join(near)}?" if near else f"it defines {', '.join(own[:8]) or 'no factory'}"
    raise InputError(f"{spec}: the module {module.__name__} has no {name}: {hint}")


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


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
