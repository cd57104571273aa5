"""Images with their channels last in memory, also where there is only one.

Kernels choose their layout by the strides of their input. Those of a grey image say both layouts at once, which torch
reads as channels first: a network of channels-last weights then begins in one layout, goes on in the other and converts
gradients in between.
"""

from typing import Any

import torch
from torch import Tensor, nn

_IMAGES = 4  # dimensions of (R, C, H, W), and of the weights that see them


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


class ChannelsLast(nn.Module):
    """A model whose images are brought to channels-last first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *images: Tensor, **named: Tensor) -> Any:
        """What the model says to them."""
        laid = {name: channels_last(part) for name, part in named.items()}
        return self.model(*(channels_last(part) for part in images), **laid)
