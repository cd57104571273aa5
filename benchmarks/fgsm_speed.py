"""FGSM's cost against a bare ``autograd.grad`` loop and against other libraries, all in one run.

Two tables: crafting alone, and crafting with the verdict on the returned points. Contenders run round-robin in a new
order each round; ratios are medians over rounds of the ratio to the bare loop in the same round. "bare, again" is the
bare loop a second time: what its ratio differs from 1 is noise of the machine.
"""

import argparse
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

import signstep as ss
from harness import RIVALS, Attack, Timing, bare_fgsm, machine, race, rival, rival_fgsm, rivals_line, table
from signstep.networks.small import mnist_cnn, resnet18_cifar

EPS = 8 / 255


def contenders(
    model: nn.Module, x: Tensor, y: Tensor
) -> tuple[dict[str, Callable[[], Tensor]], dict[str, Callable[[], Tensor]]]:
    """Functions that craft, and functions that craft and return which rows the model now gets wrong."""
    threat = ss.linf(EPS)
    bare = bare_fgsm(model, EPS)
    others = rival_fgsm(model, EPS, tuple(x.shape[1:]))

    def judged(attack: Attack) -> Tensor:
        crafted = attack(x, y)
        with torch.no_grad():
            wrong: Tensor = model(crafted).argmax(1) != y
        return wrong

    craft: dict[str, Callable[[], Tensor]] = {
        "bare loop": lambda: bare(x, y),
        "bare, again": lambda: bare(x, y),
        "signstep": lambda: ss.fgsm(model, x, y, eps=EPS),
        "signstep float32": lambda: ss.fgsm(model, x, y, eps=EPS, search=ss.Search(engine="float32")),
        "signstep fast": lambda: ss.fgsm(model, x, y, eps=EPS, search=ss.Search(engine="fast")),
    }
    verdict: dict[str, Callable[[], Tensor]] = {
        "bare loop": lambda: judged(bare),
        "bare, again": lambda: judged(bare),
        "signstep": lambda: ss.attack(model, x, y, recipe="fgsm", threat=threat).fooled,
        "signstep float32": lambda: ss.attack(model, x, y, recipe="fgsm", threat=threat, engine="float32").fooled,
        "signstep fast": lambda: ss.attack(model, x, y, recipe="fgsm", threat=threat, engine="fast").fooled,
    }
    for name, attack in others.items():
        craft[name] = lambda attack=attack: attack(x, y)  # type: ignore[misc]
        verdict[name] = lambda attack=attack: judged(attack)  # type: ignore[misc]
    if (foolbox := rival("Foolbox")) is not None:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        method = foolbox.attacks.LinfFastGradientAttack()
        verdict["Foolbox"] = lambda: method(wrapped, x, y, epsilons=EPS)[2]  # its own call judges, too
    return craft, verdict


def agreement(functions: dict[str, Callable[[], Tensor]]) -> dict[str, str]:
    """The share of entries in which each contender gives what the bare loop gives."""
    expected = functions["bare loop"]()
    return {
        name: f"{100 * float((run() - expected).abs().lt(1e-6).float().mean()):.2f} %"
        for name, run in functions.items()
    }


def report(title: str, times: dict[str, Timing], agrees: dict[str, str]) -> None:
    header = (title, "median ms", "least ms", "ratio", "ratio of least", "same")
    rows = [
        (name, f"{t.median:.2f}", f"{t.least:.2f}", f"{t.ratio:.3f}", f"{t.ratio_of_least:.3f}", agrees[name])
        for name, t in times.items()
    ]
    rows += [(name, "not installed", "", "", "", "") for name in RIVALS if rival(name) is None]
    print(table(header, rows), "\n")


def measure(title: str, model: nn.Module, shape: tuple[int, ...], rounds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator)
    y = torch.randint(10, (shape[0],), generator=generator)
    model.eval()
    craft, verdict = contenders(model, x, y)
    print(f"## {title}, batch {shape[0]}, {rounds} rounds\n")
    same = agreement(craft)
    report("crafting alone", race(craft, "bare loop", rounds), same)
    fooled = agreement({name: lambda run=run: run().float() for name, run in verdict.items()})  # type: ignore[misc]
    report("with verdict", race(verdict, "bare loop", rounds), fooled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="threads of torch (default: as torch decides)")
    parser.add_argument("--rounds", type=int, default=300, help="rounds with the MNIST CNN; ResNet-18 takes a tenth")
    parser.add_argument("--model", choices=("mnist", "resnet18", "both"), default="both")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # rivals warn about the versions of their own dependencies
    torch.manual_seed(0)
    print(f"{machine()}\n{rivals_line()}\n")
    if options.model != "resnet18":
        measure("MNIST CNN, 28x28", mnist_cnn(), (256, 1, 28, 28), options.rounds)
    if options.model != "mnist":
        measure("ResNet-18, 32x32", resnet18_cifar(), (64, 3, 32, 32), max(5, options.rounds // 10))


if __name__ == "__main__":
    main()
