"""Stand-ins found while a model runs: steps that round, compare, pick, detach or leave torch lend another's gradient.

The forward pass is the model's own, value by value. Backwards a step without a gradient is passed as another one:

    round, floor, ceil, trunc, casts to integers   the identity
    x > t, sign, heaviside                          sigmoid or tanh of (x - t) / its mean size in the row
    argmax, max, min, topk as indices               a softmax, where they are made one-hot or look up a table
    detach(), .data, no_grad()                      as if they were not there
    NumPy, Pillow, other programs                   the identity, where what comes back has the shape of what went out
    functions with a backward pass of their own     what their forward pass computes (`attacks.own_backward`)
    hooks on gradients                              as if they were not there

Source: backward pass differentiable approximation, Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 4.1.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from signstep.attacks.own_backward import watching
from signstep.engine.batch_invariant import row_sum, sigmoid
from signstep.engine.tree import per_row
from signstep.frames import HERE, NOBODY, rank

_SHARP = 4.0  # of a soft comparison: the slope is that many times 1 / (mean distance from the threshold)


class Crossing(NamedTuple):
    """A step that no gradient passes: its name, the module that it stands in, and file and line of the user's code."""

    step: str
    module: str
    place: str

    def __str__(self) -> str:
        inside = f" in {self.module}" if self.module else ""
        return f"{self.step}{inside}{f' ({self.place})' if self.place else ''}"


class StandIns(TorchFunctionMode):
    """While active, what has no gradient is computed exactly and differentiated as another step.

    Attributes:
        crossings: the steps that were met, in their order, each once.
        soft: how rounding is passed: False for the identity, True for a staircase whose steps are rounded off.
    """

    def __init__(self, *, soft: bool = False, names: dict[int, str] | None = None) -> None:
        super().__init__()
        self.soft = soft
        self.crossings: dict[Crossing, None] = {}
        self._names = names or {}
        self._inside: list[str] = []
        # By id, with the tensor itself, so that no id is given away while this lasts.
        self._likeness: dict[int, tuple[Tensor, Tensor]] = {}
        self._members: dict[int, tuple[Tensor, Tensor]] = {}
        self._known: dict[int, Tensor] = {}
        self._lost: list[Tensor] = []
        self._derived: dict[int, tuple[Tensor, Tensor]] = {}
        self._hooks: list[Any] = []
        self._watching: Any = None

    def __enter__(self) -> "StandIns":
        if self._names:
            self._hooks = [
                nn.modules.module.register_module_forward_pre_hook(self._goes_in),
                nn.modules.module.register_module_forward_hook(self._comes_out, always_call=True),
            ]
        self._watching = watching(self._tells)
        self._watching.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._watching.__exit__(*error)

    def _goes_in(self, module: nn.Module, _: Any) -> None:
        self._inside.append(self._names.get(id(module), ""))

    def _comes_out(self, *_: Any) -> None:
        if self._inside:
            self._inside.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is torch._C._set_grad_enabled:  # no_grad() itself: below it would be put back at once
            return func(*args, **named)
        if not torch.is_grad_enabled() and any(part.requires_grad for part in _tensors(args)):
            self.met("no_grad()")
        if named.get("out") is not None:  # no gradient passes into a tensor that is there already
            return func(*args, **named)
        with torch.enable_grad():
            if self._derived:
                args = _mapped(args, self.derived)
                named = {name: self.derived(part) if isinstance(part, Tensor) else part for name, part in named.items()}
            if self._lost:
                args = self._reconnected(func, args)
            rule = _RULES.get(func)
            if rule is not None and args and isinstance(args[0], Tensor):
                return rule(self, func, *args, **named)
            carriers = [part for part in _tensors(args) if id(part) in self._likeness]
            if carriers:
                return self._carried(func, args, named)
            out = func(*args, **named)
        if self._lost and func not in _FROM_OUTSIDE and isinstance(out, Tensor) and not self._strange(args):
            self._known[id(out)] = out
        return out

    # What rules use.

    def met(self, step: str) -> None:
        """A step without a gradient stands in the way of one."""
        module = next((name for name in reversed(self._inside) if name), "")
        self.crossings.setdefault(Crossing(step, module, _place()))

    def likened(self, hard: Tensor, soft: Tensor) -> Tensor:
        """Numbers that are no floating point, which stand for these."""
        self._likeness[id(hard)] = (hard, soft)
        return hard

    def likeness(self, part: Tensor) -> Tensor | None:
        """The floating numbers that whole ones or truth values stand for."""
        found = self._likeness.get(id(part))
        return None if found is None else found[1]

    def belongs(self, index: Tensor, shares: Tensor) -> Tensor:
        """Indices (...) that were picked by size, with the share (..., M) of each candidate."""
        self._members[id(index)] = (index, shares)
        return index

    def shares(self, index: object) -> Tensor | None:
        """The share of each candidate, of an index that was picked by size."""
        found = self._members.get(id(index))
        return None if found is None else found[1]

    def leaves(self, part: Tensor) -> None:
        """Numbers leave torch here, and may come back."""
        self._lost.append(part)

    def derived(self, part: Tensor) -> Tensor:
        """A tensor as its makers computed it, whatever the backward pass of their own says; itself for others."""
        found = self._derived.get(id(part))
        return part if found is None else found[1]

    # Between the rules.

    def _tells(self, name: str, out: Tensor, derived: Tensor) -> None:
        self.met(f"the backward pass of {name}")
        self._derived[id(out)] = (out, derived)

    def _carried(self, func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """A step on numbers that stand for others: computed as it is, differentiated as on those others."""
        out = func(*args, **named)
        if not isinstance(out, Tensor):
            return out
        try:
            if out.is_floating_point():
                like = func(*_mapped(args, self._as_floating), **named)
            else:
                like = func(*_mapped(args, lambda part: _or(self.likeness(part), part)), **named)
        except (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError):
            return out  # they are no numbers there but places
        if not isinstance(like, Tensor) or like.shape != out.shape or not like.requires_grad:
            return out
        return lend(out, like) if out.is_floating_point() else self.likened(out, like)

    def _as_floating(self, part: Tensor) -> Tensor:
        like = self.likeness(part)
        return part if like is None else lend(part.to(like.dtype), like)

    def _strange(self, args: Sequence[Any]) -> bool:
        """Whether a step works on numbers that came from outside of torch."""
        return any(self._from_outside(part) for part in _tensors(args))

    def _from_outside(self, part: Tensor) -> bool:
        return not part.requires_grad and not isinstance(part, nn.Parameter) and id(part) not in self._known

    def _reconnected(self, func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Numbers that left torch and came back in the same shape are taken for nearly what they were."""

        def mend(part: Tensor) -> Tensor:
            if not part.is_floating_point() or part.ndim < 2 or not self._from_outside(part):
                return part
            origin = next((old for old in reversed(self._lost) if old.shape == part.shape), None)
            return part if origin is None else lend(part, origin)

        return args if func in _FROM_OUTSIDE or func in _LEAVING else _mapped(args, mend)


class _Lent(torch.autograd.Function):
    """The values of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx: Any, hard: Tensor, soft: Tensor) -> Tensor:
        ctx.dtype = soft.dtype
        return hard.detach().clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, gradients[0].to(ctx.dtype)


def lend(hard: Tensor, soft: Tensor) -> Tensor:
    """``hard`` (...), floating point, whose gradient goes to ``soft`` (...)."""
    found: Tensor = _Lent.apply(hard, soft)  # type: ignore[no-untyped-call]
    return found


# The rules: (mode, function, the arguments as they were given).

Rule = Callable[..., Any]


def _rounded(mode: StandIns, func: Any, x: Tensor, *args: Any, **named: Any) -> Any:
    if not x.requires_grad:
        return func(x, *args, **named)
    mode.met(_called(func))
    like = x - torch.sin(2 * torch.pi * x) / (2 * torch.pi) if mode.soft else x
    return lend(func(x.detach(), *args, **named), like)


def _signed(mode: StandIns, func: Any, x: Tensor, *args: Any, **named: Any) -> Any:
    if not x.requires_grad:
        return func(x, *args, **named)
    mode.met(_called(func))
    return lend(func(x.detach(), *args, **named), 2 * sigmoid(2 * x * _steep(x)) - 1)


def _compared(sign: int) -> Rule:
    def rule(mode: StandIns, func: Any, x: Tensor, other: Any, *args: Any, **named: Any) -> Any:
        out = func(x, other, *args, **named)
        follows = isinstance(other, Tensor) and other.requires_grad
        if not isinstance(out, Tensor) or out.dtype != torch.bool or not (x.requires_grad or follows):
            return out
        mode.met("a comparison")
        gap = sign * (x - other)
        return mode.likened(out, sigmoid(gap * _steep(gap)))

    return rule


def _picked(sign: int) -> Rule:
    """argmax, argmin, and max, min, topk, sort along a dimension."""

    def rule(mode: StandIns, func: Any, x: Tensor, *args: Any, **named: Any) -> Any:
        out = func(x, *args, **named)
        index = out if isinstance(out, Tensor) else getattr(out, "indices", None)
        follows = x.requires_grad and x.ndim > 0
        if not isinstance(index, Tensor) or index.is_floating_point() or not follows or index.ndim == 0:
            return out
        dim = _dimension(x, index)
        if dim is None:
            return out
        if isinstance(out, Tensor):
            mode.met(_called(func))
        smallest = sign * (-1 if named.get("largest") is False or (len(args) > 2 and args[2] is False) else 1)
        scores = smallest * x.movedim(dim, -1)
        share = torch.softmax(scores * _steep(scores), -1)
        if index.ndim == x.ndim:  # several along the dimension, or keepdim
            share = share.unsqueeze(dim).expand(*index.shape, x.shape[dim])
        mode.belongs(index, share)
        return out

    return rule


def _one_hot(mode: StandIns, func: Any, index: Tensor, *args: Any, **named: Any) -> Any:
    out = func(index, *args, **named)
    share = mode.shares(index)
    if share is None or share.shape[-1] > out.shape[-1]:
        return out
    return mode.likened(out, functional.pad(share, (0, out.shape[-1] - share.shape[-1])))


def _looked_up(mode: StandIns, func: Any, table: Tensor, index: Any, *args: Any, **named: Any) -> Any:
    out = func(table, index, *args, **named)
    share = mode.shares(index)
    if share is None or not isinstance(out, Tensor) or len(table) != share.shape[-1]:
        return out
    if out.is_floating_point():
        mode.met("a look-up")
        return lend(out, torch.tensordot(share.to(table.dtype), table, dims=1))
    if table.ndim == 1 and int(table.min()) >= 0:
        kinds = functional.one_hot(table.long()).to(share.dtype)
        mode.met("a look-up")
        return mode.belongs(out, share @ kinds)
    return out


def _embedded(mode: StandIns, func: Any, index: Tensor, table: Tensor, *args: Any, **named: Any) -> Any:
    out = func(index, table, *args, **named)
    share = mode.shares(index)
    if share is None or share.shape[-1] != len(table):
        return out
    return lend(out, share.to(table.dtype) @ table)


def _cast(mode: StandIns, func: Any, x: Tensor, *args: Any, **named: Any) -> Any:
    out = func(x, *args, **named)
    if not isinstance(out, Tensor):
        return out
    like = mode.likeness(x)
    if like is not None:
        return lend(out, like.to(out.dtype)) if out.is_floating_point() else mode.likened(out, like)
    if (share := mode.shares(x)) is not None:
        return mode.belongs(out, share)
    if x.requires_grad and x.is_floating_point() and not out.is_floating_point() and not out.is_complex():
        mode.met(f"a cast to {str(out.dtype).removeprefix('torch.')}")
        return mode.likened(out, x)
    if mode._from_outside(x) and out is not x:
        return out
    if mode._lost:
        mode._known[id(out)] = out
    return out


def _chosen(mode: StandIns, func: Any, condition: Tensor, *args: Any, **named: Any) -> Any:
    """torch.where(condition, a, b)."""
    out = func(condition, *args, **named)
    like = mode.likeness(condition)
    if like is None or len(args) != 2 or not isinstance(out, Tensor) or not out.is_floating_point():
        return out
    share = lend(condition.to(like.dtype), like)
    mixed = share * args[0] + (1 - share) * args[1]
    return lend(out, mixed.to(out.dtype)) if mixed.shape == out.shape and mixed.requires_grad else out


def _negated(mode: StandIns, func: Any, x: Tensor, *args: Any, **named: Any) -> Any:
    out = func(x, *args, **named)
    like = mode.likeness(x)
    return out if like is None else mode.likened(out, 1 - like)


def _detached(mode: StandIns, func: Any, x: Tensor, *args: Any, **named: Any) -> Any:
    if not x.requires_grad:
        return func(x, *args, **named)
    mode.met("detach()")
    return x.clone()


def _left(mode: StandIns, func: Any, x: Tensor, *args: Any, **named: Any) -> Any:
    if not x.requires_grad:
        return func(x, *args, **named)
    mode.met("NumPy")
    mode.leaves(x)
    return func(x.detach(), *args, **named)


def _hooked(mode: StandIns, func: Any, x: Tensor, *args: Any, **named: Any) -> Any:
    if not x.requires_grad:
        return func(x, *args, **named)
    mode.met("a hook on gradients")
    return RemovableHandle(OrderedDict())


def _of(*names: str) -> tuple[Any, ...]:
    """Functions of torch, and methods of tensors, by these names."""
    found = [getattr(owner, name, None) for name in names for owner in (torch, Tensor)]
    return tuple(function for function in found if callable(function))


_FROM_OUTSIDE = frozenset((torch.from_numpy, torch.tensor, torch.as_tensor, torch.frombuffer, torch.asarray))
_LEAVING = frozenset((Tensor.numpy, Tensor.__array__, Tensor.tolist))

_RULES: dict[Any, Rule] = {
    **dict.fromkeys(_of("round", "floor", "ceil", "trunc", "fix"), _rounded),
    **dict.fromkeys(_of("sign", "sgn", "heaviside"), _signed),
    **dict.fromkeys(_of("gt", "ge", "greater", "greater_equal"), _compared(1)),
    **dict.fromkeys((Tensor.__gt__, Tensor.__ge__), _compared(1)),
    **dict.fromkeys(_of("lt", "le", "less", "less_equal"), _compared(-1)),
    **dict.fromkeys((Tensor.__lt__, Tensor.__le__), _compared(-1)),
    **dict.fromkeys(_of("argmax", "max", "topk"), _picked(1)),
    **dict.fromkeys(_of("argmin", "min"), _picked(-1)),
    functional.one_hot: _one_hot,
    Tensor.__getitem__: _looked_up,
    functional.embedding: _embedded,
    **dict.fromkeys(
        (Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.to, Tensor.type, Tensor.type_as), _cast
    ),
    **dict.fromkeys((Tensor.long, Tensor.int, Tensor.short, Tensor.char, Tensor.byte, Tensor.bool), _cast),
    torch.where: _chosen,
    **dict.fromkeys(_of("logical_not", "bitwise_not"), _negated),
    Tensor.__invert__: _negated,
    **dict.fromkeys(_of("detach"), _detached),
    Tensor.data.__get__: _detached,  # type: ignore[attr-defined]
    **dict.fromkeys(_LEAVING, _left),
    Tensor.register_hook: _hooked,
}


def _steep(gap: Tensor) -> Tensor:
    """The slope (R, 1, ...) of a soft step on values (R, ...): by their mean size in the row."""
    if gap.ndim == 0:
        return _SHARP / gap.detach().abs().clamp_min(torch.finfo(gap.dtype).tiny)
    flat = gap.detach().abs()
    mean = row_sum(torch.nan_to_num(flat, 0.0, 0.0, 0.0)) / max(1, flat[0].numel())
    return per_row(_SHARP / mean.clamp_min(torch.finfo(torch.float32).tiny), gap)


def _dimension(x: Tensor, index: Tensor) -> int | None:
    """The dimension along which an index was picked; None where that cannot be told."""
    if index.ndim == x.ndim:
        found = [dim for dim in range(x.ndim) if index.shape[dim] != x.shape[dim]]
        return found[0] if len(found) == 1 else x.ndim - 1 if not found else None
    if index.ndim != x.ndim - 1:
        return None
    shapes = (tuple(size for place, size in enumerate(x.shape) if place != dim) for dim in reversed(range(x.ndim)))
    fits = [x.ndim - 1 - number for number, shape in enumerate(shapes) if shape == tuple(index.shape)]
    return fits[0] if fits else None


def _tensors(args: Any) -> Iterator[Tensor]:
    for part in args:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, (tuple, list)):
            yield from _tensors(part)


def _mapped(args: Any, change: Callable[[Tensor], Tensor]) -> Any:
    def one(part: Any) -> Any:
        if isinstance(part, Tensor):
            return change(part)
        return type(part)(map(one, part)) if type(part) in (tuple, list) else part

    return tuple(map(one, args))


def _or(found: Tensor | None, other: Tensor) -> Tensor:
    return other if found is None else found


def _called(func: Any) -> str:
    return f"{getattr(func, '__name__', str(func)).strip('_')}()"


def _place() -> str:
    """File and line of the user's code that is running: the innermost of the model's own frames."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(HERE):
        frame = frame.f_back  # type: ignore[assignment]
    best = (NOBODY, "")
    while frame is not None and not frame.f_code.co_filename.startswith(HERE):
        file = frame.f_code.co_filename
        if rank(file) < best[0]:
            best = (rank(file), f"{file.rpartition('/')[2]}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return best[1]
