"""Small reference networks, for the demo, the tests and the benchmarks. Inputs in [0, 1], outputs are logits."""

from torch import Tensor, nn, ones, zeros
from torch.nn import functional as F  # noqa: N812


def mnist_cnn() -> nn.Sequential:
    """The usual two-convolution network for (B, 1, 28, 28), as in Wong et al. (2020), "Fast is better than free"."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def digits_cnn() -> nn.Sequential:
    """A network of about 38,000 weights for the digits (B, 1, 8, 8)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 1, 1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


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
    return _PreactResNet(widths=(16, 16, 32, 32, 64, 64, 128, 128), classes=10)


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


class _Preact(nn.Module):
    """Normalisation and ReLU before each of two convolutions; where the width grows, the resolution halves."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        stride = 1 if into == out else 2
        self.b1 = nn.BatchNorm2d(into)
        self.c1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.b2 = nn.BatchNorm2d(out)
        self.c2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.sc = None if into == out else nn.Conv2d(into, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.b1(x))
        shortcut: Tensor = x if self.sc is None else self.sc(active)
        inner: Tensor = self.c2(F.relu(self.b2(self.c1(active))))
        return inner + shortcut


class _PreactResNet(nn.Module):
    """``head(mean(relu(norm(blocks(stem((x - mean) / std))))))``; mean and std travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", zeros(1, 3, 1, 1))
        self.register_buffer("std", ones(1, 3, 1, 1))
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        before = (widths[0], *widths[:-1])
        self.blocks = nn.Sequential(*(_Preact(into, out) for into, out in zip(before, widths, strict=True)))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.norm(self.blocks(self.stem((x - self.mean) / self.std))))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits
