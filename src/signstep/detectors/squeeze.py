"""Feature squeezing: how much the answer changes when the input is made simpler.

s(x) = max_j |p(x) - p(q_j(x))|_1 over squeezers q_j: fewer bits of colour, a median filter, JPEG. All squeezed copies
go through the model in one further pass of J rows for each input.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from signstep.detectors.jpeg import jpeg as jpeg_of
from signstep.detectors.rule import DetectorRow, Fitting, whole
from signstep.detectors.seen import Reader, Seen
from signstep.errors import InputError
from signstep.messages import Arg

_NAME = "squeeze"


@dataclass(frozen=True, eq=False)
class Squeeze:
    """Which squeezers there are; 0 leaves one out.

    Attributes:
        bits: of each channel, of values from ``low`` to ``high``.
        median: side of the window of the median filter, for images (R, C, H, W).
        jpeg: quality of a pass through the JPEG codec, for images of 1 or 3 channels.
        low: of raw inputs.
        high: of raw inputs.
    """

    bits: int = 5
    median: int = 2
    jpeg: int = 0
    low: float = 0.0
    high: float = 1.0

    @property
    def passes(self) -> int:
        """One for each squeezer."""
        return len(self._squeezers)

    @property
    def state(self) -> Mapping[str, Tensor]:
        """Nothing was fitted."""
        return {}

    @property
    def _squeezers(self) -> list[Callable[[Tensor], Tensor]]:
        found: list[Callable[[Tensor], Tensor]] = []
        if self.bits:
            found.append(lambda x: reduced_bits(x, self.bits, self.low, self.high))
        if self.median:
            found.append(lambda x: median_filter(x, self.median))
        if self.jpeg:
            found.append(lambda x: jpeg_of(x, self.jpeg, self.low, self.high))
        return found

    def scores(self, seen: Seen) -> Tensor:
        """The largest L1 distance between the probabilities, (R,), from 0 to 2."""
        return self._distance(seen, [squeeze(seen.raw) for squeeze in self._squeezers])

    def surrogate(self, seen: Seen) -> Tensor:
        """The same value; gradients pass rounding and the codec as if they changed nothing (BPDA)."""
        squeezed = []
        for squeeze in self._squeezers:
            made = squeeze(seen.raw)
            squeezed.append(made if made.requires_grad else through(seen.raw, made))
        return self._distance(seen, squeezed)

    def _distance(self, seen: Seen, squeezed: list[Tensor]) -> Tensor:
        plain = seen.logits.softmax(1)
        others = seen.ask(torch.cat(squeezed)).softmax(1).reshape(len(squeezed), *plain.shape)
        largest: Tensor = (others - plain).abs().sum(2).amax(0)
        return largest


class _Through(torch.autograd.Function):
    """Exactly the second value forwards, and the identity to the first backwards."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor, made: Tensor) -> Tensor:  # noqa: ARG004
        return made.clone()

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def through(x: Tensor, made: Tensor) -> Tensor:
    """The values of ``made``, whose gradient goes to x as if nothing had been done (BPDA, Athalye et al. 2018)."""
    found: Tensor = _Through.apply(x, made)  # type: ignore[no-untyped-call]
    return found


def reduced_bits(x: Tensor, bits: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Values rounded to 2^bits levels from low to high; no gradient passes."""
    levels, x = (1 << bits) - 1, x.detach()
    return ((x - low) / (high - low) * levels).round() / levels * (high - low) + low


def median_filter(x: Tensor, size: int) -> Tensor:
    """The median of the window that ends size - size // 2 - 1 pixels after each pixel, edges repeated.

    Of an even number of values the upper of the middle two, as `scipy.ndimage.median_filter` takes it.
    """
    before, after = size // 2, size - size // 2 - 1
    padded = functional.pad(x, (before, after, before, after), mode="replicate")
    windows = padded.unfold(2, size, 1).unfold(3, size, 1).flatten(4)
    ordered: Tensor = windows.sort(-1).values
    return ordered[..., size * size // 2]


def _made(bits: int, median: int, jpeg: int, low: float, high: float) -> Squeeze:
    whole("bits", bits, 0, _NAME)
    whole("median", median, 0, _NAME)
    whole("jpeg", jpeg, 0, _NAME)
    if bits > 16:
        raise InputError(Arg("bits", bits), remedy="pass at most 16, or 0 to leave it out", where=_NAME)
    if jpeg > 100:
        raise InputError(Arg("jpeg", jpeg), remedy="pass a quality from 1 to 100, or 0 to leave it out", where=_NAME)
    if not low < high:
        raise InputError(
            Arg("low", low), f"is not below high={high:g}", remedy="pass the ends of raw inputs", where=_NAME
        )
    if not (bits or median > 1 or jpeg):
        raise InputError(
            Arg("bits", bits),
            Arg("median", median),
            Arg("jpeg", jpeg),
            "leave no squeezer",
            remedy="pass one",
            where=_NAME,
        )
    return Squeeze(bits, median if median > 1 else 0, jpeg, float(low), float(high))


def fit(
    fitting: Fitting, *, bits: int = 5, median: int = 2, jpeg: int = 0, low: float = 0.0, high: float = 1.0
) -> Squeeze:
    """Nothing is fitted; of inputs that are no images the median filter is left out.

    Raises:
        InputError: an option makes no sense for these inputs.
    """
    made = _made(bits, median, jpeg, low, high)
    if fitting.shape is not None and len(fitting.shape) != 3 and (made.median or made.jpeg):
        raise InputError(
            f"median and jpeg are for images (channels, height, width), and inputs have shape {tuple(fitting.shape)}",
            remedy="pass squeeze:bits=5,median=0",
            where=_NAME,
        )
    return made


def restore(
    state: Mapping[str, Tensor],  # noqa: ARG001
    other: Reader | None,  # noqa: ARG001
    *,
    bits: int = 5,
    median: int = 2,
    jpeg: int = 0,
    low: float = 0.0,
    high: float = 1.0,
) -> Squeeze:
    """From its options."""
    return _made(bits, median, jpeg, low, high)


ROW = DetectorRow(
    _NAME,
    fit,
    restore,
    "L1 distance between answers to the input and to simpler copies of it",
    "Xu, Evans & Qi 2018 (arXiv:1704.01155)",
    "He, Wei, Chen, Carlini & Song 2017 (arXiv:1706.04701); Sharma & Chen 2018 (arXiv:1803.09868)",
    "answers",
    gradient="likeness",
    passes="one for each squeezer, in one batch",
    fitted=False,
)
