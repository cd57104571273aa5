"""What an audit in units costs: time and memory as examples grow, merging, and workers beside each other.

    python benchmarks/scale.py growth --examples 10000 40000 160000
    python benchmarks/scale.py merge --units 1000
    python benchmarks/scale.py workers --pool 1 2 --ray 2 --repeat 5

Growth: a network of a few hundred weights, examples of 16 numbers, so that what is measured is the book-keeping. Each
size is an audit in a process of its own, whose peak memory is given. CPU seconds beside wall-clock seconds, since a
machine that has other things to do makes the latter a matter of luck.

Workers: a ladder that keeps a core busy, in units of about ten seconds; the start of the workers is left out, by
timing from the first unit that is given out (`signstep.scale` calls ``progress`` then).
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import signstep as ss
from harness import machine
from signstep.auditing.merge import merge
from signstep.auditing.parts import stated
from signstep.auditing.result import Result
from signstep.scale import digest


def tiny() -> nn.Sequential:
    """A network of a few hundred weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)).eval()


def convolutions() -> nn.Sequential:
    """A network that keeps a core busy."""
    torch.manual_seed(0)
    parts: list[nn.Module] = [nn.Conv2d(3, 24, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        parts += [nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)).eval()


def rows(count: int, *shape: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(count) % 4


def one_growth(examples: int, unit: int) -> None:
    """In a process of its own: an audit of so many examples; its figures as one line."""
    net = tiny()
    x, _ = rows(examples, 16)
    with torch.no_grad():
        y = torch.cat([net(part).argmax(1) for part in torch.split(x, 65536)])
    threat = ss.linf(0.05)
    before = resource.getrusage(resource.RUSAGE_SELF)
    with tempfile.TemporaryDirectory() as out:
        done: list[tuple[int, int]] = []

        def seen(count: int) -> None:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            done.append((count, peak))

        run = ss.Run(executor=ss.Pool(0), out=out, unit=unit, progress=seen)
        began = time.perf_counter()
        result = ss.audit(net, (x, y), threat=threat, attacks=["fgsm"], curve=False, run=run)
        wall = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_SELF)
        stored = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
        units = len(list(Path(out).rglob("*.safetensors")))
        again = time.perf_counter()
        same = ss.audit(net, (x, y), threat=threat, attacks=["fgsm"], curve=False, run=_resumed(run))
        again = time.perf_counter() - again
    assert digest(same) == digest(result)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    tenth = next(peak for count, peak in done if count >= examples // 10)
    working = done[-1][1]
    numbers = (
        examples,
        units,
        cpu,
        wall,
        tenth / 1024,
        working / 1024,
        after.ru_maxrss / 1024,
        stored / examples,
        again,
    )
    print(" ".join(map(str, numbers)))


def _resumed(run: ss.Run) -> ss.Run:
    from dataclasses import replace

    return replace(run, resume=True, progress=None)


def growth(sizes: list[int], unit: int) -> None:
    print(f"\nGrowth, units of {unit} (fgsm on 16 numbers, one process; MiB of the whole process)")
    print(f"{'examples':>9}{'units':>7}{'CPU s':>8}{'us each':>9}{'wall s':>8}", end="")
    print(f"{'at 1/10':>9}{'at end':>8}{'joined':>8}{'bytes each':>12}{'resume s':>10}")
    for size in sizes:
        words = [sys.executable, __file__, "one", "--examples", str(size), "--unit", str(unit)]
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
        examples, units, cpu, wall, tenth, working, joined, stored, again = (float(word) for word in told)
        print(f"{examples:>9.0f}{units:>7.0f}{cpu:>8.1f}{1e6 * cpu / examples:>9.0f}{wall:>8.1f}", end="")
        print(f"{tenth:>9.0f}{working:>8.0f}{joined:>8.0f}{stored:>12.0f}{again:>10.1f}", flush=True)


def merging(units: int, unit: int) -> None:
    net = tiny()
    x, y = rows(unit, 16)
    part = ss.audit(net, (x, y), threat=ss.linf(0.05), attacks=["fgsm", "pgd:steps=5"], curve=False)
    parts = [_placed(part, number * unit) for number in range(units)]
    began, cpu = time.perf_counter(), time.process_time()
    whole = merge(parts)
    print(f"\nMerge of {units} units of {unit}: {time.process_time() - cpu:.2f} CPU s, ", end="")
    print(f"{time.perf_counter() - began:.2f} s; {whole.examples} examples")


def _placed(part: Result, start: int) -> Result:
    from dataclasses import replace

    return replace(part, terms={**part.terms, "shard": stated(range(start, start + part.examples))})


def workers(pools: list[int], rays: list[int], repeat: int, examples: int, unit: int) -> None:
    print(f"\nWorkers: {examples} images of 32x32 on a ladder, units of {unit}, median of {repeat}, one thread each")
    print(f"{'who':<10}{'seconds':>9}{'units s':>9}{'busy':>7}   (units s: sum over units; busy: of it in the time)")
    staff: list[tuple[str, Any, int]] = [(f"pool {n}", ss.Pool(n, threads=1), n) for n in pools]
    staff += [(f"ray {n}", ss.Ray(workers=n, threads=1), n) for n in rays]
    digests = set()
    for name, executor, count in staff:
        took, summed = [], []
        for _ in range(repeat):
            seconds, result = timed(executor, examples, unit)
            took.append(seconds)
            summed.append(result.seconds)
            digests.add(digest(result))
        middle = statistics.median(took)
        print(f"{name:<10}{middle:>9.1f}{statistics.median(summed):>9.1f}", end="")
        print(f"{statistics.median(summed) / middle / count:>7.2f}", flush=True)
    print("same record" if len(digests) == 1 else f"RECORDS DIFFER: {digests}")


def timed(executor: Any, examples: int, unit: int) -> tuple[float, Result]:
    """Seconds from the moment that every worker is ready, and the record."""
    x, _ = rows(examples, 3, 32, 32)
    net = convolutions()
    with torch.no_grad():
        y = net(x).argmax(1)
    ready: list[float] = []
    staff = _Watched(executor, ready)
    run = ss.Run(executor=staff, unit=unit)
    ladder = ["fgsm", "pgd:steps=20", "pgd:steps=40,restarts=2"]
    result = ss.audit(net, (x, y), threat=ss.linf(1e-4), ladder=ladder, curve=False, run=run)
    return time.perf_counter() - ready[0], result


class _Watched:
    """An executor that says when its workers are ready."""

    def __init__(self, executor: Any, ready: list[float]) -> None:
        self._executor, self._ready = executor, ready

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def carry_out(self, job: Any) -> Result:
        from signstep.scale.coordinator import carry_out

        return carry_out(job, self)

    def begun(self, make: Any, bench: Any) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def watched() -> Any:
            with self._executor.begun(make, bench) as team:
                self._ready.append(time.perf_counter())
                yield team

        return watched()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["growth", "merge", "workers", "one"], help="what to measure")
    parser.add_argument("--examples", type=int, nargs="+", default=[10_000, 40_000, 160_000])
    parser.add_argument("--unit", type=int, default=256, help="examples of a unit")
    parser.add_argument("--units", type=int, default=1000, help="to merge")
    parser.add_argument("--pool", type=int, nargs="*", default=[1, 2], help="workers of pools")
    parser.add_argument("--ray", type=int, nargs="*", default=[], help="workers of local Ray clusters")
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "one":
        one_growth(given.examples[0], given.unit)
        return
    print(machine())
    if given.what == "growth":
        growth(given.examples, given.unit)
    elif given.what == "merge":
        merging(given.units, given.unit)
    else:
        workers(given.pool, given.ray, given.repeat, given.examples[0], given.unit)


if __name__ == "__main__":
    main()
