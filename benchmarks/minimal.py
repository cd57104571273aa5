"""Smallest changes on a reference model of ../shared, beside Foolbox's attack of the same name at equal steps.

A distance counts where the model, asked again in plain torch, is fooled at the returned point; rows that were fooled
nowhere count as infinitely far. Passes are forward and backward passes of the model for each example, counted from
outside by hooks, the same way for both.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import signstep as ss
from harness import machine, mnist, need_shared, rival, rivals_line, table
from signstep.model.opening.weights import load_weights
from signstep.networks.small import mnist_cnn

ORDER = {"l2": 2.0, "linf": float("inf"), "l1": 1.0}


@dataclass(frozen=True)
class Duel:
    """A recipe, its norm, and Foolbox's attack: the name of its class and its options."""

    recipe: str
    norm: str
    rival: str | None = None
    options: tuple[tuple[str, int], ...] = ()


def duels(steps: int) -> tuple[Duel, ...]:
    same = (("steps", steps),)
    searches = (("binary_search_steps", 6), ("steps", steps))
    return (
        Duel("deepfool:steps=50", "l2", "L2DeepFoolAttack", (("steps", 50),)),
        Duel("deepfool:steps=50", "linf", "LinfDeepFoolAttack", (("steps", 50),)),
        Duel(f"ddn:steps={steps}", "l2", "DDNAttack", same),
        Duel(f"fmn:steps={steps}", "l2", "L2FMNAttack", same),
        Duel(f"fmn:steps={steps}", "linf", "LInfFMNAttack", same),
        Duel(f"fmn:steps={steps}", "l1", "L1FMNAttack", same),
        Duel(f"cw:searches=6,steps={steps}", "l2", "L2CarliniWagnerAttack", searches),
        Duel(f"fab:steps={steps},targets=9", "l2"),
        Duel(f"fab:steps={steps},targets=9", "linf"),
        Duel(f"fab:steps={steps},targets=9", "l1"),
    )


class Passes:
    """Counts rows that go through the model, forwards and backwards."""

    def __init__(self, model: nn.Module) -> None:
        self.forwards = self.backwards = 0
        model.register_forward_hook(self._forward)

    def _forward(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG002
        self.forwards += len(output)
        if output.requires_grad:
            output.register_hook(self._backward)  # type: ignore[no-untyped-call]

    def _backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def distances(model: nn.Module, x: Tensor, y: Tensor, found: Tensor, norm: str) -> Tensor:
    """Lengths in float64; inf where the model is right."""
    with torch.no_grad():
        fooled = model(found).argmax(1) != y
    length = torch.linalg.vector_norm((found.double() - x.double()).flatten(1), ORDER[norm], dim=1)
    return torch.where(fooled, length, torch.inf)


def row(
    model: nn.Module, x: Tensor, y: Tensor, passes: Passes, name: str, norm: str, run: Callable[[], Tensor]
) -> tuple[str, ...]:
    passes.forwards = passes.backwards = 0
    began = time.perf_counter()
    found = run()
    seconds = time.perf_counter() - began
    forwards, backwards = passes.forwards / len(x), passes.backwards / len(x)
    length = distances(model, x, y, found, norm)
    none = int(torch.isinf(length).sum())
    return (
        name,
        norm,
        f"{float(length.median()):.4f}",
        f"{float(length[torch.isfinite(length)].mean()):.4f}",
        str(none),
        f"{forwards:.0f}",
        f"{backwards:.0f}",
        f"{seconds:.1f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mnist_standard", help="a reference model for MNIST in ../shared/models")
    parser.add_argument("--examples", type=int, default=200, help="of the first test images")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", default="", help="recipes whose name begins with this")
    parser.add_argument("--threads", type=int, help="threads of torch (default: as torch decides)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    model = mnist_cnn()
    load_weights(model, need_shared("models", f"{options.model}.safetensors"))
    model.eval()
    x, y = (part[: options.examples] for part in mnist("test"))
    passes = Passes(model)
    foolbox: Any = rival("Foolbox")
    print(machine())
    print(rivals_line(), "\n")
    rows = []
    for duel in duels(options.steps):
        if not duel.recipe.startswith(options.only):
            continue

        def ours(duel: Duel = duel) -> Tensor:
            outcome = ss.attack(model, x, y, threat=ss.threat_model(duel.norm, None), recipe=duel.recipe)
            assert isinstance(outcome.x, Tensor)
            return outcome.x

        rows.append(row(model, x, y, passes, duel.recipe, duel.norm, ours))
        if foolbox is None or duel.rival is None:
            continue
        attack = getattr(foolbox.attacks, duel.rival)(**dict(duel.options))
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")

        def theirs(attack: Any = attack, wrapped: Any = wrapped) -> Tensor:
            found: Tensor = attack(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=None)[0]
            return found.detach()

        rows.append(row(model, x, y, passes, f"  Foolbox {duel.rival}", duel.norm, theirs))
    header = ("attack", "norm", "median", "mean", "none", "forwards", "backwards", "seconds")
    print(f"{options.model}, the first {len(x)} test images, {options.steps} steps (DeepFool: at most 50)\n")
    print(table(header, rows))
    print('\n"none": rows fooled nowhere, which count in the median; the mean is over the others.')


if __name__ == "__main__":
    main()
