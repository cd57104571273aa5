"""PGD-50 with 10 restarts at equal settings: Signstep, torchattacks and Foolbox, with the passes they took.

Equal settings: L-infinity, steps of 2.5 eps / 50 from uniform starts, 10 restarts. torchattacks' PGD has no restarts
and Foolbox's `repeat` keeps all rows: both are run ten times on all images and combined pointwise, as users do.
Signstep drops a row when it is fooled. Every engine's points are scored by the model itself.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

import signstep as ss
from harness import machine, mnist, need_shared, percent, rival, rivals_line, table
from signstep.model.opening.weights import load_weights
from signstep.networks.small import mnist_cnn, resnet18_cifar

STEPS, RESTARTS, BATCH = 50, 10, 250


class Counter:
    """Rows that went forward, and rows whose forward pass was recorded for a gradient."""

    def __init__(self) -> None:
        self.forwards = self.backwards = 0

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        """As a forward hook."""
        self.forwards += len(inputs[0])
        self.backwards += len(inputs[0]) * int(inputs[0].requires_grad)


def signstep_run(engine: str) -> Callable[[nn.Module, Tensor, Tensor, float], tuple[Tensor, float, float]]:
    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, float, float]:
        right, forwards, backwards = [], 0.0, 0.0
        for start in range(0, len(x), BATCH):
            part, labels = x[start : start + BATCH], y[start : start + BATCH]
            recipe = f"pgd:steps={STEPS},restarts={RESTARTS}"
            outcome = ss.attack(model, part, labels, threat=ss.linf(eps), recipe=recipe, engine=engine)  # type: ignore[arg-type]
            right.append(~outcome.fooled)
            forwards += float(outcome.forwards.sum())
            backwards += float(outcome.backwards.sum())
        return torch.cat(right), forwards, backwards

    return run


def torchattacks_run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, float, float]:
    counter = Counter()
    handle = model.register_forward_hook(counter)
    attack = rival("torchattacks").PGD(model, eps=eps, alpha=2.5 * eps / STEPS, steps=STEPS, random_start=True)
    right = torch.ones(len(x), dtype=torch.bool)
    for _ in range(RESTARTS):
        for start in range(0, len(x), BATCH):
            part = slice(start, start + BATCH)
            crafted = attack(x[part], y[part])
            with torch.no_grad():
                right[part] &= model(crafted).argmax(1) == y[part]
    handle.remove()
    return right, counter.forwards, counter.backwards


def foolbox_run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, float, float]:
    counter = Counter()
    handle = model.register_forward_hook(counter)
    foolbox = rival("Foolbox")
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=2.5 * eps / STEPS, steps=STEPS, random_start=True)
    right = torch.ones(len(x), dtype=torch.bool)
    for _ in range(RESTARTS):
        for start in range(0, len(x), BATCH):
            part = slice(start, start + BATCH)
            _, crafted, _ = attack(wrapped, x[part], y[part], epsilons=eps)
            with torch.no_grad():
                right[part] &= model(crafted).argmax(1) == y[part]
    handle.remove()
    return right, counter.forwards, counter.backwards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["mnist_fgsm_rs", "mnist_standard", "resnet18", "all"], default="all")
    parser.add_argument("--images", type=int, default=500, help="of MNIST; ResNet-18 takes a tenth")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    print(machine(), "\n", rivals_line(), "\n")
    for name in ["mnist_fgsm_rs", "mnist_standard", "resnet18"] if options.model == "all" else [options.model]:
        model, x, y, eps = case(name, options.images)
        contenders = {"Signstep exact": signstep_run("exact"), "Signstep fast": signstep_run("fast")}
        if rival("torchattacks") is not None:
            contenders = {"torchattacks": torchattacks_run, **contenders}
        if rival("Foolbox") is not None:
            contenders["Foolbox"] = foolbox_run
        rows, base = [], None
        for contender, run in contenders.items():
            began = time.perf_counter()
            right, forwards, backwards = run(model, x, y, eps)
            seconds = time.perf_counter() - began
            base = seconds if base is None else base
            rows.append(
                [
                    contender,
                    f"{seconds:.1f}",
                    f"{seconds / base:.2f}",
                    percent(float(right.float().mean())),
                    f"{forwards / len(x):.0f}",
                    f"{backwards / len(x):.0f}",
                ]
            )
            print(f"  {name} {contender}: {seconds:.1f} s", flush=True)
        first = next(iter(contenders))
        print(f"\n{name}, {len(x)} images, eps {eps:.4g}, PGD-{STEPS} with {RESTARTS} restarts\n")
        print(table(["", "seconds", f"of {first}", "robust accuracy", "forwards", "backwards"], rows), "\n")


def case(name: str, images: int) -> tuple[nn.Module, Tensor, Tensor, float]:
    """A model, images, labels and eps; the ResNet-18 has random weights, and its labels are its own answers.

    A random network's margins are tiny beside its gradients, so eps is set where part of the rows survives.
    """
    if name != "resnet18":
        model: nn.Module = mnist_cnn()
        load_weights(model, need_shared("models", f"{name}.safetensors"))
        x, y = mnist("test")
        return model.eval(), x[:images], y[:images], 0.3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = resnet18_cifar()
        with torch.no_grad():
            for _ in range(10):
                model.train()(torch.rand(32, 3, 32, 32))
        model.eval()
        x = torch.rand(max(8, images // 10), 3, 32, 32)
        with torch.no_grad():
            y = model(x).argmax(1)
    return model, x, y, 0.25 / 255


if __name__ == "__main__":
    main()
