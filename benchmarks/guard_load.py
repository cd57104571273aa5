"""Throughput and latency of a guarded service beside the same service without a guard, in one run.

Both are the same application, micro-batches and network; the unguarded one has a policy that decides nothing and keeps
no store. First clients in processes of their own ask each service as fast as it answers (closed loop), which gives its
throughput. Then each gets requests at a given rate, whatever it answers (open loop): 60 % of the lesser throughput, and
latencies are counted from the moment at which a request was due. Last, three times what the guarded service can do: how
long those that are accepted take, how many are told to come back, and the memory.
"""

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import signstep as ss
from guard_client import ANSWERED, asked, guarded, memory, serving
from harness import machine, table
from signstep.guard.bodies import Limits, Wanted
from signstep.guard.calibrating import Terms, calibrate
from signstep.guard.guard import Guard
from signstep.guard.service import Offered, Service

SHAPE = (3, 32, 32)


@dataclass
class Said:
    """Of a policy that decides nothing."""

    action: Tensor
    p_value: Tensor
    by: Tensor
    answers: Tensor


@dataclass
class Open:
    """Accepts everything."""

    model: nn.Module
    reject: float = 0.01
    review: float = 0.0
    detectors: tuple[()] = ()

    def decide(self, x: Tensor) -> Said:
        """One pass of the model."""
        rows = len(x)
        return Said(torch.zeros(rows, dtype=torch.int8), torch.ones(rows), torch.full((rows,), -1), self.model(x))


def network() -> nn.Module:
    """A small network for images of 32 by 32."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 10),
    ).eval()


def unguarded(model: ss.Model) -> Service:
    """Without."""
    return Service(Guard(model, Open(model.module)), Offered("net", Wanted(SHAPE)), Limits())


def closed_loop(port: int, bodies: Sequence[bytes], seconds: float, out: "multiprocessing.Queue[int]") -> None:
    """Ask as fast as is answered; how many were."""
    connection, count, ends = None, 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        status, _, connection = asked(port, bodies[count % len(bodies)], connection)
        count += status in ANSWERED
    out.put(count)


def open_loop(port: int, bodies: Sequence[bytes], rate: float, seconds: float) -> tuple[list[float], dict[int, int]]:
    """Ask at a rate, by as many threads as it takes; latencies of accepted requests from when they were due."""
    due = np.cumsum(np.random.default_rng(0).exponential(1 / rate, int(rate * seconds)))
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    place, lock, began = 0, threading.Lock(), time.monotonic()

    def work() -> None:
        nonlocal place
        connection = None
        while True:
            with lock:
                if place >= len(due):
                    return
                mine, place = place, place + 1
            wait = began + due[mine] - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            status, _, connection = asked(port, bodies[mine % len(bodies)], connection)
            with lock:
                statuses[status] = statuses.get(status, 0) + 1
                if status in ANSWERED:
                    latencies.append(time.monotonic() - began - due[mine])

    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies, statuses


def throughput(port: int, bodies: Sequence[bytes], clients: int, seconds: float) -> float:
    """Answers a second at full speed."""
    out: multiprocessing.Queue[int] = multiprocessing.Queue()
    asking = [multiprocessing.Process(target=closed_loop, args=(port, bodies, seconds, out)) for _ in range(clients)]
    for one in asking:
        one.start()
    total = sum(out.get() for _ in asking)
    for one in asking:
        one.join()
    return total / seconds


def p99(latencies: Sequence[float]) -> float:
    """Milliseconds, of which one in a hundred takes longer."""
    return float(np.quantile(latencies, 0.99)) * 1000 if latencies else float("nan")


def main() -> None:
    multiprocessing.set_start_method("fork")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--clients", type=int, default=8, help="processes that ask at full speed")
    parser.add_argument("--overload", type=float, default=60, help="seconds of three times the load")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = ss.Model(network())
    rows = torch.rand(1000, *SHAPE, generator=torch.Generator().manual_seed(0))
    made = calibrate(model, [(rows[:500], None)], Terms())
    bodies = [json.dumps({"inputs": np.round(row[None].numpy().astype(float), 4).tolist()}).encode() for row in rows]
    shown = []
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'guard.db'}"
        kinds = {"unguarded": partial(unguarded, model), "guarded": partial(guarded, url, model, made, Wanted(SHAPE))}
        knee: dict[str, float] = {}
        for name, make in kinds.items():
            with serving(make) as (port, _):
                asked(port, bodies[0], None)
                knee[name] = throughput(port, bodies, given.clients, given.seconds)
        rate = 0.6 * min(knee.values())
        for name, make in kinds.items():
            with serving(make) as (port, process):
                asked(port, bodies[0], None)
                latencies, _ = open_loop(port, bodies, rate, given.seconds)
                shown.append([name, f"{knee[name]:.0f}", f"{p99(latencies):.1f}", f"{memory(process):.0f}"])
        with serving(kinds["guarded"]) as (port, process):
            asked(port, bodies[0], None)
            before = memory(process)
            latencies, statuses = open_loop(port, bodies, 3 * knee["guarded"], given.overload)
            after = memory(process)
    print(machine())
    print(table(["service", "answers/s", f"p99 ms at {rate:.0f}/s", "MB"], shown))
    print(f"guarded / unguarded throughput: {knee['guarded'] / knee['unguarded']:.2f}")
    said = ", ".join(f"{count} x {status or 'no answer'}" for status, count in sorted(statuses.items()))
    print(f"three times the load: {said}; p99 of those answered {p99(latencies):.1f} ms")
    print(f"memory: {before:.0f} MB before, {after:.0f} MB after")


if __name__ == "__main__":
    main()
