"""A maximum over windows between two lines: the window's likeliest number below, its largest end above."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Pair = tuple[int, int]


@dataclass(frozen=True)
class Pool:
    """Maxima over windows of images (C, H, W), padded with minus infinity."""

    kernel: Pair
    stride: Pair
    padding: Pair

    @classmethod
    def of(cls, layer: nn.Module) -> "Pool | None":
        """That of a layer; None where it is none, or has a form that is not taken."""
        if not isinstance(layer, nn.MaxPool2d):
            return None
        return cls.called(layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)

    @classmethod
    def called(
        cls,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> "Pool | None":
        """That of a call with these arguments."""
        if ceil_mode or return_indices or _pair(dilation) != (1, 1):
            return None
        return cls(_pair(kernel_size), _pair(kernel_size if stride in (None, [], ()) else stride), _pair(padding))

    def chosen(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For ends (C, H, W) of the inputs: where each window's number with the largest low end lies (C, h, w).

        Also whether that one is the maximum for certain, and the window's largest high end.
        """
        lows, highs = self._windows(low, -torch.inf), self._windows(high, -torch.inf)
        best = lows.argmax(-1, keepdim=True)
        others = highs.scatter(-1, best, -torch.inf).amax(-1)
        sure = lows.gather(-1, best).squeeze(-1) >= others
        places = torch.arange(low[0].numel(), device=low.device, dtype=low.dtype).view(1, *low.shape[-2:])
        at = self._windows(places, -1.0).expand(*lows.shape).gather(-1, best).squeeze(-1).long()
        return at, sure, highs.amax(-1)

    def _windows(self, part: Tensor, beyond: float) -> Tensor:
        """Every window's numbers, (C, h, w, kernel), ``beyond`` outside of the image."""
        (height, width), (down, right), (top, left) = self.kernel, self.stride, self.padding
        padded = F.pad(part, (left, left, top, top), value=beyond)
        return padded.unfold(-2, height, down).unfold(-2, width, right).flatten(-2)


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))
