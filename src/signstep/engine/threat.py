"""The threat model: what an attacker may change, and by how much."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from signstep.engine import arrays
from signstep.engine.defaults import plain_tensor
from signstep.engine.norm_rows import refuse_norm
from signstep.engine.norms import BUILT_IN, BY_NAME, L0, L1, L2, CheckedNorm, Grouped, Linf, Norm, norm
from signstep.engine.verify import KINDS, Terms
from signstep.errors import SignstepWarning, ThreatError
from signstep.importing import is_spec
from signstep.messages import Arg, Blank

Eps: TypeAlias = float | int | str | Tensor | Sequence[float] | np.ndarray[Any, Any] | None
Bound: TypeAlias = float | int | Tensor | Sequence[float] | np.ndarray[Any, Any] | None
Box: TypeAlias = tuple[Bound, Bound] | Sequence[Bound] | np.ndarray[Any, Any] | None
Mask: TypeAlias = Tensor | Sequence[Any] | np.ndarray[Any, Any] | None


@dataclass(frozen=True, eq=False)
class ThreatModel:
    """A norm ball of radius eps around the input, cut with a box, a mask and a grid; all in raw input units.

    Attributes:
        norm: the norm that measures a change (see `signstep.engine.norms`).
        eps: the radius: a number; a tensor (R,), one for each example; or None: the box and the mask alone.
        low: lower end of the box: a number, a tensor that broadcasts to one example (bounds per feature), or None.
        high: upper end of the box, likewise.
        mask: True where the input may change; broadcasts to one example, or to a batch when it has as many dimensions.
        grid: number of steps across the box on which the answer must lie: 255 for 8-bit images; None for none.
        label: eps as it was written, for reports ("8/255").

    Raises:
        ThreatError: eps negative, NaN, infinite or beyond the box's own diameter; an empty box; a grid without a
            two-sided scalar box; eps None without a two-sided box; of L0 an eps that is no whole number, or an
            open box.

    Warns:
        SignstepWarning: eps reaches half of the box's diameter: grey fits every image in the box at that size.
    """

    norm: Norm
    eps: float | Tensor | None
    low: float | Tensor | None = 0.0
    high: float | Tensor | None = 1.0
    mask: Tensor | None = None
    grid: int | None = None
    label: str = ""

    def __post_init__(self) -> None:
        # Frozen, so that it can be shared; arrays and lists become tensors before anything looks at them.
        for name, read in (("eps", read_eps), ("low", _bound), ("high", _bound), ("mask", _mask), ("grid", _whole)):
            object.__setattr__(self, name, read(getattr(self, name)))
        _check_norm(self.norm)
        _check_box(self.low, self.high)
        _check_eps(self.eps)
        if isinstance(self.norm, L0):
            _check_count(self.norm, self.eps, self.low, self.high)
        if self.grid is not None:
            if not isinstance(self.low, float) or not isinstance(self.high, float):
                raise ThreatError(
                    Arg("grid", self.grid),
                    f"needs a box with two scalar ends, got {self.box}",
                    remedy=("pass", Arg("box", (0, 1))),
                )
            if not isinstance(self.grid, int) or isinstance(self.grid, bool) or self.grid < 1:
                raise ThreatError(
                    Arg("grid", self.grid), "is no number of steps across the box", remedy="pass 255 for 8-bit images"
                )
        if self.eps is None and (self.low is None or self.high is None):
            raise ThreatError(
                Arg("eps", None),
                f"means that the box alone limits the change, and the box is open ({self.box})",
                remedy=("pass", Arg("box", Blank("low", "high")), "or a number for eps"),
            )
        if self.mask is not None and self.mask.dtype != torch.bool:
            raise ThreatError(
                Arg("mask", self.mask.dtype, of="dtype"), remedy="pass a bool tensor, True where the input may change"
            )
        if not self.label:
            object.__setattr__(self, "label", _label(self.eps))
        if isinstance(self.norm, Linf):  # other norms need the shape of an example; they are checked with the input
            shapes = (tuple(plain_tensor(end).shape) for end in (self.low, self.high) if end is not None)
            self.check_diameter(np.broadcast_shapes(*shapes))

    @property
    def box(self) -> Box:
        """The two ends (low, high), or None when both are absent."""
        return None if self.low is None and self.high is None else (self.low, self.high)

    def __str__(self) -> str:
        called = self.norm.called if isinstance(self.norm, (Grouped, L0)) else ""
        parts = [f"{called or self.norm.name} eps={self.label}"]
        parts.append("no box" if self.box is None else f"box=[{_end(self.low)}, {_end(self.high)}]")
        if self.mask is not None:
            parts.append(f"mask ({self.mask.float().mean():.0%} free)")
        if self.grid is not None:
            parts.append(f"grid of {self.grid} steps")
        return ", ".join(parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ThreatModel):
            return NotImplemented
        return (self.norm, self.grid) == (other.norm, other.grid) and all(
            _same(getattr(self, name), getattr(other, name)) for name in ("eps", "low", "high", "mask")
        )

    __hash__ = None  # type: ignore[assignment]  # tensors inside: equal values could not promise equal hashes

    def terms(self) -> Terms:
        """The declared numbers, for the independent checker; of a norm that is not Signstep's its own check beside."""
        axes = self.norm.axes if isinstance(self.norm, (Grouped, L0)) else ()
        kind = self.norm.name.partition("(")[0] if axes else self.norm.name
        check = self.norm.check if kind not in KINDS and isinstance(self.norm, CheckedNorm) else None
        return Terms(kind, axes, self.eps, self.low, self.high, self.mask, self.grid, check)

    def with_eps(self, eps: Eps) -> "ThreatModel":
        """The same threat at another size."""
        return replace(self, eps=read_eps(eps), label=_written(eps))

    def rows(self, start: int, stop: int, ndim: int | None = None) -> "ThreatModel":
        """The threat for examples ``start`` to ``stop`` of a stream.

        Slices an eps given per example, and a mask or box of several rows with ``ndim`` dimensions, as a batch has.

        Raises:
            ThreatError: there are fewer rows than examples.
        """
        parts: dict[str, Tensor] = {}
        for name in ("eps", "low", "high", "mask"):
            part = getattr(self, name)
            if not isinstance(part, Tensor) or part.ndim == 0 or len(part) == 1:
                continue
            if name != "eps" and part.ndim != ndim:
                continue
            if stop > len(part):
                raise ThreatError(
                    Arg(name),
                    f"has {len(part)} entries, the data has at least {stop} examples",
                    remedy="pass one for each",
                )
            parts[name] = part[start:stop]
        return replace(self, **parts) if parts else self  # type: ignore[arg-type]

    def pick(self, index: Tensor, x: Tensor) -> "ThreatModel":
        """The threat for the rows of a batch ``x`` (R, ...) at ``index``; what is the same for all rows stays."""
        parts: dict[str, Tensor] = {}
        for name in ("eps", "low", "high", "mask"):
            part = getattr(self, name)
            if isinstance(part, Tensor) and part.ndim == (1 if name == "eps" else x.ndim) and len(part) == len(x):
                parts[name] = part[index.to(part.device)]
        return replace(self, **parts) if parts else self  # type: ignore[arg-type]

    def check_diameter(self, shape: tuple[int, ...]) -> None:
        """Compare eps with the diameter of the box around examples of this shape.

        Raises:
            ThreatError: eps is beyond the diameter: no two inputs in the box are that far apart.
        """
        if self.eps is None or self.low is None or self.high is None:
            return
        diameter = self._diameter(self.low, self.high, shape)
        largest = self.eps if isinstance(self.eps, float) else float(plain_tensor(self.eps).max())
        if isinstance(self.norm, L0):
            _check_share(self.norm, self.label, self.eps, largest, diameter)
            return
        if largest > diameter * (1 + 1e-6):
            raise ThreatError(
                Arg("eps", self.eps, shown=self.label),
                f"is beyond the box's own diameter ({diameter:.6g} in {self.norm.name}): every input would do. "
                "Is eps on another scale than the box (8 instead of 8/255)?",
                remedy=("pass", Arg("eps", None), "to mean the box alone"),
            )
        if 2 * largest >= diameter > 0:
            warnings.warn(
                SignstepWarning(
                    Arg("eps", self.eps, shown=self.label),
                    f"reaches half of the box's diameter ({diameter:.6g} in {self.norm.name}): every input can be "
                    "turned into the middle of the box, so no model can be robust",
                ),
                stacklevel=2,
            )

    def _diameter(self, low: float | Tensor, high: float | Tensor, shape: tuple[int, ...]) -> float:
        if isinstance(low, float) and isinstance(high, float) and isinstance(self.norm, Linf):
            return high - low
        low_, high_ = (plain_tensor(end, dtype=torch.float64).cpu() for end in (low, high))
        span = high_ - low_
        if span.ndim > len(shape):  # bounds for every example of a batch: the widest box counts
            return float(self.norm.length(span.expand(-1, *shape)).max())
        return float(self.norm.diameter(low_, high_, shape))


def linf(eps: Eps, *, box: Box = (0.0, 1.0), mask: Mask = None, grid: int | None = None) -> ThreatModel:
    """Every coordinate may move by at most eps: the threat model of FGSM.

    >>> print(linf("8/255"))
    linf eps=8/255, box=[0, 1]
    """
    return threat_model(Linf(), eps, box=box, mask=mask, grid=grid)


def l2(eps: Eps, *, box: Box = (0.0, 1.0), mask: Mask = None, grid: int | None = None) -> ThreatModel:
    """The change has Euclidean length at most eps.

    >>> print(l2(0.5, box=None))
    l2 eps=0.5, no box
    """
    return threat_model(L2(), eps, box=box, mask=mask, grid=grid)


def l1(eps: Eps, *, box: Box = (0.0, 1.0), mask: Mask = None, grid: int | None = None) -> ThreatModel:
    """The absolute changes sum to at most eps: few coordinates, large changes.

    >>> print(l1(12))
    l1 eps=12, box=[0, 1]
    """
    return threat_model(L1(), eps, box=box, mask=mask, grid=grid)


def l0(
    eps: Eps, *, axes: tuple[int, ...] = (), box: Box = (0.0, 1.0), mask: Mask = None, grid: int | None = None
) -> ThreatModel:
    """At most eps coordinates change, each as far as the box allows; with ``axes`` at most eps groups of coordinates.

    ``axes=(0,)`` counts the pixels of images (C, H, W): its name is "l0-pixel".

    >>> print(l0(10))
    l0 eps=10, box=[0, 1]
    >>> print(l0(5, axes=(0,)))
    l0(0) eps=5, box=[0, 1]

    Raises:
        ThreatError: eps is no whole number, or the box has an open end.
    """
    return threat_model(L0(axes), eps, box=box, mask=mask, grid=grid)


def threat_model(
    norm_or_name: Norm | str, eps: Eps, *, box: Box = (0.0, 1.0), mask: Mask = None, grid: int | None = None
) -> ThreatModel:
    """A threat model in any norm, for example ``threat_model("pixel", 0.1)`` or ``threat_model(Grouped((0,)), 0.1)``.

    Args:
        norm_or_name: a norm or its name.
        eps: in raw input units: a number, a fraction such as "8/255", a tensor (R,) with one radius for each example,
            or None: the box and the mask alone.
        box: (low, high) of valid inputs; each end a number, a tensor over one example's features, or None.
        mask: bool tensor, True where the input may change.
        grid: 255 for 8-bit images: the input must lie on the grid and so will the answer.

    Wherever a tensor may stand a NumPy array or a list of numbers may too.

    Raises:
        ThreatError: a part cannot be read; see `ThreatModel`.
    """
    low, high = _ends(box)
    return ThreatModel(norm(norm_or_name), read_eps(eps), _bound(low), _bound(high), _mask(mask), grid, _written(eps))


def parse_threat(text: str, *, box: Box = (0.0, 1.0), grid: int | None = None) -> ThreatModel:
    """Read a threat from the command line: "linf:8/255", "l2:0.5", "pixel:0.1", "l0:10", "linf:none" (the box alone).

    What stands behind the last colon is eps; a norm of one's own has colons too: "my_norms:Weighted(0.5):0.3".

    Raises:
        ThreatError: not of the form norm:eps, or one of the two cannot be read.
    """
    name, colon, eps = text.rpartition(":")
    if is_spec(text) and name.lower() not in BY_NAME and eps.lower() != "none":
        raise ThreatError(f"threat {text!r} names a norm and no size", remedy=f"write {text}:0.3 for a size of 0.3")
    if not colon or not eps:
        raise ThreatError(
            Arg("threat", text), "is not of the form norm:eps", remedy="write linf:8/255, l2:0.5, l1:12 or l0:10"
        )
    size = None if eps.lower() == "none" else eps
    measure = norm(name)
    try:
        read_eps(size)
    except ThreatError as error:
        raise ThreatError(Arg("eps", eps), "is not a number", remedy="write 8/255 or 0.03, say") from error
    return threat_model(measure, size, box=box, grid=grid)


def read_eps(eps: Eps) -> float | Tensor | None:
    """The radius as a number or tensor; fractions such as "8/255" are divided in float64.

    Raises:
        ThreatError: not a number.
    """
    if eps is None:
        return eps
    if not isinstance(eps, (str, int, float, np.number)) or isinstance(eps, bool):
        return _number(eps, "eps", 'write 0.03, "8/255", one radius for each example, or None')
    try:
        if isinstance(eps, str):
            top, slash, bottom = eps.partition("/")
            return float(top) / float(bottom) if slash else float(top)
        return float(eps)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ThreatError(
            Arg("eps", eps), "is not a number", remedy='write 0.03, "8/255", a tensor, or None'
        ) from error


def _number(value: object, name: str, remedy: str) -> float | Tensor:
    """Numbers in an array or a list; one alone is a number."""
    if not (isinstance(value, (list, tuple)) or arrays.is_array(value)):
        raise ThreatError(Arg(name, value), "is not a number", remedy=remedy)
    made = arrays.number(value, name, ThreatError)
    if made.dtype == torch.bool or made.is_complex():
        raise ThreatError(Arg(name), f"holds values of {made.dtype}", remedy=remedy)
    return made if made.ndim or isinstance(value, Tensor) else float(made)


def _ends(box: Box) -> tuple[Bound, Bound]:
    if box is None:
        return None, None
    try:
        low, high = box
    except (TypeError, ValueError) as error:
        raise ThreatError(
            Arg("box", box),
            "has not two ends",
            remedy=("pass", Arg("box", Blank("low", "high")), ", or None for no box"),
        ) from error
    return low, high


def _whole(grid: Any) -> Any:
    return int(grid) if isinstance(grid, np.integer) else grid


def _mask(mask: Mask) -> Tensor | None:
    return None if mask is None else arrays.number(mask, "mask", ThreatError)


def _written(eps: Eps) -> str:
    return eps.replace(" ", "") if isinstance(eps, str) else ""


def _label(eps: float | Tensor | None) -> str:
    if eps is None:
        return "none (box alone)"
    if isinstance(eps, Tensor) and eps.ndim:
        return f"{float(eps.min()):.6g}..{float(eps.max()):.6g} per example"
    return f"{float(eps):.6g}"


def _check_norm(measure: Norm) -> None:
    """See that a norm of somebody's own is one, under a name of its own.

    Raises:
        ThreatError: it is not.
    """
    if isinstance(measure, BUILT_IN):
        return
    refuse_norm(measure)
    if measure.name.partition("(")[0] in KINDS:
        raise ThreatError(
            f"norm {type(measure).__name__} calls itself {measure.name!r}, which is one of Signstep's",
            remedy="give it a name of its own",
        )


def _check_eps(eps: float | Tensor | None) -> None:
    if eps is None:
        return
    if isinstance(eps, Tensor) and eps.ndim > 1:
        raise ThreatError(
            Arg("eps", tuple(eps.shape), of="shape"), remedy="pass a number or one radius for each example, shape (R,)"
        )
    if isinstance(eps, Tensor) and eps.numel() == 0:
        raise ThreatError(Arg("eps"), "is an empty tensor", remedy="pass a number or one radius for each example")
    if isinstance(eps, float):
        finite, negative = math.isfinite(eps), eps < 0
    else:
        finite, negative = bool(torch.isfinite(eps).all()), bool((eps < 0).any())
    if not finite:
        raise ThreatError(
            Arg("eps", eps, shown=_label(eps)), "is not finite", remedy="pass a number, or None to mean the box alone"
        )
    if negative:
        raise ThreatError(
            Arg("eps", eps, shown=_label(eps)), "is negative; eps is a radius", remedy="pass a number >= 0"
        )


def _check_count(measure: L0, eps: float | Tensor | None, *ends: float | Tensor | None) -> None:
    """See that a count is a whole number, and that a box says how far what changes may go.

    Raises:
        ThreatError: it is not, or an end of the box is open.
    """
    if eps is not None and bool((plain_tensor(eps, dtype=torch.float64) % 1 != 0).any()):
        raise ThreatError(
            Arg("eps", eps, shown=_label(eps)),
            f"is no whole number, and {measure.name} counts what changes",
            remedy="pass 10, say, for at most ten changes",
        )
    if any(end is None or not bool(torch.isfinite(plain_tensor(end)).all()) for end in ends):
        raise ThreatError(
            Arg("box"),
            f"has an open end, and {measure.name} alone does not limit how far a coordinate goes",
            remedy=("pass", Arg("box", Blank("low", "high"))),
        )


def _check_share(measure: L0, label: str, eps: float | Tensor, largest: float, diameter: float) -> None:
    """Compare a count with how many coordinates may change at all.

    Raises:
        ThreatError: it is larger.
    """
    if largest > diameter:
        raise ThreatError(
            Arg("eps", eps, shown=label),
            f"is more than the {diameter:.0f} that can change in {measure.name}: every input would do",
            remedy=("pass", Arg("eps", None), "to mean the box alone"),
        )
    if 2 * largest >= diameter > 0:
        warnings.warn(
            SignstepWarning(
                Arg("eps", eps, shown=label),
                f"reaches half of the {diameter:.0f} that can change in {measure.name}: between any two inputs lies "
                "one that differs from each in no more, so no model can be robust",
            ),
            stacklevel=3,
        )


def _check_box(low: float | Tensor | None, high: float | Tensor | None) -> None:
    if isinstance(low, float) and isinstance(high, float) and low <= high:
        return
    for name, end in (("low", low), ("high", high)):
        if isinstance(end, Tensor) and end.numel() == 0:
            raise ThreatError(
                Arg("box", tuple(end.shape), of=f"a {name} end of shape"),
                ", which is empty",
                remedy="pass a number, or one for each feature",
            )
        if end is not None and bool(torch.isnan(plain_tensor(end)).any()):
            raise ThreatError(Arg("box"), f"has a NaN in its {name} end", remedy="pass numbers or None for an open end")
    if low is not None and high is not None:
        low_, high_ = (plain_tensor(end, dtype=torch.float64).cpu() for end in (low, high))
        if not bool((low_ <= high_).all()):
            raise ThreatError(
                Arg("box"),
                f"is empty: its low end, {_end(low)}, is above its high end, {_end(high)}",
                remedy=("pass", Arg("box", Blank("low", "high"))),
            )


def _bound(end: Bound) -> float | Tensor | None:
    if end is None:
        return end
    try:
        value = float(end) if isinstance(end, (int, float, np.number)) and not isinstance(end, bool) else None
    except (TypeError, ValueError, OverflowError):
        value = None
    if value is None:
        return _number(end, "box", "pass a number, one for each feature, or None for an open end")
    return None if math.isinf(value) else value


def _end(end: float | Tensor | None) -> str:
    if end is None:
        return "open"
    return "per feature" if isinstance(end, Tensor) and end.ndim else f"{float(end):.6g}"


def _same(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and bool((first == second).all())
    return type(first) is type(second) and first == second


Threat: TypeAlias = ThreatModel | Mapping[str, ThreatModel]


def span_of(threats: Mapping[str, ThreatModel]) -> tuple[float, float] | None:
    """The box of a single input, where it is one pair of numbers."""
    ends = [(threat.low, threat.high) for threat in threats.values()]
    if len(ends) == 1 and isinstance(ends[0][0], float) and isinstance(ends[0][1], float) and ends[0][0] < ends[0][1]:
        return ends[0][0], ends[0][1]
    return None


def one_example(threat: ThreatModel, ndim: int) -> str | None:
    """The part of a threat that is given for several examples, if any: a change shared by all needs one for all."""
    for name in ("eps", "low", "high", "mask"):
        part = getattr(threat, name)
        if not isinstance(part, Tensor) or part.ndim == 0:
            continue
        if name == "eps" or (part.ndim == ndim and len(part) > 1):
            return name
    return None
