"""Backward passes of somebody's own, set aside: a `torch.autograd.Function` is differentiated by what it computes.

PyTorch believes the ``backward`` of a custom function without a check: one that gives zeros, noise or the other sign
hides the gradient, whatever its forward pass does. While `watching`, the forward pass of every such function is
recorded as if it stood in the model itself, and what comes out is handed on beside the function's own result.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# Theirs are tested against finite differences, or are likenesses that the user named.
_TRUSTED = ("torch.", "signstep.")

Tell = Callable[[str, Tensor, Tensor], None]

_LOCK = threading.Lock()
# Functions that are watched, with the forward pass of their own and how many watch: it is put back by the last.
_WATCHED: dict[Any, tuple[Any, int]] = {}


class _Told(threading.local):
    """Who is told of what runs in this thread, the innermost last."""

    def __init__(self) -> None:
        self.tells: list[Tell] = []


_TOLD = _Told()


@contextmanager
def watching(tell: Tell) -> Iterator[None]:
    """Call ``tell(name, out, derived)`` for each tensor that a custom function makes of tensors with a gradient.

    ``out`` (...) is the tensor that the model goes on with, ``derived`` (...) the same numbers, whose gradient is that
    of the forward pass. What runs in other threads is not told. What the forward pass does outside of torch is not
    derived: the function's own backward pass stays.
    """
    kinds = list(_own())
    with _LOCK:
        for kind in kinds:
            own, count = _WATCHED.get(kind, (kind.__dict__["forward"], 0))
            _WATCHED[kind] = own, count + 1
            if not count:
                kind.forward = staticmethod(_recording(kind.__name__, kind.forward))
    _TOLD.tells.append(tell)
    try:
        yield
    finally:
        _TOLD.tells.remove(tell)
        with _LOCK:
            for kind in kinds:
                own, count = _WATCHED.pop(kind)
                if count > 1:
                    _WATCHED[kind] = own, count - 1
                else:
                    kind.forward = own


def _recording(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    def recorded(*args: Any) -> Any:
        given = [part for part in args if isinstance(part, Tensor)]
        if not _TOLD.tells or not any(part.requires_grad for part in given):
            return forward(*args)
        versions = [_version(part) for part in given]
        try:
            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(_copied, _as_it_is):
                out = forward(*args)
        except Exception:
            # Written for being run without gradients: a result written into a tensor, say. Not once more where numbers
            # of its caller's were overwritten before.
            if versions != [_version(part) for part in given]:
                raise
            return forward(*args)
        # As they are: who watches torch may take what came from outside of it for something else.
        with torch.enable_grad(), torch._C.DisableTorchFunction():
            for part in out if isinstance(out, tuple) else (out,):
                if not isinstance(part, Tensor) or any(part is other for other in given):
                    continue
                if part.is_floating_point() and part.requires_grad:
                    _TOLD.tells[-1](name, part, part.clone())
        return out

    return recorded


def _copied(part: Tensor) -> Tensor:
    """What is kept for a gradient: without gradients a forward pass may overwrite it later."""
    with torch._C.DisableTorchFunction():
        return part.detach().clone()


def _as_it_is(part: Tensor) -> Tensor:
    return part


def _version(part: Tensor) -> int:
    return 0 if part.is_inference() else part._version


def _own(of: Any = torch.autograd.Function) -> Iterator[Any]:
    """Classes of custom functions that have a forward pass of their own and come neither with torch nor with us."""
    for kind in of.__subclasses__():
        if not kind.__module__.startswith(_TRUSTED) and "forward" in kind.__dict__:
            yield kind
        yield from _own(kind)
