"""A step of adversarial training against the same step written bare, and with other libraries' attacks inside.

Contenders run round-robin in a new order each round; ratios are medians over rounds of the ratio to the bare step in
the same round. "bare, again" is the bare step a second time: what its ratio differs from 1 is noise of the
machine. Every contender trains a model of its own on the same batches with Adam; the attack runs in training mode, as
the bare step's does.
"""

import argparse
import copy
import importlib
import warnings
from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from harness import Attack, checked_device, machine, race, rival, rivals_line, table
from signstep.engine.untouched import untouched
from signstep.networks.preact import preact_resnet18
from signstep.networks.small import cifar10_small, mnist_cnn
from signstep.train.recipes import training_recipe
from signstep.train.run import Run
from signstep.train.settings import Settings

BATCH, BATCHES = 100, 8
Step = Callable[[], object]
# The networks that a step can be taken of: how they are made, the shape of an input, eps.
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "mnist_cnn": (mnist_cnn, (1, 28, 28), 0.3),
    "cifar10_small": (cifar10_small, (3, 32, 32), 8 / 255),
    "preact_resnet18": (preact_resnet18, (3, 32, 32), 8 / 255),
}


def bare_fgsm_rs(model: nn.Module, eps: float) -> Attack:
    """Wong, Rice & Kolter 2020, algorithm 3, as one writes it by hand."""

    def craft(x: Tensor, y: Tensor) -> Tensor:
        d = torch.empty_like(x).uniform_(-eps, eps)
        u = (x + d).requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(u), y), u)
        d = torch.clamp(d + 1.25 * eps * gradient.sign(), -eps, eps)
        return torch.clamp(x + d, 0, 1)

    return craft


def bare_pgd(model: nn.Module, eps: float) -> Attack:
    """Ten steps of eps / 4 from a uniform start."""

    def craft(x: Tensor, y: Tensor) -> Tensor:
        u = torch.clamp(x + torch.empty_like(x).uniform_(-eps, eps), 0, 1)
        for _ in range(10):
            u.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(u), y), u)
            u = torch.clamp(u.detach() + eps / 4 * gradient.sign(), x - eps, x + eps).clamp_(0, 1)
        return u

    return craft


BARE = {"fgsm-rs": bare_fgsm_rs, "pgd-at": bare_pgd}


def stepping(model: nn.Module, x: Tensor, y: Tensor, attack: Callable[[nn.Module], Attack]) -> Step:
    """One training step at each call, on the batches in turn."""
    model = copy.deepcopy(model).train()
    craft = attack(model)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    turn = count()

    def step() -> None:
        part = slice(BATCH * (next(turn) % BATCHES), None)
        rows, labels = x[part][:BATCH], y[part][:BATCH]
        crafted = craft(rows, labels)
        optimiser.zero_grad()
        F.cross_entropy(model(crafted), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def with_loss(model: nn.Module, x: Tensor, y: Tensor, recipe: str, eps: float) -> Step:
    """`ss.adversarial_loss` in the same loop."""
    model = copy.deepcopy(model).train()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    turn, threat = count(), ss.linf(eps)

    def step() -> None:
        part = slice(BATCH * (next(turn) % BATCHES), None)
        loss = ss.adversarial_loss(model, x[part][:BATCH], y[part][:BATCH], recipe, threat=threat)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def with_loop(model: nn.Module, x: Tensor, y: Tensor, recipe: str, eps: float) -> Step:
    """A step of the loop behind ``signstep train``."""
    settings = Settings(epochs=10_000, batch=BATCH, rate=1e-3, validation=0.0, on_collapse="ignore")
    return Run(copy.deepcopy(model), x, y, ss.linf(eps), training_recipe(recipe), settings).advance


def rivals(recipe: str, eps: float, shape: tuple[int, ...], device: str) -> dict[str, Callable[[nn.Module], Attack]]:
    """Each installed library's nearest attack, from a model to the attack on it."""
    found: dict[str, Callable[[nn.Module], Attack]] = {}
    if (torchattacks := rival("torchattacks")) is not None:
        if recipe == "fgsm-rs":
            found["torchattacks FFGSM"] = lambda model: torchattacks.FFGSM(model, eps=eps, alpha=1.25 * eps)
        else:
            found["torchattacks PGD"] = lambda model: torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=10)
    if (art := rival("ART")) is not None:
        estimators = importlib.import_module("art.estimators.classification")

        def art_attack(model: nn.Module) -> Attack:
            classifier = estimators.PyTorchClassifier(
                model,
                nn.CrossEntropyLoss(),
                shape,
                10,
                clip_values=(0.0, 1.0),
                device_type="cpu" if device == "cpu" else "gpu",
            )
            if recipe == "fgsm-rs":
                method = art.FastGradientMethod(
                    classifier, eps=eps, eps_step=1.25 * eps, num_random_init=1, batch_size=BATCH
                )
            else:
                method = art.ProjectedGradientDescentPyTorch(
                    classifier,
                    eps=eps,
                    eps_step=eps / 4,
                    max_iter=10,
                    num_random_init=1,
                    batch_size=BATCH,
                    verbose=False,
                )

            def craft(x: Tensor, y: Tensor) -> Tensor:
                crafted = torch.from_numpy(method.generate(x.cpu().numpy(), y.cpu().numpy())).to(x.device)
                model.train()  # it leaves the model in evaluation mode
                return crafted

            return craft

        found["ART"] = art_attack
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--net", choices=NETS, default="mnist_cnn")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    device = checked_device(arguments.device)
    print(machine(device), rivals_line(), sep="\n")
    torch.manual_seed(0)
    build, shape, eps = NETS[arguments.net]
    net = build().to(device)
    x, y = torch.rand(BATCH * BATCHES, *shape).to(device), torch.randint(10, (BATCH * BATCHES,)).to(device)
    for recipe, bare in BARE.items():

        def written(model: nn.Module, bare: Callable[[nn.Module, float], Attack] = bare) -> Attack:
            return bare(model, eps)

        steps: dict[str, Step] = {
            "bare": stepping(net, x, y, written),
            "bare, again": stepping(net, x, y, written),
            "ss.adversarial_loss": with_loss(net, x, y, recipe, eps),
            "signstep train": with_loop(net, x, y, recipe, eps),
        }
        for name, attack in rivals(recipe, eps, shape, device).items():
            steps[name] = stepping(net, x, y, attack)
        with untouched():
            times = race(steps, "bare", arguments.rounds, device=device)
        rows = [
            (name, f"{t.median:.1f}", f"{t.least:.1f}", f"{t.ratio:.3f}", f"{t.ratio_of_least:.3f}")
            for name, t in times.items()
        ]
        print(
            "",
            table((f"{recipe}, {arguments.net}, {BATCH} rows", "median ms", "least ms", "ratio", "of least"), rows),
            sep="\n",
        )


if __name__ == "__main__":
    main()
