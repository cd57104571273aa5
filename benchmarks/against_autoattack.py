"""A ladder against torchattacks' AutoAttack on larger networks: what each leaves standing, for how many passes.

Passes are those of one image forwards or backwards: of the audit by its own accounts, of torchattacks counted at the
network. Seconds are processor seconds of this process, so that other work on the machine adds little. "resnet20" is He
et al.'s ResNet-20 with BatchNorm on test images of CIFAR-10, "mobilenet" is MobileNetV2 on photographs; weights and
images lie in ../shared. Only images that are classified right enter.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import signstep as ss
from cifar10_data import load_cifar10
from defences import ResNet20
from harness import machine, need_shared, rival, rivals_line, table
from signstep.model.twin import Engine
from signstep.networks.mobilenet import mobilenet_v2
from standard_cost import photographs


class Normalised(nn.Module):
    """From [0, 1] to what the ResNet-20 was trained on."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to the same shape."""
        return (x - self.mean) / self.std


def resnet20() -> nn.Module:
    """With the weights of ../shared, for inputs in [0, 1]."""
    network = ResNet20()
    saved = torch.load(need_shared("models", "cifar10_resnet20.th"), map_location="cpu", weights_only=True)
    network.load_state_dict({name.removeprefix("module."): part for name, part in saved["state_dict"].items()})
    return nn.Sequential(Normalised(), network).eval()


@dataclass
class Passes:
    """Forward and backward passes of single images through the network or its twin."""

    forwards: int = 0
    backwards: int = 0

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A forward hook: counts the pass, and the one back through it."""
        self.forwards += len(inputs[0])
        if output.requires_grad:
            output.register_hook(self._back)  # type: ignore[no-untyped-call]

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


@contextmanager
def counted(model: nn.Module) -> Iterator[Passes]:
    passes = Passes()
    handle = model.register_forward_hook(passes)
    try:
        yield passes
    finally:
        handle.remove()


def ours(model: nn.Module, x: Tensor, y: Tensor, eps: float, ladder: str, engine: Engine) -> list[str]:
    began = time.process_time()
    result = ss.audit(model, [(x, y)], threat=ss.linf(eps), ladder=ladder, curve=False, engine=engine)
    seconds = time.process_time() - began
    spent = [sum(getattr(entry, kind) for entry in result.attacks) for kind in ("forwards", "backwards")]
    return [f"{ladder}, {engine}", str(result.held), *(f"{passes:.0f}" for passes in spent), f"{seconds:.0f}"]


def theirs(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Iterator[list[str]]:
    """AutoAttack's four attacks in its order, each on what those before have left; after each, where one stands."""
    torchattacks = rival("torchattacks")
    if torchattacks is None:
        yield ["torchattacks", "not installed", "", "", ""]
        return
    common = {"eps": eps, "norm": "Linf", "seed": 0, "n_restarts": 1}
    build: dict[str, Callable[[], Callable[[Tensor, Tensor], Tensor]]] = {
        "APGD-CE": lambda: torchattacks.APGD(model, steps=100, loss="ce", **common),
        "APGD-T": lambda: torchattacks.APGDT(model, steps=100, n_classes=10, **common),
        "FAB-T": lambda: torchattacks.FAB(model, steps=100, n_classes=10, multi_targeted=True, **common),
        "Square": lambda: torchattacks.Square(model, n_queries=5000, **common),
    }
    standing = torch.ones(len(x), dtype=torch.bool)
    began = time.process_time()
    with counted(model) as passes:
        for name, attack in build.items():
            index = standing.nonzero()[:, 0]
            if len(index):
                crafted = attack()(x[index], y[index])
                assert float((crafted - x[index]).abs().max()) <= eps + 1e-6
                with torch.no_grad():
                    standing[index] = model(crafted).argmax(1) == y[index]
            seconds = time.process_time() - began
            spent = (f"{count / len(x):.0f}" for count in (passes.forwards, passes.backwards))
            yield [f"torchattacks, after {name}", str(int(standing.sum())), *spent, f"{seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("resnet20", "mobilenet"), default="resnet20")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--eps", type=float, default=1.0, help="radius in 255ths")
    parser.add_argument("--ladders", nargs="*", default=["standard@1"])
    parser.add_argument("--engines", nargs="*", choices=("exact", "float32", "fast"), default=["exact", "fast"])
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    print(machine(), "\n" + rivals_line(), flush=True)
    if options.model == "resnet20":
        model = resnet20()
        data = load_cifar10(need_shared("data", "cifar10"))
        x, y = data.test_x.float() / 255, data.test_y
    else:
        model, x = mobilenet_v2(need_shared("models")).eval(), photographs(options.images)
        y = photographed(options.images)
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in torch.split(x[:500], 50)]) == y[:500]
    print(f"{int(right.sum())} of {len(right)} are classified right", flush=True)
    index = right.nonzero()[:, 0][: options.images]
    x, y, eps = x[index], y[index], options.eps / 255
    rows = []
    for ladder in options.ladders:
        for engine in options.engines:
            rows.append(ours(model, x, y, eps, ladder, engine))
            print(f"  {rows[-1]}", flush=True)
    for row in theirs(model, x, y, eps):
        rows.append(row)
        print(f"  {row}", flush=True)
    print(f"\n{options.model}, {len(x)} images, eps {options.eps:g}/255\n")
    print(table(["", "left standing", "forwards an image", "backwards an image", "processor seconds"], rows))


def photographed(count: int) -> Tensor:
    """The classes in the names of the photographs; class 0 of this network is the background."""
    files = sorted(need_shared("data", "photos").glob("imagenet_*.jpg"))[:count]
    return torch.tensor([int(file.stem.split("_")[2]) + 1 for file in files])


if __name__ == "__main__":
    main()
