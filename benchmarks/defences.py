"""What transformations of inputs seem to gain, and what they gain against an attacker who knows of them.

For each data set the undefended model and every transformation meet the same attack on the same examples: once crafted
on the undefended model (apparent), once by every way past the transformation (aware). "lost" is the share of the
apparent gain that knowing takes away. Digits and the network for them are shipped; MNIST, CIFAR-10 with a ResNet-20 and
photographs with MobileNetV2 need the reference material in ../shared, and are left out without it.

    python benchmarks/defences.py
    python benchmarks/defences.py --data cifar --examples 50 --rows jpeg:quality=75 bit-depth:bits=5
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from harness import SHARED, machine, mnist, table
from signstep.data.digits import digits
from signstep.defences import CostRow
from signstep.demo import demo
from signstep.model.opening.weights import load_weights
from signstep.networks.mobilenet import mobilenet_v2
from signstep.networks.small import mnist_cnn


@dataclass(frozen=True)
class Set:
    """Examples with a model that knows them.

    Attributes:
        model: undefended.
        x: (R, C, H, W) in [0, 1].
        y: (R,).
        eps: L-infinity size.
        rows: transformations to measure; None for all.
    """

    model: ss.Model
    x: Tensor
    y: Tensor
    eps: str
    rows: tuple[str, ...] | None = None


def of_digits(most: int) -> Set:
    x, y = digits("test")
    return Set(ss.Model(demo(batch_size=256).model), x[:most], y[:most], "0.1")


def of_mnist(most: int) -> Set:
    net = mnist_cnn()
    load_weights(net, SHARED / "models" / "mnist_standard.safetensors")
    x, y = mnist("test")
    return Set(ss.Model(net.eval()), x[:most], y[:most], "0.1")


class Block(nn.Module):
    """Two convolutions and a shortcut that pads channels (He et al. 2015, option A)."""

    def __init__(self, inside: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if out.shape != x.shape:
            spare = (out.shape[1] - x.shape[1]) // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, spare, spare))
        return F.relu(out + x)


class ResNet20(nn.Module):
    """The residual network for CIFAR-10 (He et al. 2015, section 4.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for number, (inside, planes) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            blocks = [Block(inside if first else planes, planes, 1 + (first and number > 1)) for first in (1, 0, 0)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (R, 10)."""
        x = F.relu(self.bn1(self.conv1(x)))
        for number in (1, 2, 3):
            x = getattr(self, f"layer{number}")(x)
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


def of_cifar(most: int) -> Set:
    net = ResNet20()
    held = torch.load(SHARED / "models" / "cifar10_resnet20.th", map_location="cpu", weights_only=True)
    net.load_state_dict({name.removeprefix("module."): part for name, part in held["state_dict"].items()})
    with np.load(SHARED / "data" / "cifar10" / "test_first1000.npz") as file:
        x, y = torch.from_numpy(file["x"][:most]), torch.from_numpy(file["y"][:most]).long()
    model = ss.Model(net.eval(), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return Set(model, x.permute(0, 3, 1, 2).float() / 255, y, "2/255")


def of_photos(most: int) -> Set:
    rows, labels = [], []
    for path in sorted((SHARED / "data" / "photos").glob("imagenet_*.jpg"))[:most]:
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        middle = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BILINEAR)
        rows.append(torch.from_numpy(np.array(middle)).permute(2, 0, 1).float() / 255)
        labels.append(int(path.stem.rpartition("_")[2]) + 1)  # the model's first class is "background"
    few = ("jpeg:quality=75", "bit-depth:bits=5", "gaussian-blur:sigma=0.8", "median-blur:size=3")
    return Set(ss.Model(mobilenet_v2(SHARED / "models")), torch.stack(rows), torch.tensor(labels), "1/255", few)


SETS: dict[str, tuple[Callable[[int], Set], tuple[Path, ...]]] = {
    "digits": (of_digits, ()),
    "mnist": (of_mnist, (SHARED / "models" / "mnist_standard.safetensors", SHARED / "data" / "mnist")),
    "cifar": (of_cifar, (SHARED / "models" / "cifar10_resnet20.th", SHARED / "data" / "cifar10")),
    "photos": (of_photos, (SHARED / "models" / "mobilenet_v2_1.0_224.npz", SHARED / "data" / "photos")),
}


def line(row: CostRow, robust: float) -> list[str]:
    if row.unaware is None or row.aware is None:
        return [row.name, f"{100 * row.clean:.1f}", "-", "-", "-", "-", "-"]
    apparent, aware = row.unaware - robust, row.aware - robust
    lost = "-" if apparent < 0.01 else "all" if aware <= 0 else f"{100 * (1 - aware / apparent):.0f} %"
    shares = [f"{100 * share:.1f}" for share in (row.clean, row.unaware, row.aware, apparent, aware)]
    return [row.name, *shares, lost]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(SETS), choices=list(SETS), help="data sets")
    parser.add_argument("--examples", type=int, default=100, help="of each data set")
    parser.add_argument("--attack", default="pgd:steps=20", help="a recipe that all meet")
    parser.add_argument("--rows", nargs="+", help="transformations (default: all that fit; of photographs a few)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: as torch decides)")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print(machine())
    for name in given.data:
        build, needed = SETS[name]
        if missing := [path for path in needed if not path.exists()]:
            print(f"\n{name}: left out, {missing[0]} is absent")
            continue
        began, part = time.perf_counter(), build(given.examples)
        found = ss.defences.table(
            part.model,
            (part.x, part.y),
            threat=ss.linf(part.eps),
            rows=given.rows or part.rows,
            attacks=[given.attack],
            limit=given.examples,
        )
        robust = found["undefended"].aware or 0.0
        head = ["", "clean", "unaware", "aware", "apparent gain", "aware gain", "lost"]
        print(f"\n{name}: {found.examples} examples, linf {part.eps}, {given.attack}; percent\n")
        print(table(head, [line(row, robust) for row in found.rows]))
        for note in found.notes:
            print(f"note: {note}")
        print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
