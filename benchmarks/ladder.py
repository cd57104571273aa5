"""Robust accuracy against time: Signstep's ladders beside AutoAttack, on the reference models of ../shared.

AutoAttack is torchattacks' in the same run, its four attacks one after the other, each on the images that the ones
before have not fooled; the official figures of ../shared/README.md (seed 0, two cores of their machine) are printed
beside it. Passes are per image of the whole set.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import signstep as ss
from harness import machine, mnist, need_shared, percent, rival, table
from signstep.data import open_data
from signstep.model.opening.weights import load_weights
from signstep.model.twin import Engine
from signstep.networks.small import cifar10_small, mnist_cnn

BATCH = 250


@dataclass(frozen=True)
class Case:
    """A reference model with the official figures: (attack, seconds so far, robust accuracy after it)."""

    name: str
    build: Callable[[], nn.Module]
    data: str
    images: int
    eps: float
    official: tuple[tuple[str, float, float], ...]


CASES = {
    case.name: case
    for case in (
        Case(
            "mnist_fgsm_rs",
            mnist_cnn,
            "mnist",
            1000,
            0.3,
            (("APGD-CE", 5, 84.2), ("APGD-T", 59, 82.4), ("FAB-T", 195, 82.3), ("Square", 366, 78.5)),
        ),
        Case(
            "cifar10_small_n_fgsm",
            cifar10_small,
            "cifar10",
            500,
            8 / 255,
            (("APGD-CE", 39, 39.6), ("APGD-T", 249, 34.8), ("FAB-T", 593, 34.8), ("Square", 1077, 34.8)),
        ),
        Case("mnist_standard", mnist_cnn, "mnist", 1000, 0.3, ()),
        Case("mnist_collapsed", mnist_cnn, "mnist", 1000, 0.3, ()),
    )
}

Row = list[str]


def images(case: Case, first: int, count: int) -> tuple[Tensor, Tensor]:
    if case.data == "mnist":
        x, y = mnist("test")
    else:
        source = open_data(need_shared("data", "cifar10", "test_first1000.npz"), batch_size=1000)
        x, y = next(iter(source))
        assert isinstance(x, Tensor)
        assert isinstance(y, Tensor)
    return x[first : first + count], y[first : first + count]


def ours(model: nn.Module, x: Tensor, y: Tensor, eps: float, ladder: str, engine: Engine) -> list[Row]:
    batches = [(x[start : start + BATCH], y[start : start + BATCH]) for start in range(0, len(x), BATCH)]
    began = time.perf_counter()
    result = ss.audit(model, batches, threat=ss.linf(eps), ladder=ladder, curve=False, engine=engine)
    whole = time.perf_counter() - began
    standing, seconds, forwards, backwards, rows = result.clean_right, 0.0, 0.0, 0.0, []
    for entry in result.attacks:
        standing -= entry.fooled
        seconds, forwards, backwards = seconds + entry.seconds, forwards + entry.forwards, backwards + entry.backwards
        rows.append(
            [
                f"{ladder} {engine}: {entry.name}",
                str(entry.entered),
                percent(standing / result.examples),
                f"{seconds:.1f}",
                f"{forwards:.0f}",
                f"{backwards:.0f}",
            ]
        )
    rows.append(
        [
            f"**{ladder} {engine}, all told**",
            "",
            percent(result.robust_accuracy),
            f"{whole:.1f}",
            f"{forwards:.0f}",
            f"{backwards:.0f}",
        ]
    )
    return rows


def theirs(model: nn.Module, x: Tensor, y: Tensor, eps: float, attacks: Sequence[str]) -> list[Row]:
    """torchattacks' AutoAttack, attack by attack; every point is scored by the model once more."""
    torchattacks = rival("torchattacks")
    if torchattacks is None:
        return [["torchattacks: not installed", "", "", "", "", ""]]
    build = {
        "APGD-CE": lambda: torchattacks.APGD(model, eps=eps, norm="Linf", steps=100, seed=0, loss="ce", n_restarts=1),
        "APGD-T": lambda: torchattacks.APGDT(
            model, eps=eps, norm="Linf", steps=100, seed=0, n_classes=10, n_restarts=1
        ),
        "FAB-T": lambda: torchattacks.FAB(
            model, eps=eps, norm="Linf", steps=100, seed=0, n_classes=10, n_restarts=1, multi_targeted=True
        ),
        "Square": lambda: torchattacks.Square(model, eps=eps, norm="Linf", n_queries=5000, seed=0, n_restarts=1),
    }
    counts = {"forwards": 0, "backwards": 0}

    def count(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        counts["forwards"] += len(inputs[0])
        counts["backwards"] += len(inputs[0]) * int(inputs[0].requires_grad)

    with torch.no_grad():
        standing = model(x).argmax(1) == y
    seconds, rows = 0.0, []
    handle = model.register_forward_hook(count)
    for name in attacks:
        entered = int(standing.sum())
        began = time.perf_counter()
        for start in range(0, len(x), BATCH):
            index = standing[start : start + BATCH].nonzero()[:, 0] + start
            if len(index):
                crafted = build[name]()(x[index], y[index])
                assert float((crafted - x[index]).abs().max()) <= eps + 1e-6
                with torch.no_grad():
                    standing[index] = model(crafted).argmax(1) == y[index]
        seconds += time.perf_counter() - began
        rows.append(
            [
                f"torchattacks {name}",
                str(entered),
                percent(float(standing.float().mean())),
                f"{seconds:.1f}",
                f"{counts['forwards'] / len(x):.0f}",
                f"{counts['backwards'] / len(x):.0f}",
            ]
        )
        print(f"  torchattacks {name}: {rows[-1][2]} after {seconds:.0f} s", flush=True)
    handle.remove()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=[*CASES, "all"], default="mnist_fgsm_rs")
    parser.add_argument("--first", type=int, default=0, help="index of the first test image")
    parser.add_argument("--images", type=int, help="how many; default: as many as the official figures are for")
    parser.add_argument("--ladders", default="quick@1,standard@1")
    parser.add_argument("--engines", default="exact,fast")
    parser.add_argument("--rival", default="APGD-CE,APGD-T,FAB-T,Square", help="AutoAttack's attacks to run, or none")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    print(machine(), "\n")
    for case in CASES.values() if options.model == "all" else [CASES[options.model]]:
        model = case.build()
        load_weights(model, need_shared("models", f"{case.name}.safetensors"))
        model.eval()
        x, y = images(case, options.first, options.images or case.images)
        with torch.no_grad():
            clean = float((model(x).argmax(1) == y).float().mean())
        rows: list[Row] = [["untouched", str(len(x)), percent(clean), "0", "1", "0"]]
        for ladder in filter(None, options.ladders.split(",")):
            for engine in options.engines.split(","):
                rows += ours(model, x, y, case.eps, ladder, engine)
                print(f"  {ladder} {engine}: {rows[-1][2]} after {rows[-1][3]} s", flush=True)
        if options.rival != "none":
            rows += theirs(model, x, y, case.eps, options.rival.split(","))
        if options.first == 0 and len(x) == case.images:
            rows += [
                [f"official {name}", "", f"{robust:.2f} %", f"{at:.0f}", "", ""] for name, at, robust in case.official
            ]
        print(f"\n{case.name}, images {options.first} to {options.first + len(x) - 1}, L-infinity eps {case.eps:.4g}\n")
        print(table(["after", "entered", "robust accuracy", "seconds", "forwards", "backwards"], rows), "\n")


if __name__ == "__main__":
    main()
