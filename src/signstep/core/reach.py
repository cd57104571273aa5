"""The modules that a callable holds: registered, in closures, attributes, containers, globals that its code names."""

import functools
import sys
import types
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# A wrapper may hold a whole training run; what lies beyond so many objects is met when it runs (`untouched`).
_MOST = 50_000
_ATOMS = (type(None), bool, int, float, complex, str, bytes, Tensor, torch.dtype, torch.device, torch.Size, type(...))
_CONTAINERS = (list, tuple, set, frozenset, deque)
# Code of these names no module of the user's.
_LIBRARIES = frozenset(sys.stdlib_module_names) | {"torch", "torchvision", "numpy", "scipy", "signstep"}
_OWN = frozenset(vars(nn.Module())) - {"_forward_hooks", "_forward_pre_hooks"}


@dataclass(frozen=True)
class Reached:
    """What was found.

    Attributes:
        modules: each once; a module stands before its parts.
        compiled: whether ``torch.compile`` made one of the functions or modules.
    """

    modules: tuple[nn.Module, ...]
    compiled: bool


def reached(root: object) -> Reached:
    """Every module that ``root`` can reach without running any code of it.

    Followed are submodules, attributes and slots of objects, classes' own attributes and methods, list, tuple, dict and
    set, closures, defaults, ``functools.partial``, bound methods, weak references, and the globals that a function's
    code names. What is found is more than what a call runs, and a call may run what cannot be found (a module made or
    looked up on the way).
    """
    found: dict[int, nn.Module] = {}
    compiled = False
    # What was seen is kept alive, so that no other object takes its address.
    seen: dict[int, object] = {}
    waiting: deque[object] = deque([root])
    for _ in range(_MOST):
        if not waiting:
            break
        thing = waiting.popleft()
        if isinstance(thing, _ATOMS) or id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, nn.Module):
            found[id(thing)] = thing
        named = _attributes(thing)
        compiled |= "_orig_mod" in named or "_torchdynamo_orig_callable" in named
        waiting.extend(_parts(thing, named))
    return Reached(tuple(found.values()), compiled)


def _parts(thing: Any, named: dict[str, Any]) -> Iterator[object]:
    if isinstance(thing, nn.Module):
        yield from thing.children()
        yield from (value for name, value in named.items() if name not in _OWN)
        yield type(thing)
    elif isinstance(thing, dict):
        yield from thing.values()
        yield from named.values()
    elif isinstance(thing, _CONTAINERS):
        yield from thing
        yield from named.values()
    elif isinstance(thing, types.FunctionType):
        yield from _of_function(thing)
    elif isinstance(thing, types.MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, functools.partial):
        yield from (thing.func, thing.args, thing.keywords)
    elif isinstance(thing, (staticmethod, classmethod)):
        yield thing.__func__
    elif isinstance(thing, property):
        yield thing.fget
    elif isinstance(thing, weakref.ref):
        yield thing()
    elif isinstance(thing, type):
        if not _is_library(thing):
            yield from vars(thing).values()
            yield from thing.__mro__[1:]
    elif not isinstance(thing, types.ModuleType):
        yield from named.values()
        yield from _slots(thing)
        yield type(thing)


def _of_function(function: types.FunctionType) -> Iterator[object]:
    yield from vars(function).values()
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    if not _is_library(function):
        names = set(_names(function.__code__))
        for name in names:
            value = function.__globals__.get(name)
            if isinstance(value, types.ModuleType):
                if value.__name__.partition(".")[0] not in _LIBRARIES:
                    yield from (part for key, part in vars(value).items() if key in names)
            else:
                yield value


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that code and the functions inside it look up."""
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _names(part)


def _is_library(thing: object) -> bool:
    return str(getattr(thing, "__module__", None) or "").partition(".")[0] in _LIBRARIES


def _attributes(thing: object) -> dict[str, Any]:
    try:
        named = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return {}
    return named if isinstance(named, dict) else {}


def _slots(thing: object) -> Iterable[object]:
    for kind in type(thing).__mro__:
        for part in list(vars(kind).values()):
            if isinstance(part, types.MemberDescriptorType):
                try:
                    yield part.__get__(thing, kind)
                except AttributeError:  # not filled
                    continue
