"""The softmax or sigmoid that a model ends in, found while it runs, so that the logits behind it can be searched.

What a head gave is only the model's answer as long as nobody has changed it. `HeadWatch` remembers the last head of a
pass and follows its values through operations that move them and change none (a view, a squeeze, a copy, a wider
dtype); the same operations bring the logits into the same shape. `HeadWatch.behind` then gives the logits if the answer
is the head's output to the last bit:

- it is one of the tensors that were followed, or shares its memory and layout;
- neither it nor the logits have been written to since (tensors count that), whatever was written: what one row holds
  must not decide how another is searched;
- the head, run once more on its input, gives these values: writes through NumPy or ``.data`` are not counted. This
  costs a pass of the head, and is looked at until it has come out well once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SOFTMAX = {torch.softmax, torch.nn.functional.softmax, torch.special.softmax, Tensor.softmax}
_SIGMOID = {torch.sigmoid, torch.special.expit, Tensor.sigmoid, torch.nn.functional.sigmoid}

# Operations that keep every value, whose arguments mean the same for another tensor of the same shape.
_MOVES = {
    Tensor.__getitem__,
    Tensor.view,
    Tensor.view_as,
    Tensor.reshape,
    Tensor.reshape_as,
    Tensor.flatten,
    Tensor.unflatten,
    Tensor.squeeze,
    Tensor.unsqueeze,
    Tensor.transpose,
    Tensor.permute,
    Tensor.movedim,
    Tensor.contiguous,
    Tensor.clone,
    Tensor.to,
    Tensor.type_as,
    Tensor.float,
    Tensor.double,
    Tensor.cpu,
    Tensor.cuda,
    Tensor.t,
    Tensor.T.__get__,  # type: ignore[attr-defined]
    torch.reshape,
    torch.flatten,
    torch.unflatten,
    torch.squeeze,
    torch.unsqueeze,
    torch.transpose,
    torch.permute,
    torch.movedim,
    torch.clone,
    torch.t,
}

# The same values without a path for gradients: the logits keep theirs.
_CUTS = {Tensor.detach, torch.detach, Tensor.data.__get__}  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Head:
    """A call of a softmax or sigmoid, which can be made again as long as its input is as it was."""

    func: Callable[..., Tensor]
    inside: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    autocast: tuple[str, bool, torch.dtype]
    writes: int | None

    @classmethod
    def of(cls, func: Callable[..., Tensor], inside: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "_Head":
        return cls(func, inside, args, kwargs, _autocast(inside.device.type), _writes(inside))

    @property
    def softmax(self) -> bool:
        return self.func in _SOFTMAX

    def again(self) -> Tensor:
        """What it gives, in the precision that it ran in."""
        if self.autocast == _autocast(self.autocast[0]):
            return self.func(self.inside, *self.args, **self.kwargs)
        device, enabled, dtype = self.autocast
        with torch.autocast(device, dtype=dtype, enabled=enabled):
            return self.func(self.inside, *self.args, **self.kwargs)


@dataclass(frozen=True)
class _Seen:
    """The values of a head at one place in the model.

    ``out`` holds them, ``inside`` the logits in the same order; ``moves`` are the operations that led here.
    """

    head: _Head
    out: Tensor
    inside: Tensor
    moves: tuple[Callable[[Tensor], Tensor], ...]
    writes: tuple[int | None, int | None]

    @classmethod
    def of(cls, head: _Head, out: Tensor, inside: Tensor, moves: tuple[Callable[[Tensor], Tensor], ...]) -> "_Seen":
        return cls(head, out, inside, moves, (_writes(out), _writes(inside)))

    def kept(self) -> bool:
        """Whether nothing has written into these values, their logits or the input of the head since."""
        now = (_writes(self.out), _writes(self.inside))
        return self.writes == now and self.head.writes == _writes(self.head.inside)

    def overwritten(self) -> bool:
        """Whether something has written into the values themselves."""
        return self.writes[0] != _writes(self.out)

    def holds(self, raw: Tensor) -> bool:
        """Whether ``raw`` is this tensor, or the same memory in the same order."""
        if raw is self.out:
            return True
        if raw.dtype != self.out.dtype or raw.device != self.out.device or not 0 < raw.numel() == self.out.numel():
            return False
        return raw.is_contiguous() and self.out.is_contiguous() and raw.data_ptr() == self.out.data_ptr()

    def again(self) -> Tensor:
        """What ``out`` should hold."""
        values = self.head.again()
        for move in self.moves:
            values = move(values)
        return values


class HeadWatch(TorchFunctionMode):
    """Remembers the last softmax or sigmoid of a pass, and where its values went.

    Args:
        spare: hand the model a copy of what a head gives. A model that writes into it cannot be differentiated
            otherwise: the head's own derivative is computed from its output.
    """

    def __init__(self, *, spare: bool = False) -> None:
        super().__init__()
        self._spare = spare
        self._seen: list[_Seen] = []

    @property
    def overwritten(self) -> bool:
        """Whether the model has written into what its last head gave."""
        return bool(self._seen) and self._seen[0].overwritten()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in _SOFTMAX or func in _SIGMOID:
            out = out.clone() if self._spare and isinstance(out, Tensor) and "out" not in kwargs else out
            self._met(func, args, kwargs, out)
        elif self._seen and (func in _MOVES or func in _CUTS):
            self._follow(func, args, kwargs, out)
        return out

    def behind(self, raw: Tensor, *, proved: bool = False) -> Tensor | None:
        """The logits that became ``raw``, in its shape, if ``raw`` is the output of the head unchanged.

        ``proved``: an earlier pass of this model has shown that the values agree; they are not compared once more.
        """
        found = next((seen for seen in reversed(self._seen) if seen.holds(raw)), None)
        if found is None or not found.kept() or not (proved or _agrees(found, raw)):
            return None
        return found.inside.reshape(raw.shape)

    def _met(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        inside = args[0] if args else kwargs.get("input")
        if _followable(inside) and _followable(out):
            rest = {name: value for name, value in kwargs.items() if name not in ("input", "out")}
            self._seen = [_Seen.of(_Head.of(func, inside, args[1:], rest), out, inside, ())]

    def _follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        given = args[0] if args else kwargs.get("input")
        seen = next((seen for seen in reversed(self._seen) if seen.out is given), None)
        if seen is None or out is given or not _followable(out) or not seen.kept():
            return
        # All values must be there, and in a dtype that holds each of them.
        if out.numel() != seen.out.numel() or torch.promote_types(out.dtype, seen.out.dtype) != out.dtype:
            return
        rest = {name: value for name, value in kwargs.items() if name != "input"}
        if func is Tensor.__getitem__ and not _basic(args[1]):
            return

        def move(values: Tensor) -> Tensor:
            moved: Tensor = func(values, *args[1:], **rest)
            return moved

        inside = seen.inside if func in _CUTS else move(seen.inside)
        self._seen.append(_Seen.of(seen.head, out, inside, (*seen.moves, move)))


@torch.no_grad()
def _agrees(seen: _Seen, raw: Tensor) -> bool:
    """Whether the head, run once more, gives these values; a softmax must run over the classes, dimension 1."""
    again = seen.again().reshape(raw.shape)
    if not bool(((raw == again) | (raw.isnan() & again.isnan())).all()):
        return False
    if not seen.head.softmax:
        return True
    slack = max(1e-3, 2 * torch.finfo(raw.dtype).eps * raw.shape[1] ** 0.5) if raw.ndim > 1 else 0.0
    return raw.ndim > 1 and not bool(((raw.float().sum(1) - 1).abs() > slack).any())


def _followable(value: Any) -> TypeGuard[Tensor]:
    """Whether this is a tensor with memory of its own to compare: what lives inside torch.func.vmap has none."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(value)


def _basic(index: Any) -> bool:
    """Whether an index takes a view: no tensor, list or mask."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts)


def _writes(values: Tensor) -> int | None:
    """How often a tensor's memory was written to, as torch counts it; None where it does not (inference mode)."""
    return None if values.is_inference() else values._version


def _autocast(device: str) -> tuple[str, bool, torch.dtype]:
    if not torch.amp.is_autocast_available(device):
        return device, False, torch.float32
    return device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
