"""A VGG-like network of any size: pairs of 3x3 convolutions and max-pooling. Inputs in [0, 1], outputs are logits."""

from torch import nn

from signstep.errors import InputError
from signstep.messages import Arg
from signstep.networks.parts import activation as layer
from signstep.networks.parts import at_least_one, bounded

_SMALLEST = 3  # side of the map that is flattened, at most


def vgg(
    *,
    channels: int = 1,
    size: int = 8,
    classes: int = 10,
    width: int = 16,
    activation: str = "relu",
    norm: str = "none",
    spectral: bool = False,
) -> nn.Module:
    """Stages of two convolutions and a halving, for (B, channels, size, size); each stage is twice as wide.

    Source: Simonyan & Zisserman (2015), "Very Deep Convolutional Networks for Large-Scale Image Recognition", scaled
    down: stages until the map is at most 3 pixels wide, then one hidden layer.

    Args:
        channels: of the input: 1 for digits and MNIST, 3 for colours.
        size: its height and width: 8 for the digits, 28 for MNIST, 32 for CIFAR-10.
        classes: outputs.
        width: of the first stage.
        activation: relu, gelu, silu, softplus, relu6 or hardtanh.
        norm: "batch" for BatchNorm after each convolution, or "none".
        spectral: bound every layer, see `signstep.networks.parts.bounded`.

    Raises:
        InputError: an argument makes no sense.
    """
    at_least_one(channels=channels, size=size, classes=classes, width=width)
    if norm not in ("none", "batch"):
        raise InputError(Arg("norm", norm), remedy="pass batch or none")
    layers: list[nn.Module] = []
    into, out, side = channels, width, size
    while side > _SMALLEST or not layers:
        for _ in range(2):
            layers.append(nn.Conv2d(into, out, 3, 1, 1, bias=norm == "none"))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(out))
            layers.append(layer(activation))
            into = out
        if side > 1:
            layers.append(nn.MaxPool2d(2))
        side, out = max(1, side // 2), 2 * out
    layers += [nn.Flatten(), nn.Linear(into * side * side, 4 * width), layer(activation), nn.Linear(4 * width, classes)]
    model = nn.Sequential(*layers)
    return bounded(model) if spectral else model
