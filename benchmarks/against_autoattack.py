"""A ladder against torchattacks' AutoAttack on larger networks: what each leaves standing, for how many passes.

Passes are counted at the network itself, one forward or backward pass of one image each, for both sides alike; seconds
are processor seconds of the same process, so that other work on the machine adds little. "resnet18" is a ResNet-18 with
BatchNorm that is trained here for a few epochs (kept in --weights), on test images of CIFAR-10; "mobilenet" is
MobileNetV2 on photographs. Weights, images and labels lie in ../shared. Only images that are classified right enter.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from cifar10_data import load_cifar10
from harness import machine, need_shared, rival, rivals_line, table
from signstep.model.twin import Engine
from signstep.networks.mobilenet import mobilenet_v2
from signstep.networks.small import resnet18_cifar
from standard_cost import photographs


def trained(weights: Path | None, count: int, epochs: int, seed: int) -> nn.Module:
    """The ResNet-18, from ``weights`` if they are there: SGD with one cycle, flips and shifts, bfloat16 products."""
    torch.manual_seed(seed)
    model = resnet18_cifar().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if weights is not None and weights.exists():
        model.load_state_dict(torch.load(weights, weights_only=True))
    else:
        data = load_cifar10(need_shared("data", "cifar10"))
        x, y = data.x[:count].float() / 255, data.y[:count]
        batches = len(x) // 100
        optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=epochs * batches)
        for epoch in range(epochs):
            for index in torch.randperm(len(x)).tensor_split(batches):
                top, left = (int(torch.randint(5, ())) for _ in range(2))
                here = F.pad(x[index], (2, 2, 2, 2))[:, :, top : top + 32, left : left + 32]
                here = torch.where(torch.rand(len(here), 1, 1, 1) < 0.5, here, here.flip(3))
                with torch.autocast("cpu", torch.bfloat16):
                    loss = F.cross_entropy(model(here.to(memory_format=torch.channels_last)), y[index])
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
                schedule.step()
            print(f"  epoch {epoch + 1} of {epochs}, last loss {float(loss.detach()):.2f}", flush=True)
        if weights is not None:
            torch.save(model.state_dict(), weights)
    return model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


@dataclass
class Passes:
    """Forward and backward passes of single images through the network or its twin."""

    forwards: int = 0
    backwards: int = 0

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A forward hook: counts the pass, and the one back through it."""
        self.forwards += len(inputs[0])
        if output.requires_grad:
            output.register_hook(self._back)

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
    parser.add_argument("--model", choices=("resnet18", "mobilenet"), default="resnet18")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--eps", type=float, default=1.0, help="radius in 255ths")
    parser.add_argument("--ladders", nargs="*", default=["standard@1"])
    parser.add_argument("--engines", nargs="*", choices=("exact", "float32", "fast"), default=["exact", "fast"])
    parser.add_argument("--train", type=int, default=10_000, help="images that the ResNet-18 is trained on")
    parser.add_argument("--epochs", type=int, default=2, help="of training the ResNet-18")
    parser.add_argument("--weights", type=Path, help="where the trained ResNet-18 is kept")
    parser.add_argument("--seed", type=int, default=0, help="of training")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    print(machine(), "\n" + rivals_line(), flush=True)
    if options.model == "resnet18":
        model = trained(options.weights, options.train, options.epochs, options.seed)
        data = load_cifar10(need_shared("data", "cifar10"))
        x, y = data.test_x.float() / 255, data.test_y
    else:
        model, x = mobilenet_v2(need_shared("models")).eval(), photographs(options.images)
        y = photographed(options.images)
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in x[:500].split(50)]) == y[:500]
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
