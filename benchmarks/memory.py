"""Memory over long runs and the cost of the import.

Resident memory must stay flat over 1,000 batches of ``ss.fgsm`` and ``ss.attack``, and over an audit of a stream whose
batches are made on the way: the record keeps letters and numbers for each example, no inputs.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import signstep as ss
from harness import machine, table
from signstep.networks.small import mnist_cnn

SHAPE = (1, 28, 28)
THREAT = ss.linf(0.1)


def resident() -> float:
    """Resident memory of this process in MiB (where the system does not tell: the largest so far)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def batch(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.rand((size, *SHAPE), generator=generator), torch.randint(10, (size,), generator=generator)


def stream(examples: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for start in range(0, examples, size):
        yield batch(min(size, examples - start), generator)


def loops(batches: int, size: int) -> None:
    model = mnist_cnn().eval()
    generator = torch.Generator().manual_seed(0)
    marks = sorted({max(1, batches * share // 100) for share in (1, 10, 25, 50, 75, 100)})
    rows = []
    for name in ("ss.fgsm", 'ss.attack, "fgsm"', 'ss.attack, "pgd:steps=3"'):
        seen = []
        for number in range(1, batches + 1):
            x, y = batch(size, generator)
            if name == "ss.fgsm":
                ss.fgsm(model, x, y, eps=0.1)
            else:
                ss.attack(model, x, y, threat=THREAT, recipe=name.split('"')[1])
            if number in marks:
                seen.append(resident())
        rows.append((name, *(f"{value:.1f}" for value in seen), f"{seen[-1] - seen[1]:+.1f}"))
    print(f"\n## Resident MiB after so many batches of {size}\n")
    print(table(("", *(f"{mark:,}" for mark in marks), f"{marks[-1]:,} less {marks[1]:,}"), rows), flush=True)


def audits(examples: int, size: int) -> None:
    marks = [max(size, examples * share // 100 // size * size) for share in (1, 10, 25, 50, 75, 100)]
    seen: dict[int, float] = {}

    def watch(done: int) -> None:
        if done in marks or done == examples:
            seen[done] = resident()

    began = time.perf_counter()
    ss.audit(
        mnist_cnn().eval(),
        stream(examples, size),
        threat=THREAT,
        attacks=("fgsm",),
        curve=False,
        run=ss.Run(progress=watch),
    )
    done = list(seen)
    growth = seen[done[-1]] - seen[done[1]]
    print(f"\n## Resident MiB during a streamed audit (fgsm, batches of {size}), {time.perf_counter() - began:.0f} s\n")
    row = ("audit", *(f"{value:.1f}" for value in seen.values()), f"{growth:+.1f}")
    print(table(("examples", *(f"{mark:,}" for mark in done), f"{done[-1]:,} less {done[1]:,}"), [row]))
    each = growth * 2**20 / (done[-1] - done[1])
    print(f"\n{each:.0f} bytes for each example, whose input has {4 * torch.Size(SHAPE).numel():,}", flush=True)


def imports(repeats: int) -> None:
    names = ("torch", "signstep")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats + 1):
        for name in names:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            if repeat:  # the first reads the files from disk
                seconds[name].append(time.perf_counter() - began)
    ratios = [own / other for own, other in zip(seconds["signstep"], seconds["torch"], strict=True)]
    print(f"\n## A process that only imports, {repeats} repeats\n")
    rows = [
        (f"import {name}", f"{statistics.median(seconds[name]):.2f}", f"{min(seconds[name]):.2f}") for name in names
    ]
    rows.append(
        ("ratio", f"{statistics.median(ratios):.3f}", f"{min(seconds['signstep']) / min(seconds['torch']):.3f}")
    )
    print(table(("", "median s", "least s"), rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--size", type=int, default=100, help="examples in a batch")
    parser.add_argument("--examples", type=int, default=100_000, help="examples of the audit")
    parser.add_argument("--repeats", type=int, default=7, help="repeats of the import")
    parser.add_argument("--threads", type=int, help="threads of torch (default: as torch decides)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(machine())
    imports(options.repeats)
    loops(options.batches, options.size)
    audits(options.examples, options.size)


if __name__ == "__main__":
    main()
