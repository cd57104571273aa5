"""What a ladder costs on larger networks: passes, processor seconds and peak memory against the bare passes.

For each rung the examples that entered, passes for each of them, and seconds; for all of them processor time over that
of as many bare forward and backward passes ("overhead": 1.00 is a loop without checks, accounts and verdicts). Peak
memory is the growth of the process over a bare forward and backward pass, and over a recipe, each in a process of its
own, in batches of equal size (16 images or more: those of a few are lost in what torch sets aside). Images are noise,
weights random unless the network is MobileNetV2, whose weights and photographs lie in ../shared: what falls is no
figure here.
"""

import argparse
import subprocess
import sys
import time
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from harness import machine, most_resident, need_shared, stop, table
from signstep.model.twin import Engine
from signstep.networks.mobilenet import mobilenet_v2
from signstep.networks.small import resnet18_cifar


def subject(name: str, count: int) -> tuple[nn.Module, Tensor, Tensor, float]:
    """The network, noise or photographs, its own answers as labels, and eps."""
    if name == "resnet18":
        torch.manual_seed(0)
        model, x, eps = resnet18_cifar().eval(), torch.rand(count, 3, 32, 32), 2 / 255
    else:
        model, x, eps = mobilenet_v2(need_shared("models")).eval(), photographs(count), 1 / 255
    with torch.no_grad():
        y = model(x).argmax(1)
    return model, x, y, eps


def photographs(count: int) -> Tensor:
    try:
        import numpy as np
        from PIL import Image
    except ImportError:
        stop("photographs need Pillow: pip install pillow")
    files = sorted(need_shared("data", "photos").glob("imagenet_*.jpg"))[:count]
    read = [np.asarray(Image.open(file).convert("RGB").resize((224, 224))) for file in files]
    return torch.stack([torch.from_numpy(one.copy()).permute(2, 0, 1).float() / 255 for one in read])


def bare(model: nn.Module, x: Tensor, y: Tensor) -> None:
    u = x.detach().requires_grad_()
    torch.autograd.grad(F.cross_entropy(model(u), y, reduction="sum"), u)


def seconds(model: nn.Module, x: Tensor, y: Tensor, rounds: int = 5) -> tuple[float, float]:
    """Processor seconds an image of a forward pass, and of a backward pass beside it; the least of some rounds."""
    forward, both = [], []
    for _ in range(rounds):
        began = time.process_time()
        with torch.no_grad():
            model(x)
        forward.append(time.process_time() - began)
        began = time.process_time()
        bare(model, x, y)
        both.append(time.process_time() - began)
    return min(forward) / len(x), (min(both) - min(forward)) / len(x)


def rungs(model: nn.Module, x: Tensor, y: Tensor, eps: float, ladder: str, engine: Engine) -> list[list[str]]:
    forward, backward = seconds(model, x, y)
    began = time.process_time()
    result = ss.audit(model, [(x, y)], threat=ss.linf(eps), ladder=ladder, curve=False, engine=engine)
    whole = time.process_time() - began
    rows, expected = [], 0.0
    for entry in result.attacks:
        bare_time = entry.forwards * len(x) * forward + entry.backwards * len(x) * backward
        expected += bare_time
        each = max(1, entry.entered) / len(x)  # accounts are per image of the whole set
        cells = (f"{entry.forwards / each:.0f}+{entry.backwards / each:.0f}", f"{entry.seconds:.1f}")
        rows.append([entry.name, str(entry.entered), str(entry.fooled), *cells, ""])
    spent = [sum(getattr(entry, kind) for entry in result.attacks) for kind in ("forwards", "backwards")]
    rows.append(
        [
            f"**{ladder}, {engine}**: all, processor seconds",
            str(len(x)),
            str(result.fooled),
            f"{spent[0]:.0f}+{spent[1]:.0f}",
            f"{whole:.1f}",
            f"{whole / expected:.2f}",
        ]
    )
    return rows


def peak(name: str, count: int, what: str) -> None:
    """Print by how many KiB the process grew; called in a process of its own."""
    model, x, y, eps = subject(name, count)
    bare(model, x[:1], y[:1])
    before = most_resident()
    if what == "bare":
        bare(model, x, y)
    else:
        ss.attack(model, x, y, threat=ss.linf(eps), recipe=what)
    print(most_resident() - before)


def grown(name: str, count: int, what: str) -> int:
    command = [sys.executable, __file__, "--model", name, "--images", str(count), "--peak", what]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(said.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("resnet18", "mobilenet"), default="resnet18")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--ladder", default="standard@2")
    parser.add_argument("--engines", nargs="*", choices=("exact", "float32", "fast"), default=["exact"])
    parser.add_argument(
        "--memory",
        nargs="*",
        default=["fgsm", "pgd:steps=3", "apgd:loss=margin,steps=3", "smooth-pgd:steps=3", "square:queries=5"],
        help="recipes whose peak memory is told",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    if options.peak:
        peak(options.model, options.images, options.peak)
        return
    print(machine(), flush=True)
    if options.engines:
        model, x, y, eps = subject(options.model, options.images)
        rows = [row for engine in options.engines for row in rungs(model, x, y, eps, options.ladder, engine)]
        header = ("rung", "entered", "fallen", "passes each", "seconds", "overhead")
        print(f"\n{options.model}, {len(x)} images, eps {eps:.4f}\n\n" + table(header, rows), flush=True)
    if options.memory:
        base = grown(options.model, options.images, "bare")
        rows = [["bare forward and backward", f"{base / 1024:.0f}", "1.00"]]
        for recipe in options.memory:
            found = grown(options.model, options.images, recipe)
            rows.append([recipe, f"{found / 1024:.0f}", f"{found / max(1, base):.2f}"])
        print("\n" + table(("peak memory", "MiB more", "multiple"), rows))


if __name__ == "__main__":
    main()
