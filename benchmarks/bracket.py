"""Both ends of robust accuracy: what intervals, CROWN, alpha-CROWN and exact search prove, and what attacks leave.

One audit a method and model: proved examples first, the ladder quick@1 on the rest. Passes are those of the attacks for
each example; seconds are processor seconds of the whole audit for each example. With ``--lines N`` the lines around
every activation are tried on N triples (l, u, x) instead; with ``--cost`` the price of CROWN beside a forward and a
backward pass.
"""

import argparse
import json
import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import signstep as ss
from harness import machine, mnist, need_shared, table
from signstep.certify.linear import kinds
from signstep.certify.linear.lines import Bend
from signstep.data import open_data
from signstep.data.digits import digits
from signstep.model.opening.weights import load_weights
from signstep.networks.small import cifar10_small, digits_cnn, mnist_cnn
from signstep.train import Settings

METHODS = ("interval", "crown", "alpha", "exact")


@dataclass(frozen=True)
class Case:
    """A model, its data and the sizes that it is asked about; ``methods`` that fit into an afternoon."""

    name: str
    build: Callable[[], nn.Module]
    data: str
    sizes: tuple[float, ...]
    images: int = 100
    methods: tuple[str, ...] = METHODS


def trained(recipe: str) -> nn.Module:
    """A small network for the digits, trained with bounds at 0.05."""
    torch.manual_seed(0)
    model, (x, y) = digits_cnn(), digits("train")
    settings = Settings(epochs=50, rate=2e-3, hold=0.1, warm_up=0.5, peak=0.2, seed=0)
    ss.fit(model, x, y, threat=ss.linf(0.05), recipe=recipe, settings=settings)
    return model


def reference(name: str, build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def load() -> nn.Module:
        model = build()
        load_weights(model, need_shared("models", f"{name}.safetensors"))
        return model

    return load


CASES = {
    case.name: case
    for case in (
        Case("mnist_standard", reference("mnist_standard", mnist_cnn), "mnist", (0.02, 0.05, 0.1)),
        Case("mnist_fgsm_rs", reference("mnist_fgsm_rs", mnist_cnn), "mnist", (0.02, 0.05, 0.1)),
        Case("digits ibp", lambda: trained("ibp"), "digits", (0.05,)),
        Case("digits mtl-ibp", lambda: trained("mtl-ibp:weight=0.3"), "digits", (0.05,)),
        Case(
            "cifar10_small_n_fgsm",
            reference("cifar10_small_n_fgsm", cifar10_small),
            "cifar10",
            (1 / 255, 2 / 255),
            methods=("interval", "crown"),  # of CROWN an image takes a minute or two: pass --images
        ),
    )
}


def data_of(case: Case) -> tuple[Tensor, Tensor]:
    if case.data == "mnist":
        x, y = mnist("test")
    elif case.data == "digits":
        x, y = digits("test")
    else:
        source = open_data(str(need_shared("data", "cifar10", "test_first1000.npz")), limit=case.images)
        x, y = (torch.cat(part) for part in zip(*source, strict=True))
    return x[: case.images], y[: case.images]


def bracket(model: nn.Module, x: Tensor, y: Tensor, eps: float, method: str, seconds: float) -> list[str]:
    asked = f"{method}:seconds={seconds}" if method == "exact" else method
    began = time.process_time()
    result = ss.audit(model, (x, y), threat=ss.linf(eps), ladder="quick@1", curve=False, run=ss.Run(bounds=asked))
    spent = time.process_time() - began
    forwards = sum(entry.forwards for entry in result.attacks)
    backwards = sum(entry.backwards for entry in result.attacks)
    assert not result.contradictions
    return [
        method,
        f"{100 * (result.certified_accuracy or 0):.1f}",
        f"{100 * result.robust_accuracy:.1f}",
        str(result.open),
        f"{forwards:.1f}+{backwards:.1f}",
        f"{spent / len(x):.2f}",
    ]


def kept(file: Path | None, asked: list[str], made: Callable[[], list[str]]) -> list[str]:
    """A row from the file where it was made before, else made and put there; a line half written is none."""
    if file is not None and file.exists():
        for line in file.read_text().splitlines():
            if line.endswith("}") and (found := json.loads(line))["asked"] == asked:
                return list(found["row"])
    row = made()
    if file is not None:
        with file.open("a") as rest:
            rest.write(json.dumps({"asked": asked, "row": row}) + "\n")
    return row


def lines(count: int) -> None:
    """How far any value leaves its lines, over all activations."""
    made: dict[str, Bend | None] = {kind.__name__: make(kind()) for kind, make in kinds.LAYERS.items()}
    rows = []
    for name, bend in made.items():
        if bend is None:
            continue
        draws = torch.Generator().manual_seed(0)
        worst = -torch.inf
        for start in range(0, count, 20_000):
            size = min(20_000, count - start)
            middle = torch.randn(size, generator=draws, dtype=torch.float64) * 4
            reach = torch.rand(size, generator=draws, dtype=torch.float64).pow(3) * 10
            low, high = middle - reach, middle + reach
            x = torch.lerp(low, high, torch.rand(size, generator=draws, dtype=torch.float64)).clamp(low, high)
            found, value = bend.lines(low, high), bend.function(x)
            below = found.low_slope * x + found.low_offset - value
            above = value - found.high_slope * x - found.high_offset
            worst = max(worst, float(below.max()), float(above.max()))
        rows.append([name, str(count), f"{worst:.1e}"])
    print(table(["activation", "triples", "largest excess"], rows))


def cost(case: Case, eps: float, images: int | None) -> None:
    """CROWN for each example beside a forward and a backward pass, in processor seconds."""
    model, (x, y) = case.build().eval(), data_of(case)
    x, y = x[:images], y[:images]

    def passes(part: Tensor, times: int) -> float:
        began = time.process_time()
        for _ in range(times):
            model(part.clone().requires_grad_()).sum().backward()
        return (time.process_time() - began) / times / len(part)

    batch, single = passes(x, 5), passes(x[:1], 50)
    ss.certified(model, x[:1], y[:1], threat=ss.linf(eps), method="crown")  # what is loaded and prepared once
    began = time.process_time()
    held = ss.certified(model, x, y, threat=ss.linf(eps), method="crown")
    each = (time.process_time() - began) / len(x)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{case.name} at {eps:.4g}: CROWN {1000 * each:.1f} ms an example ({int(held.sum())} of {len(x)} proved), a "
        f"forward and a backward pass {1000 * batch:.2f} ms in a batch of {len(x)}, {1000 * single:.2f} ms alone: "
        f"{each / batch:.0f} and {each / single:.0f} times; {memory:.1f} GB at most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=list(CASES), action="append")
    parser.add_argument("--method", action="append")
    parser.add_argument("--images", type=int)
    parser.add_argument("--seconds", type=float, default=60.0, help="of exact search for each example")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lines", type=int)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    print(machine())
    if args.lines:
        return lines(args.lines)
    for name in args.case or list(CASES):
        case = CASES[name]
        if args.cost:
            cost(case, case.sizes[0], args.images)
            continue
        model, (x, y) = case.build().eval(), data_of(case)
        x, y = x[: args.images], y[: args.images]
        for eps in case.sizes:
            methods = args.method or case.methods
            rows = []
            for method in methods:
                asked = [name, f"{eps:.6g}", method, str(len(x)), str(args.seconds if method == "exact" else "")]
                made = partial(bracket, model, x, y, eps, method, args.seconds)
                rows.append(kept(args.keep, asked, made))
                print(" ".join(rows[-1]), flush=True)
            print(f"\n{name}, linf {eps:.4g}, {len(x)} examples\n")
            print(table(["method", "lower %", "upper %", "open", "passes", "s an example"], rows), flush=True)
    return None


if __name__ == "__main__":
    main()
