"""Images with their channels last in memory, also where there is only one.

Kernels choose their layout by the strides of their input. Those of a grey image say both layouts at once, which torch
reads as channels first: a network of channels-last weights then begins in one layout, goes on in the other and converts
gradients in between.
"""

from typing import Any

import torch
from torch import Tensor, nn

_IMAGES = 4  # dimensions of (R, C, H, W), and of the weights that see them
_LANES = 8  # float32 numbers in a register of AVX2


def channels_last(x: Tensor) -> Tensor:
    """Images (R, C, H, W) in channels-last strides; anything else as it is. Gradients go through."""
    if x.ndim != _IMAGES:
        return x
    if x.shape[1] == 1 and x.stride(1) != 1:
        return x.clone(memory_format=torch.channels_last)  # ``contiguous`` sees nothing to do
    return x.contiguous(memory_format=torch.channels_last)


def is_channels_last(model: nn.Module) -> bool:
    """Whether the weights of a network were brought to channels-last."""
    return any(
        weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
        for weight in model.parameters()
        if weight.ndim == _IMAGES
    )


def to_channels_first(model: nn.Module) -> bool:
    """Bring the weights of a network to channels first, in place, strides of single channels too; whether any moved."""
    moved = [part for part in model.parameters() if part.ndim == _IMAGES and part.stride() != _plain(part)]
    for part in moved:
        part.data = part.data.clone(memory_format=torch.contiguous_format)
    return bool(moved)


def _plain(x: Tensor) -> tuple[int, ...]:
    return torch.empty(x.shape, dtype=torch.uint8, device="meta").stride()


def overrun(model: nn.Module) -> str | None:
    """Name of the first layer whose weight gradient must not be taken in channels-last on a CPU; None if there is none.

    For a 1x1 convolution of stride above 1 with 2 to 7 input channels, oneDNN's AVX2 kernel (``jit_1x1:avx2``,
    ``backward_weights``; oneDNN 3.12 in torch 2.13) writes whole registers past the end of its buffer. The process is
    killed, now or later, or goes on with damaged memory. Kernels of other processors do not; the layout is left alone
    on all of them, so that a run is the same everywhere.
    """
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.Conv2d)
            and 1 < module.in_channels < _LANES
            and module.groups == 1
            and set(module.kernel_size) == {1}
            and max(module.stride) > 1
        ):
            return name or type(module).__name__
    return None


class ChannelsLast(nn.Module):
    """A model whose images are brought to channels-last first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *images: Tensor, **named: Tensor) -> Any:
        """What the model says to them."""
        laid = {name: channels_last(part) for name, part in named.items()}
        return self.model(*(channels_last(part) for part in images), **laid)
