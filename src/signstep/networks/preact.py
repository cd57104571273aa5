"""Pre-activation residual networks for small images (B, 3, H, W). Inputs in [0, 1], outputs are logits."""

from collections.abc import Sequence

from torch import Tensor, nn, ones, tensor, zeros

from signstep.errors import InputError
from signstep.messages import Arg
from signstep.networks.parts import activation as layer
from signstep.networks.parts import at_least_one, bounded


def preact_resnet18(
    *,
    channels: int = 3,
    classes: int = 10,
    width: int = 64,
    activation: str = "relu",
    spectral: bool = False,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> nn.Module:
    """Pre-activation ResNet-18 with a 3x3 stem of stride 1: the usual network of fast adversarial training.

    Source: He et al. (2016), "Identity Mappings in Deep Residual Networks"; four stages of two blocks, the width
    doubling from one to the next, a last normalisation before the mean over positions.

    Args:
        channels: of the input.
        classes: outputs.
        width: of the first stage: 64 in full.
        activation: relu, gelu, silu, softplus, relu6 or hardtanh.
        spectral: bound every layer, see `signstep.networks.parts.bounded`.
        mean: subtracted from the input inside of the network: one number, or one for each channel.
        std: divides after that, likewise.

    Raises:
        InputError: an argument makes no sense.
    """
    at_least_one(channels=channels, classes=classes, width=width)
    widths = tuple(width * factor for factor in (1, 1, 2, 2, 4, 4, 8, 8))
    model = PreactResNet(widths, classes, channels=channels, activation=activation)
    for name, given in (("mean", mean), ("std", std)):
        values = tensor(given, dtype=model.mean.dtype).flatten()
        if len(values) not in (1, channels) or (name == "std" and not bool((values > 0).all())):
            raise InputError(
                Arg(name, given), remedy=f"pass one number or one for each of {channels} channels, std above 0"
            )
        getattr(model, name).copy_(values.reshape(1, -1, 1, 1).expand(1, channels, 1, 1))
    return bounded(model) if spectral else model


class PreactResNet(nn.Module):
    """``head(mean(act(norm(blocks(stem((x - mean) / std))))))``; mean and std travel with the weights.

    Args:
        widths: of the blocks; where the width grows, the resolution halves.
        classes: outputs.
        channels: of the input.
        activation: see `signstep.networks.parts.activation`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, widths: tuple[int, ...], classes: int, *, channels: int = 3, activation: str = "relu") -> None:
        super().__init__()
        self.register_buffer("mean", zeros(1, channels, 1, 1))
        self.register_buffer("std", ones(1, channels, 1, 1))
        self.stem = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        before = (widths[0], *widths[:-1])
        self.blocks = nn.Sequential(*(_Preact(into, out, activation) for into, out in zip(before, widths, strict=True)))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.act = layer(activation)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """From raw inputs (B, C, H, W) to logits (B, classes)."""
        features = self.act(self.norm(self.blocks(self.stem((x - self.mean) / self.std))))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


class _Preact(nn.Module):
    """Normalisation and activation before each of two convolutions; where the width grows, the resolution halves."""

    def __init__(self, into: int, out: int, activation: str) -> None:
        super().__init__()
        stride = 1 if into == out else 2
        self.b1 = nn.BatchNorm2d(into)
        self.c1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.b2 = nn.BatchNorm2d(out)
        self.c2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.sc = None if into == out else nn.Conv2d(into, out, 1, stride, bias=False)
        self.act = layer(activation)

    def forward(self, x: Tensor) -> Tensor:
        active = self.act(self.b1(x))
        shortcut: Tensor = x if self.sc is None else self.sc(active)
        inner: Tensor = self.c2(self.act(self.b2(self.c1(active))))
        return inner + shortcut
