"""An independent check that attacked inputs obey the threat model.

Nothing here is shared with the attack: plain float64 arithmetic on the two inputs and the declared numbers.
import-linter keeps it that way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from signstep.errors import InputError

Sizes: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From a batch (R, ...) before and after to the size of each row's change, (R,) float64."""

KINDS = ("linf", "l2", "l1", "grouped", "l0")
"""The norms whose sizes are taken here."""


@dataclass(frozen=True, eq=False)
class Verification:
    """For each row ``ok``, the ``size`` of the change (float64) and its ``excess`` over eps; and the tolerance."""

    ok: Tensor
    size: Tensor
    excess: Tensor
    tolerance: float


@dataclass(frozen=True, eq=False)
class Terms:
    """The declared numbers of a threat model, free of the classes that the attack uses.

    Attributes:
        kind: one of `KINDS`, or the name of a norm of somebody's own, which brings its ``check``.
        axes: for "grouped" and "l0": the example axes of one group; none for "l0" of single coordinates.
        eps: radius, a number or (R,); None: no ball.
        low: lower end of the box, or None.
        high: upper end of the box, or None.
        mask: True where the input may change, or None.
        grid: number of steps across the box, or None.
        check: of a norm that is none of `KINDS`: from inputs before and after, both float64, to sizes.
    """

    kind: str
    axes: tuple[int, ...]
    eps: float | Tensor | None
    low: float | Tensor | None
    high: float | Tensor | None
    mask: Tensor | None
    grid: int | None
    check: Sizes | None = None


def verify(x: Tensor, point: Tensor, terms: Terms) -> Verification:
    """Check ``point`` (R, ...) against ball, box, mask and grid around ``x`` in float64.

    The tolerance is one unit in the last place of the box (of the largest input where there is none) in the input's
    dtype, but never more than float32's: coarser formats must round towards x. A count of changes ("l0") has none.
    """
    if point.shape != x.shape:
        raise InputError(
            f"attacked inputs have shape {tuple(point.shape)}, the clean ones {tuple(x.shape)}",
            remedy="pass two of one shape",
        )
    tolerance = _last_place(x, terms)
    device = torch.device("cpu") if x.device.type == "mps" else x.device
    after, before = point.to(device), x.to(device)
    if after.dtype not in (torch.float32, torch.float64):
        after, before = after.double(), before.double()
    change = after.double()
    change = change - before if change is after else change.sub_(before)
    size = _size(change, terms) if terms.check is None else _told(terms.check, before, after, terms.kind)
    eps = float("inf") if terms.eps is None else terms.eps
    excess = size - torch.as_tensor(eps, dtype=torch.float64, device=device)
    ok = (excess <= (0.0 if terms.kind == "l0" else tolerance)) & torch.isfinite(size)
    for end, sign in ((terms.low, 1), (terms.high, -1)):
        if end is None:
            continue
        if isinstance(end, Tensor) and end.ndim:
            inside = (sign * (after.double() - _fitted(end, x).to(device)) >= -tolerance).flatten(1).all(1)
        else:
            ends = after.flatten(1)
            inside = (ends.amin(1).double() >= float(end)) if sign > 0 else (ends.amax(1).double() <= float(end))
        ok = ok & inside
    if terms.mask is not None:
        frozen = ~_fitted(terms.mask, x).to(device)
        ok = ok & ~((change != 0) & frozen).flatten(1).any(1)
    if terms.grid is not None:
        assert isinstance(terms.low, float)
        assert isinstance(terms.high, float)
        span = (terms.high - terms.low) / terms.grid
        levels = (after.double() - terms.low) / span
        allowed = min(0.5, max(1e-3, tolerance / span))
        ok = ok & ((levels - levels.round()).abs() <= allowed).flatten(1).all(1)
    return Verification(ok.to(x.device), size, excess, tolerance)


def size_of(change: Tensor, kind: str, axes: tuple[int, ...] = ()) -> Tensor:
    """The size of each row's change (R, ...) in one of `KINDS`, (R,) in float64.

    Raises:
        InputError: the kind is another.
    """
    change = change.double()
    flat = change.flatten(1)
    if kind == "linf":
        return torch.maximum(flat.amax(1), -flat.amin(1))
    if kind == "l2":
        return flat.square().sum(1).sqrt()
    if kind == "l1":
        return flat.abs().sum(1)
    if kind == "grouped":
        dims = [axis + 1 if axis >= 0 else axis for axis in axes]
        return change.square().sum(dims).sqrt().reshape(len(change), -1).amax(1)
    if kind == "l0":
        changed = change != 0
        if axes:
            # A group has changed where any of its members has: the axes go one after the other, the last first.
            for axis in sorted({axis % (change.ndim - 1) + 1 for axis in axes}, reverse=True):
                changed = changed.any(axis)
        return changed.reshape(len(change), -1).sum(1).double()
    raise InputError(
        f"the checker knows no norm {kind!r}", remedy=f"pass one of {', '.join(KINDS)}, or a norm with a check"
    )


def _size(change: Tensor, terms: Terms) -> Tensor:
    return size_of(change, terms.kind, terms.axes)


def _told(check: Sizes, before: Tensor, after: Tensor, kind: str) -> Tensor:
    """The sizes that a norm's own check gives.

    Raises:
        InputError: they are not one number for each row.
    """
    sizes = check(before.double(), after.double())
    if not isinstance(sizes, Tensor) or sizes.shape != (len(before),) or sizes.is_complex():
        shape = f"shape {tuple(sizes.shape)}" if isinstance(sizes, Tensor) else f"a {type(sizes).__name__}"
        raise InputError(
            f"the check of norm {kind!r} gave {shape} for {len(before)} rows", remedy="return one size for each"
        )
    return sizes.detach().double().to(before.device)


def _last_place(x: Tensor, terms: Terms) -> float:
    given = [end for end in (terms.low, terms.high) if end is not None]
    ends = [float(end.abs().max()) if isinstance(end, Tensor) else abs(end) for end in given]
    scale = max(ends) if ends else float(x.abs().max())
    dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    return torch.finfo(dtype).eps * (scale if scale > 0 else 1.0)


def _fitted(part: Tensor, x: Tensor) -> Tensor:
    return part if part.ndim == x.ndim else part.reshape(1, *([1] * (x.ndim - 1 - part.ndim)), *part.shape)
