"""Small reference networks, for the demo, the tests and the benchmarks. Inputs in [0, 1], outputs are logits."""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from signstep.networks.parts import activation as layer
from signstep.networks.parts import bounded
from signstep.networks.preact import PreactResNet


def mnist_cnn(*, activation: str = "relu", spectral: bool = False) -> nn.Sequential:
    """The usual two-convolution network for (B, 1, 28, 28), as in Wong et al. (2020), "Fast is better than free".

    Args:
        activation: relu, gelu, silu, softplus, relu6 or hardtanh.
        spectral: bound every layer, see `signstep.networks.parts.bounded`.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        layer(activation),
        nn.Conv2d(16, 32, 4, 2, 1),
        layer(activation),
        nn.Flatten(),
        nn.Linear(1568, 100),
        layer(activation),
        nn.Linear(100, 10),
    )
    return bounded(model) if spectral else model


def digits_cnn(*, activation: str = "relu", spectral: bool = False) -> nn.Sequential:
    """A network of about 38,000 weights for the digits (B, 1, 8, 8).

    Args:
        activation: relu, gelu, silu, softplus, relu6 or hardtanh.
        spectral: bound every layer, see `signstep.networks.parts.bounded`.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1),
        layer(activation),
        nn.Conv2d(16, 32, 3, 1, 1),
        layer(activation),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        layer(activation),
        nn.Linear(64, 10),
    )
    return bounded(model) if spectral else model


def resnet18_cifar(classes: int = 10) -> nn.Module:
    """ResNet-18 for (B, 3, 32, 32): a 3x3 stem of stride 1 and no max-pooling.

    Source: He et al. (2016), "Deep Residual Learning for Image Recognition", with the stem that is usual for CIFAR-10.
    """
    widths = (64, 64, 128, 128, 256, 256, 512, 512)
    before = (64, *widths[:-1])
    blocks = (_Residual(into, out) for into, out in zip(before, widths, strict=True))
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 1, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, classes),
    )


def cifar10_small() -> nn.Module:
    """A narrow pre-activation ResNet-18 for (B, 3, 32, 32) that normalises its input itself.

    Source: He et al. (2016), "Identity Mappings in Deep Residual Networks", with widths 16 to 128.
    """
    return PreactResNet(widths=(16, 16, 32, 32, 64, 64, 128, 128), classes=10)


class _Residual(nn.Module):
    """Two convolutions beside a shortcut; where the width grows, the resolution halves."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        stride = 1 if into == out else 2
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = (
            nn.Sequential()
            if into == out
            else nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))
