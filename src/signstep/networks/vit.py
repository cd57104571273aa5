"""A small vision transformer. Inputs in [0, 1], outputs are logits."""

import math

import torch
from torch import Tensor, nn

from signstep.errors import InputError
from signstep.messages import Arg
from signstep.networks.parts import activation as layer
from signstep.networks.parts import at_least_one, bounded


def vit(
    *,
    channels: int = 1,
    size: int = 8,
    classes: int = 10,
    patch: int = 2,
    width: int = 48,
    depth: int = 3,
    heads: int = 4,
    activation: str = "gelu",
    spectral: bool = False,
) -> nn.Module:
    """Patches, learnt positions, pre-normalised blocks, and the mean over tokens; for (B, channels, size, size).

    Source: Dosovitskiy et al. (2021), "An Image is Worth 16x16 Words", with the mean over tokens in the place of a
    class token. Attention is written out, so that its gradient can be differentiated once more, as the training recipe
    ``gradalign`` needs.

    Args:
        channels: of the input: 1 for digits and MNIST, 3 for colours.
        size: its height and width: 8 for the digits, 28 for MNIST, 32 for CIFAR-10.
        classes: outputs.
        patch: side of a patch; a divisor of ``size``.
        width: of a token; a multiple of ``heads``.
        depth: blocks.
        heads: of attention.
        activation: of the blocks' hidden layer: relu, gelu, silu, softplus, relu6 or hardtanh.
        spectral: bound every layer, see `signstep.networks.parts.bounded`.

    Raises:
        InputError: an argument makes no sense.
    """
    at_least_one(channels=channels, size=size, classes=classes, patch=patch, width=width, depth=depth, heads=heads)
    if size % patch or width % heads:
        raise InputError(
            Arg("patch", patch),
            "must divide",
            Arg("size", size),
            ", and",
            Arg("heads", heads),
            "must divide",
            Arg("width", width),
            remedy="pass others",
        )
    model = _ViT(channels, size // patch, patch, width, depth, heads, activation, classes)
    return bounded(model) if spectral else model


class _ViT(nn.Module):
    """``head(mean(norm(blocks(patches + place))))``."""

    def __init__(
        self, channels: int, side: int, patch: int, width: int, depth: int, heads: int, activation: str, classes: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)
        # Small ones are learnt late.
        self.place = nn.Parameter(0.5 * torch.randn(1, side * side, width))  # any dtype, any device: as nn.Linear makes
        self.blocks = nn.Sequential(*(_Block(width, heads, activation) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


class _Block(nn.Module):
    """Attention and a hidden layer of four times the width, each beside a shortcut."""

    def __init__(self, width: int, heads: int, activation: str) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask = nn.Linear(width, 3 * width)
        self.answer = nn.Linear(width, width)
        self.hidden = nn.Sequential(nn.Linear(width, 4 * width), layer(activation), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._attended(self.norm1(tokens))
        moved: Tensor = tokens + self.hidden(self.norm2(tokens))
        return moved

    def _attended(self, tokens: Tensor) -> Tensor:
        rows, count, width = tokens.shape
        parts = self.ask(tokens).reshape(rows, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        shares = (query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)).softmax(-1)
        mixed: Tensor = self.answer((shares @ value).transpose(1, 2).reshape(rows, count, width))
        return mixed
