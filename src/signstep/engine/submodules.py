"""The modules that a callable holds: registered, in closures, attributes, containers, globals that its code names."""

import functools
import sys
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# A wrapper may hold a whole training run; what lies beyond so many objects is met when it runs (`untouched`).
_MOST = 50_000
_ATOMS = (type(None), bool, int, float, complex, str, bytes, Tensor, torch.dtype, torch.device, torch.Size, type(...))
_CONTAINERS = (list, tuple, set, frozenset, deque)
# Code of these names no module of the user's.
# An assertion in a file of tests names a module of pytest, by which all of the session would be reached.
_TESTING = {"pytest", "_pytest", "pluggy"}
_LIBRARIES = frozenset(sys.stdlib_module_names) | {"torch", "torchvision", "numpy", "scipy", "signstep"} | _TESTING
_OWN = frozenset(vars(nn.Module())) - {"_forward_hooks", "_forward_pre_hooks"}


@dataclass(frozen=True)
class Reached:
    """What was found.

    Attributes:
        modules: each once; a module stands before its parts.
        compiled: whether ``torch.compile`` made one of the functions or modules (what it is told to leave alone has the
            same mark and one more).
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
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, nn.Module):
            found[id(thing)] = thing
        named = _attributes(thing)
        compiled |= "_orig_mod" in named or (
            "_torchdynamo_orig_callable" in named and "_torchdynamo_disable" not in named
        )
        # The many numbers and names that modules are made of are not even put in line.
        waiting.extend(part for part in _parts(thing, named) if not isinstance(part, _ATOMS) and not _is_plain(part))
    return Reached(tuple(found.values()), compiled)


# What stands for something else, and how to come to it.
_BEHIND: dict[type, Callable[[Any], tuple[object, ...]]] = {
    types.MethodType: lambda method: (method.__self__, method.__func__),
    functools.partial: lambda partial: (partial.func, partial.args, partial.keywords),
    staticmethod: lambda method: (method.__func__,),
    classmethod: lambda method: (method.__func__,),
    property: lambda attribute: (attribute.fget,),
    weakref.ref: lambda reference: (reference(),),
    weakref.WeakMethod: lambda reference: (reference(),),
}


def _parts(thing: Any, named: dict[str, Any]) -> Iterator[object]:
    if isinstance(thing, nn.Module):
        yield from thing._modules.values()
        for name, value in named.items():
            if name not in _OWN:
                yield value
        yield type(thing)
    elif isinstance(thing, dict):
        yield from thing.values()
        yield from named.values()
    elif isinstance(thing, _CONTAINERS):
        yield from thing
        yield from named.values()
    elif isinstance(thing, types.FunctionType):
        yield from _of_function(thing)
    elif (held := _BEHIND.get(type(thing))) is not None:
        yield from held(thing)
    elif isinstance(thing, type):
        if not _is_library(thing):
            yield from vars(thing).values()
            yield from thing.__mro__[1:]
    elif not isinstance(thing, types.ModuleType):
        yield from named.values()
        yield from _slots(thing)
        yield type(thing)


def _is_plain(part: object) -> bool:
    """Whether it is empty, or a short tuple of numbers, such as the stride of a convolution."""
    kind = type(part)
    if kind is tuple and len(part) <= 4:  # type: ignore[arg-type]
        return all(isinstance(one, _ATOMS) for one in part)  # type: ignore[attr-defined]
    return kind in (dict, list, OrderedDict) and not part


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
