"""standard@1, standard@2 and thorough@2: what each leaves standing, and for how many passes.

Two tables. The first is of reference models of ../shared. The second is of small networks on the built-in digits,
trained here with single steps so large that gradients hide; there exact search (a mixed-integer program, the extra
"exact") says of every example that is left standing whether it can be fooled at all: what "missed" counts.

The rungs of standard@2 were chosen on test images 2,000 to 2,299 of mnist_fgsm_rs, on networks for MNIST and
Fashion-MNIST that are not in ../shared, and on digits networks like "one layer", "convolution" and "three layers". A
first look at "held out" 1 to 3 changed the order of the rungs; 4 to 6 were added afterwards and run once.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from harness import machine, mnist, need_shared, table
from signstep.certify.certified import certified
from signstep.data import open_data
from signstep.data.digits import digits
from signstep.model.opening.weights import load_weights
from signstep.networks.small import cifar10_small, mnist_cnn

LADDERS = ("standard@1", "standard@2", "thorough@2")
BATCH = 250


@dataclass(frozen=True)
class Reference:
    """A model of ../shared, and the size it is attacked with."""

    build: Callable[[], nn.Module]
    data: str
    eps: float


REFERENCES = {
    "mnist_fgsm_rs": Reference(mnist_cnn, "mnist", 0.3),
    "mnist_standard": Reference(mnist_cnn, "mnist", 0.1),
    "cifar10_small_n_fgsm": Reference(cifar10_small, "cifar10", 8 / 255),
}


@dataclass(frozen=True)
class Hidden:
    """A small digits network: sign steps of ``train`` from starts of ``spread``, attacked with ``eps``."""

    widths: tuple[int, ...]
    train: float
    spread: float
    eps: float
    seed: int
    convolution: bool = False


HIDDEN = {
    "one layer": Hidden((40,), 0.35, 0.35, 0.15, 5),
    "convolution": Hidden((24,), 0.2, 0.0, 0.1, 3, convolution=True),
    "three layers": Hidden((32, 16, 16), 0.3, 0.0, 0.1, 1),
    "held out 1": Hidden((36,), 0.3, 0.3, 0.14, 11),
    "held out 2": Hidden((30, 16), 0.3, 0.3, 0.14, 12),
    "held out 3": Hidden((24,), 0.25, 0.25, 0.12, 13, convolution=True),
    "held out 4": Hidden((44,), 0.3, 0.3, 0.14, 21),
    "held out 5": Hidden((28, 20), 0.3, 0.3, 0.14, 22),
    "held out 6": Hidden((20,), 0.25, 0.25, 0.12, 23, convolution=True),
}


def trained(case: Hidden, epochs: int = 60) -> nn.Module:
    """By sign steps of 1.5 eps from a random start, or of eps from the input itself; Adam, one cycle."""
    torch.manual_seed(case.seed)
    parts: list[nn.Module] = [nn.Flatten()]
    size = 64
    if case.convolution:
        parts, size = [nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten()], 128
    for width in case.widths:
        parts += [nn.Linear(size, width), nn.ReLU()]
        size = width
    model = nn.Sequential(*parts, nn.Linear(size, 10))
    x, y = digits("train")
    x, eps, step = x.float(), case.train, case.train * (1.5 if case.spread else 1.0)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    batches = -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).tensor_split(batches):
            d = ((2 * torch.rand_like(x[index]) - 1) * case.spread).requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(x[index] + d), y[index]), d)
            there = (x[index] + (d + step * gradient.sign()).clamp(-eps, eps)).clamp(0, 1).detach()
            optimiser.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(there), y[index]))
            optimiser.step()
            schedule.step()
    return model.eval()


def images(data: str, first: int, count: int) -> tuple[Tensor, Tensor]:
    if data == "mnist":
        x, y = mnist("test")
    else:
        x, y = next(iter(open_data(need_shared("data", "cifar10", "test_first1000.npz"), batch_size=1000)))
        assert isinstance(x, Tensor)
        assert isinstance(y, Tensor)
    return x[first : first + count], y[first : first + count]


def climbed(model: nn.Module, x: Tensor, y: Tensor, eps: float, ladder: str) -> tuple[ss.Result, list[str]]:
    """The audit, and its cells: right untouched, left standing, forwards and backwards an image, seconds."""
    batches = [(x[start : start + BATCH], y[start : start + BATCH]) for start in range(0, len(x), BATCH)]
    began = time.perf_counter()
    result = ss.audit(model, batches, threat=ss.linf(eps), ladder=ladder, curve=False)
    seconds = time.perf_counter() - began
    spent = [sum(getattr(entry, kind) for entry in result.attacks) for kind in ("forwards", "backwards")]
    cells = [str(result.clean_right), str(result.held), *(f"{passes:.0f}" for passes in spent), f"{seconds:.0f}"]
    return result, cells


def references(names: list[str], first: int, count: int, ladders: list[str]) -> Iterator[list[str]]:
    for name in names:
        case = REFERENCES[name]
        model = case.build()
        load_weights(model, need_shared("models", f"{name}.safetensors"))
        x, y = images(case.data, first, count)
        for ladder in ladders:
            yield [f"{name}, {len(x)}", f"{case.eps:.3g}", ladder, *climbed(model.eval(), x, y, case.eps, ladder)[1]]


def hidden(names: list[str], count: int, ladders: list[str]) -> Iterator[list[str]]:
    x, y = (part[:count] for part in digits("test"))
    x = x.float()
    for name in names:
        case = HIDDEN[name]
        model = trained(case)
        proved: dict[int, bool] = {}
        for ladder in ladders:
            result, cells = climbed(model, x, y, case.eps, ladder)
            left = [row for row, letter in enumerate(result.worst_case) if letter == "h"]
            for row in left:
                if row not in proved:
                    here = slice(row, row + 1)
                    proof = certified(model, x[here], y[here], threat=ss.linf(case.eps), method="exact")
                    proved[row] = bool(proof[0])
            missed = sum(not proved[row] for row in left)
            yield [f"{name}, {count}", f"{case.eps:.3g}", ladder, *cells, str(missed)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=list(REFERENCES), default=list(REFERENCES))
    parser.add_argument("--hidden", nargs="*", choices=list(HIDDEN), default=list(HIDDEN))
    parser.add_argument("--first", type=int, default=0, help="index of the first test image of the reference models")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--digits", type=int, default=100, help="examples of each digits network")
    parser.add_argument("--ladders", nargs="*", default=list(LADDERS))
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    header = ["model, images", "eps", "ladder", "right", "left standing", "forwards", "backwards", "seconds"]
    print(machine(), flush=True)
    if options.models:
        rows = list(references(options.models, options.first, options.images, options.ladders))
        print("\n" + table(header, rows), flush=True)
    if options.hidden:
        print("\n" + table([*header, "not proved"], list(hidden(options.hidden, options.digits, options.ladders))))


if __name__ == "__main__":
    main()
