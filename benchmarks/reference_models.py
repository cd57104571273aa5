"""The reference models of ../shared: clean, FGSM and PGD accuracy beside the figures stated there.

The stated FGSM figures were made with float32 cross-entropy, whose gradient underflows on confident examples; with
``loss="plain-ce"`` Signstep must give them to the last digit. The default loss searches on log-odds, which do not
underflow; the column "CE in float64" takes the sign from the same weights and cross-entropy in double precision, in
plain torch, and tells which of the two is right.
"""

import argparse
import copy
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import signstep as ss
from harness import bare_fgsm, machine, mnist, need_shared, percent, table
from signstep.data import open_data
from signstep.model.opening.weights import load_weights
from signstep.networks.small import cifar10_small, mnist_cnn


@dataclass(frozen=True)
class Reference:
    """A model with the accuracies stated in ../shared/README.md."""

    name: str
    build: Callable[[], nn.Module]
    data: str
    eps: float
    clean: str
    fgsm: str


REFERENCES = (
    Reference("mnist_standard", mnist_cnn, "mnist", 0.3, "98.82", "1.64"),
    Reference("mnist_fgsm_rs", mnist_cnn, "mnist", 0.3, "98.68", "95.35"),
    Reference("mnist_collapsed", mnist_cnn, "mnist", 0.3, "78.71", "98.87"),
    Reference("cifar10_small_n_fgsm", cifar10_small, "cifar10", 8 / 255, "62.50", "44.30"),
)


def batches(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(x), 500):
        yield x[start : start + 500], y[start : start + 500]


def accuracy(model: nn.Module, x: Tensor, y: Tensor, eps: float, recipe: str, loss: str | None) -> tuple[float, int]:
    """Accuracy on the attacked points of all examples, and how many are undetermined."""
    right, undetermined = 0, 0
    for part, labels in batches(x, y):
        outcome = ss.attack(model, part, labels, threat=ss.linf(eps), recipe=recipe, search=ss.Search(loss=loss))
        right += int((~outcome.fooled).sum())
        undetermined += int(outcome.undetermined.sum())
    return right / len(x), undetermined


def clean_accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return sum(int((model(part).argmax(1) == labels).sum()) for part, labels in batches(x, y)) / len(x)


def float64_fgsm(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> float:
    """Accuracy with the sign of float64 cross-entropy, without Signstep; the verdict is the float32 model's own."""
    craft = bare_fgsm(copy.deepcopy(model).double(), eps)
    points = [craft(part.double(), to) for part, to in batches(x, y)]
    steps = torch.cat(points).sub(x.double()).sign().float()
    return clean_accuracy(model, (x + eps * steps).clamp(0, 1), y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pgd", default="pgd:steps=20", help="the recipe in the last column")
    parser.add_argument("--threads", type=int, help="threads of torch (default: as torch decides)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    need_shared("models")
    cifar = open_data(need_shared("data", "cifar10", "test_first1000.npz"), batch_size=1000)
    data = {"mnist": mnist("test"), "cifar10": next(iter(cifar))}
    print(machine(), "\n")
    header = (
        "accuracy, %",
        "clean",
        "stated",
        "FGSM, plain-ce",
        "stated",
        "equal",
        "undetermined",
        "CE in float64",
        "FGSM, default",
        options.pgd,
        "seconds",
    )
    rows = []
    for reference in REFERENCES:
        began = time.perf_counter()
        model = reference.build()
        load_weights(model, need_shared("models", f"{reference.name}.safetensors"))
        model.eval()
        x, y = data[reference.data]
        clean = percent(clean_accuracy(model, x, y))
        plain, undetermined = accuracy(model, x, y, reference.eps, "fgsm", "plain-ce")
        default, _ = accuracy(model, x, y, reference.eps, "fgsm", None)
        pgd, _ = accuracy(model, x, y, reference.eps, options.pgd, None)
        rows.append(
            (
                reference.name,
                clean,
                reference.clean,
                percent(plain),
                reference.fgsm,
                "yes" if (clean, percent(plain)) == (reference.clean, reference.fgsm) else "NO",
                str(undetermined),
                percent(float64_fgsm(model, x, y, reference.eps)),
                percent(default),
                percent(pgd),
                f"{time.perf_counter() - began:.0f}",
            )
        )
    print(table(header, rows))
    print('\n"undetermined": examples of the plain-ce run whose gradient vanished altogether, out of all examples.')


if __name__ == "__main__":
    main()
