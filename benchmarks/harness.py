"""What the benchmark scripts share: the machine line, tables, optional rivals, reference data, a small trainer."""

import importlib
import importlib.metadata
import platform
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep
from signstep.data import open_data

SHARED = Path(__file__).resolve().parents[2] / "shared"

# Rival, as it is called in tables: its distribution on the package index and the module that holds its attacks.
RIVALS = {
    "torchattacks": ("torchattacks", "torchattacks"),
    "Foolbox": ("foolbox", "foolbox"),
    "ART": ("adversarial-robustness-toolbox", "art.attacks.evasion"),
    "CleverHans": ("cleverhans", "cleverhans.torch.attacks.fast_gradient_method"),
}

Attack = Callable[[Tensor, Tensor], Tensor]


def machine(device: str | torch.device = "cpu") -> str:
    """One line: card, processor, threads, system and the versions that matter."""
    card = f"{torch.cuda.get_device_name(device)}, " if torch.device(device).type == "cuda" else ""
    return (
        f"{card}{_processor()}, {torch.get_num_threads()} thread(s), {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, signstep {signstep.__version__}"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, the first column to the left and all others to the right, aligned for reading as text."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = [("-" * w) if i == 0 else ("-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return "\n".join([line(header), f"| {' | '.join(rule)} |", *(line(row) for row in rows)])


def rival(name: str) -> Any:
    """The rival's module, or None if it cannot be imported."""
    try:
        return importlib.import_module(RIVALS[name][1])
    except ImportError:
        return None


def rivals_line() -> str:
    """Which rivals are there, with versions."""
    words = []
    for name, (distribution, _) in RIVALS.items():
        found = rival(name) is not None
        words.append(f"{name} {importlib.metadata.version(distribution)}" if found else f"{name}: not installed")
    return ", ".join(words)


def rival_fgsm(model: nn.Module, eps: float, shape: tuple[int, ...], classes: int = 10) -> dict[str, Attack]:
    """Each installed rival's FGSM with the box [0, 1], as a function of a batch and its labels."""
    attacks: dict[str, Attack] = {}
    if (torchattacks := rival("torchattacks")) is not None:
        attacks["torchattacks"] = torchattacks.FGSM(model, eps=eps)
    if (foolbox := rival("Foolbox")) is not None:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        method = foolbox.attacks.LinfFastGradientAttack()
        attacks["Foolbox"] = lambda x, y: method.run(wrapped, x, foolbox.Misclassification(y), epsilon=eps)
    if (art := rival("ART")) is not None:
        estimators = importlib.import_module("art.estimators.classification")
        classifier = estimators.PyTorchClassifier(
            model, nn.CrossEntropyLoss(), shape, classes, clip_values=(0.0, 1.0), device_type="cpu"
        )

        def run_art(x: Tensor, y: Tensor) -> Tensor:
            crafted = art.FastGradientMethod(classifier, eps=eps, batch_size=len(x)).generate(x.numpy(), y.numpy())
            return torch.from_numpy(crafted)

        attacks["ART"] = run_art
    if (cleverhans := rival("CleverHans")) is not None:
        method_ = cleverhans.fast_gradient_method
        attacks["CleverHans"] = lambda x, y: method_(
            model, x, eps, float("inf"), clip_min=0.0, clip_max=1.0, y=y
        ).detach()
    return attacks


def bare_fgsm(model: nn.Module, eps: float) -> Attack:
    """The loop that everybody writes by hand: one forward, one backward, one step, one clamp."""

    def craft(x: Tensor, y: Tensor) -> Tensor:
        u = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(u), y, reduction="sum"), u)
        return torch.clamp(x + eps * gradient.sign(), 0, 1)

    return craft


class Timing(NamedTuple):
    """Milliseconds of one contender, and the ratio to the reference in the same round."""

    median: float
    least: float
    ratio: float
    ratio_of_least: float


def race(
    contenders: Mapping[str, Callable[[], object]],
    reference: str,
    rounds: int,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> dict[str, Timing]:
    """Time every contender once in each round, in a new order each time.

    A disturbance from outside hits all of a round alike and falls out of the ratio; the median drops what remains. Work
    that a GPU was asked for is waited for before each clock is read.
    """
    on_gpu = torch.device(device).type == "cuda"

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize(device)

    order = list(contenders)
    shuffle = random.Random(seed).shuffle
    for name in order:
        for _ in range(2):
            contenders[name]()
    wait()
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            began = time.perf_counter()
            contenders[name]()
            wait()
            seconds[name].append(time.perf_counter() - began)
    base = seconds[reference]
    return {
        name: Timing(
            1e3 * statistics.median(seconds[name]),
            1e3 * min(seconds[name]),
            statistics.median(own / other for own, other in zip(seconds[name], base, strict=True)),
            min(seconds[name]) / min(base),
        )
        for name in contenders
    }


def most_resident() -> int:
    """KiB that this process had at most.

    Where Linux tells, of this program alone: ``ru_maxrss`` begins with what the process had that started it.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return found[0] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def need_shared(*parts: str) -> Path:
    """A path in the shared reference material; ends the script with one sentence if it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        stop(
            f"{path} is absent: this benchmark needs the reference material that lies in ../shared beside the checkout."
        )
    return path


def stop(sentence: str) -> NoReturn:
    """End the script with one sentence."""
    print(sentence, file=sys.stderr)
    raise SystemExit(1)


def checked_device(name: str) -> str:
    """The name of a device that is there; ends the script with one sentence if it is not."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):
        stop(f"--device {name!r} is not available here; pass cpu, or the name of a card that torch finds")
    return name


def mnist(split: str) -> tuple[Tensor, Tensor]:
    """MNIST from the shared material: x (N, 1, 28, 28) in [0, 1], y (N,)."""
    source = open_data(need_shared("data", "mnist"), split=split, batch_size=1000)
    return torch.cat([x for x, _ in source]), source.labels


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    epochs: int,
    batch: int = 128,
    rate: float,
    seed: int,
) -> None:
    """Adam with one cycle of the learning rate; leaves the model in evaluation mode."""
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    batches = -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).tensor_split(batches):
            optimizer.zero_grad()
            torch.autograd.backward(loss(model(x[rows]), y[rows]))
            optimizer.step()
            schedule.step()
    model.zero_grad()
    model.eval()


def percent(share: float) -> str:
    """Two decimals: 10,000 examples to the last digit."""
    return f"{100 * share:.2f}"
