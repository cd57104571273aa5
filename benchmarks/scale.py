"""What an audit in units costs: time and memory as examples grow, merging, and workers beside each other.

    python benchmarks/scale.py growth --examples 10000 40000 160000
    python benchmarks/scale.py merge --units 1000
    python benchmarks/scale.py workers --pool 1 2 --ray 2 --bare 1 2 --repeat 1 --into repeats.jsonl

Growth: a network of a few hundred weights, examples of 16 numbers, so that what is measured is the book-keeping. Each
size is an audit in a process of its own, whose peak memory is given. CPU seconds beside wall-clock seconds, since a
machine that has other things to do makes the latter a matter of luck.

Workers: a ladder that keeps a core busy, in units of about ten seconds; the start of the workers is left out, by
timing from the moment that all are ready to the last unit; "rest" is what comes before and after. "Bare" is what the
machine itself allows: so many processes with an equal part of the units each, which begin at the same moment and have
nothing between them. With ``--into`` every repeat is a line of a file, and the table is of all lines there, so that
repeats can be made one at a time on a machine that is seldom free.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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


LADDER = ["fgsm", "pgd:steps=20", "pgd:steps=40,restarts=2"]
EPS = 1e-4  # so small that no unit is done before its last rung


def workers(staff: Sequence[str], repeat: int, *, units: int, unit: int, into: Path | None) -> None:
    """Time each of ``staff``, such as "pool 2", in turn, and print the medians."""
    lines: list[dict[str, Any]] = []
    if into is not None and into.exists():
        lines = [json.loads(line) for line in into.read_text().splitlines()]
    for _ in range(repeat):
        for who in staff:
            kind, count = who.split()
            lines.append({"who": who, "units": units, "unit": unit} | ONES[kind](int(count), units * unit, unit))
            if into is not None:
                with into.open("a") as there:
                    print(json.dumps(lines[-1]), file=there)
    lines = [line for line in lines if (line["units"], line["unit"]) == (units, unit)]
    print(f"\nWorkers: {units} units of {unit} images of 32x32 on a ladder, one thread each, start-up left out")
    print(
        f"{'who':<8}{'repeats':>9}{'seconds':>9}{'fastest':>9}{'slowest':>9}{'a unit':>8}{'busy':>7}{'times one':>11}"
    )
    one = [line["seconds"] for line in lines if line["who"] == "pool 1"]
    for who in dict.fromkeys(line["who"] for line in lines):
        took = [line["seconds"] for line in lines if line["who"] == who]
        summed = statistics.median(line["summed"] for line in lines if line["who"] == who)
        middle = statistics.median(took)
        print(f"{who:<8}{len(took):>9}{middle:>9.1f}{min(took):>9.1f}{max(took):>9.1f}{summed / units:>8.2f}", end="")
        print(f"{summed / middle / int(who.split()[1]):>7.2f}", end="")
        rest = [line["rest"] for line in lines if line["who"] == who and "rest" in line]
        print(f"{statistics.median(one) / middle:>11.2f}" if one else f"{'':>11}", end="")
        print(f"{statistics.median(rest):>7.1f}" if rest else "")
    digests = {line["digest"] for line in lines if "digest" in line}
    print("same record" if len(digests) == 1 else f"RECORDS DIFFER: {digests}")


def pool(count: int, examples: int, unit: int) -> dict[str, Any]:
    return timed(ss.Pool(count, threads=1), examples, unit)


def ray(count: int, examples: int, unit: int) -> dict[str, Any]:
    return timed(ss.Ray(workers=count, threads=1), examples, unit)


def bare(count: int, examples: int, unit: int) -> dict[str, Any]:
    """As many processes, each with its part of the units, from one moment on."""
    context = multiprocessing.get_context("spawn")
    gate, told = context.Barrier(count + 1), context.Queue()
    parts = [range(number, examples // unit, count) for number in range(count)]
    processes = [context.Process(target=_bare, args=(gate, told, part, examples, unit)) for part in parts]
    for process in processes:
        process.start()
    gate.wait()
    began = time.perf_counter()
    summed = sum(told.get() for _ in processes)
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    return {"seconds": seconds, "summed": summed}


def _bare(gate: Any, told: Any, part: range, examples: int, unit: int) -> None:
    torch.set_num_threads(1)
    net, x, y = labelled(examples)
    gate.wait()
    began = time.perf_counter()
    for number in part:
        rows_ = slice(number * unit, (number + 1) * unit)
        ss.audit(net, (x[rows_], y[rows_]), threat=ss.linf(EPS), ladder=LADDER, curve=False)
    told.put(time.perf_counter() - began)


ONES: dict[str, Callable[[int, int, int], dict[str, Any]]] = {"pool": pool, "ray": ray, "bare": bare}


def labelled(examples: int) -> tuple[nn.Sequential, Tensor, Tensor]:
    """The network, images, and its own labels for them."""
    net, (x, _) = convolutions(), rows(examples, 3, 32, 32)
    with torch.no_grad():
        return net, x, net(x).argmax(1)


def timed(executor: Any, examples: int, unit: int) -> dict[str, Any]:
    """Seconds from the moment that all are ready to the last unit, of the rest, and of the units; the record."""
    net, x, y = labelled(examples)
    ready: list[float] = []
    done: list[float] = []
    began = time.perf_counter()
    run = ss.Run(executor=_Watched(executor, ready), unit=unit, progress=lambda _: done.append(time.perf_counter()))
    result = ss.audit(net, (x, y), threat=ss.linf(EPS), ladder=LADDER, curve=False, run=run)
    seconds = done[-1] - ready[0]
    rest = time.perf_counter() - began - seconds
    return {"seconds": seconds, "rest": rest, "summed": result.seconds, "digest": digest(result)}


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
    parser.add_argument("--unit", type=int, help="examples of a unit; 256, and 44 of workers")
    parser.add_argument("--units", type=int, help="to merge, 1000; of workers, 6")
    parser.add_argument("--pool", type=int, nargs="*", default=[], help="workers of pools")
    parser.add_argument("--ray", type=int, nargs="*", default=[], help="workers of local Ray clusters")
    parser.add_argument("--bare", type=int, nargs="*", default=[], help="workers of nothing but processes")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--into", type=Path, help="a file that repeats are added to, a line each")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "one":
        one_growth(given.examples[0], given.unit or 256)
        return
    print(machine())
    if given.what == "growth":
        growth(given.examples, given.unit or 256)
    elif given.what == "merge":
        merging(given.units or 1000, given.unit or 256)
    else:
        staff = [f"{kind} {count}" for kind in ONES for count in getattr(given, kind)] or ["pool 1", "pool 2"]
        workers(staff, given.repeat, units=given.units or 6, unit=given.unit or 44, into=given.into)


if __name__ == "__main__":
    main()
