"""Throughput and latency of a guarded service beside the same service without a guard, in one run.

Both are the same application, micro-batches and network; the unguarded one has a policy that decides nothing and keeps
no store. First a few clients ask each service as fast as it answers, which gives its throughput, the knee. Then each
gets requests at a given rate, whatever it answers (open loop): 60 % of the lesser throughput. Last, three times what
the guarded service can do: how long those that are accepted take, how many are told to come back, and the memory.
Latencies are counted from the moment at which a request was due.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import signstep as ss
from guard_client import guarded, memory, serving
from guard_generator import Asked, at_a_rate, at_full_speed
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--clients", type=int, default=8, help="that ask at full speed")
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
        knee: dict[str, Asked] = {}
        for name, make in kinds.items():
            with serving(make) as (port, _):
                at_full_speed(port, bodies, 1, 1)
                knee[name] = at_full_speed(port, bodies, given.clients, given.seconds)
        rate = 0.6 * min(one.answered for one in knee.values())
        calm: dict[str, Asked] = {}
        for name, make in kinds.items():
            with serving(make) as (port, process):
                at_full_speed(port, bodies, 1, 1)
                calm[name] = at_a_rate(port, bodies, rate, given.seconds)
                shown.append([name, f"{knee[name].answered:.0f}", f"{knee[name].p99():.1f}", f"{calm[name].p99():.1f}",
                              f"{memory(process):.0f}"])  # fmt: skip
        with serving(kinds["guarded"]) as (port, process):
            at_full_speed(port, bodies, 1, 1)
            before = memory(process)
            over = at_a_rate(port, bodies, 3 * knee["guarded"].answered, given.overload)
            after = memory(process)
    print(machine())
    print(table(["service", "answers/s", "p99 ms there", f"p99 ms at {rate:.0f}/s", "MB"], shown))
    print(f"guarded / unguarded throughput: {knee['guarded'].answered / knee['unguarded'].answered:.2f}")
    said = ", ".join(f"{count} x {status or 'no answer'}" for status, count in sorted(over.statuses.items()))
    print(f"three times the load, {given.overload:g} s: {said}; {over.answered:.0f} answers/s")
    p99 = over.p99()
    print(
        f"p99 of those answered {p99:.1f} ms, {p99 / knee['guarded'].p99():.2f} of that at full speed, "
        f"{p99 / calm['guarded'].p99():.2f} of that at 60 % of it; after the first five seconds {over.p99(5):.1f} ms"
    )
    print(f"memory: {before:.0f} MB before, {after:.0f} MB after")
    print(
        f"the generator took {over.core:.0%} of a core, and was up to {max(over.late) * 1000:.0f} ms late "
        f"(p99 {np.quantile(over.late, 0.99) * 1000:.1f} ms); its lateness counts as latency"
    )


if __name__ == "__main__":
    main()
