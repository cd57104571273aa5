"""Workers killed at random, and whoever gives the work out too: is the record the same, is a unit twice or missing?

    python benchmarks/scale_chaos.py --runs 100 --workers 2 --seconds 0.5
    python benchmarks/scale_chaos.py --coordinator 10

With ``--runs`` each audit runs on a pool whose processes are killed (SIGKILL), one at random, after a random time of
``--seconds`` on average, over and over, as long as the audit lasts. With ``--coordinator`` the process that gives the
work out is killed at a random moment, and the audit goes on by resume, until it ends. After each run the record's
digest is compared with that of an audit nobody disturbed, and the ledger's rows with the units that there are.
"""

import argparse
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn

import signstep as ss
from harness import machine
from signstep.auditing.result import Result
from signstep.scale import digest

EXAMPLES, UNIT = 480, 16


class Slow(nn.Module):
    """A network that takes its time: so that there is a moment to be killed in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)).double()

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        time.sleep(0.004)
        return self.inner(x)  # type: ignore[no-any-return]


def audited(executor: ss.Pool, out: str, *, resume: bool = False) -> Result:
    x = torch.rand(EXAMPLES, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    net = Slow().eval()
    with torch.no_grad():
        y = net(x).argmax(1)
    run = ss.Run(executor=executor, out=out, unit=UNIT, resume=resume)
    return ss.audit(net, (x, y), threat=ss.linf(0.02), ladder=["fgsm", "pgd:steps=10"], curve=False, run=run)


def children() -> list[int]:
    """Workers of this process, by what the kernel says; those of its own fork server alone."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = (int(fields[1]), b"forkserver" in (folder / "cmdline").read_bytes())
        except OSError:
            continue
    servers = {number for number, (parent, server) in parents.items() if parent == os.getpid() and server}
    return [number for number, (parent, _) in parents.items() if parent in servers]


def disturb(seconds: float, dice: random.Random, killed: list[int], over: threading.Event) -> None:
    """Kill a worker now and then; none before all have begun, since an audit whose workers cannot begin ends."""
    while not over.wait(dice.expovariate(1 / seconds)):
        there = children()
        if there:
            victim = dice.choice(there)
            try:
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
            except ProcessLookupError:
                pass


def rows_of(out: str) -> list[int]:
    table = sqlite3.connect(Path(out) / "ledger" / "ledger.sqlite")
    try:
        return [row[0] for row in table.execute("SELECT start FROM units ORDER BY start")]
    finally:
        table.close()


def wrong(result: Result, out: str, wanted: str) -> str:
    starts, expected = rows_of(out), list(range(0, EXAMPLES, UNIT))
    twice = [start for start, count in Counter(starts).items() if count > 1]
    missing = sorted(set(expected) - set(starts))
    said = [f"twice {twice}"] if twice else []
    said += [f"missing {missing}"] if missing else []
    return ", ".join([*said, *(["another record"] if digest(result) != wanted else [])])


def workers(runs: int, count: int, seconds: float, wanted: str, dice: random.Random) -> None:
    kills, failures, ended = 0, 0, 0
    for number in range(runs):
        with tempfile.TemporaryDirectory() as out:
            over, killed = threading.Event(), list[int]()
            chaos = threading.Thread(target=disturb, args=(seconds, dice, killed, over))
            chaos.start()
            try:
                result = audited(ss.Pool(count, threads=1, seconds=0.5, start="forkserver"), out)
            except ss.SignstepError as error:  # too many deaths at one place: said, and what was done is kept
                print(f"run {number}: {error}", flush=True)
                ended += 1
                over.set()
                chaos.join()
                result = audited(ss.Pool(0), out, resume=True)
            over.set()
            chaos.join()
            said = wrong(result, out, wanted)
            kills += len(killed)
            failures += bool(said)
            print(f"run {number}: {len(killed)} killed{': ' + said if said else ''}", flush=True)
    print(f"{runs} runs, {kills} workers killed, {ended} ended early and gone on with, {failures} wrong")


def _alone(out: str, resume: bool) -> None:
    torch.set_num_threads(1)
    audited(ss.Pool(0), out, resume=resume).save(Path(out) / "result.json")


def coordinator(runs: int, wanted: str, dice: random.Random) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["signstep.scale.work"])
    kills = failures = 0
    for number in range(runs):
        with tempfile.TemporaryDirectory() as out:
            here = 0
            while True:
                process = context.Process(target=_alone, args=(out, True))
                process.start()
                process.join(dice.uniform(0.3, 2.5))
                if process.exitcode is not None:
                    break
                process.kill()
                process.join()
                here += 1
            result = Result.load(Path(out) / "result.json")
            said = wrong(result, out, wanted)
            kills, failures = kills + here, failures + bool(said)
            print(f"run {number}: killed {here} times{': ' + said if said else ''}", flush=True)
    print(f"{runs} runs, killed {kills} times, {failures} wrong")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=0, help="audits whose workers are killed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="between two kills, on average")
    parser.add_argument("--coordinator", type=int, default=0, help="audits whose giver of work is killed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    dice = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as out:
        wanted = digest(audited(ss.Pool(0), out))
    if given.runs:
        workers(given.runs, given.workers, given.seconds, wanted, dice)
    if given.coordinator:
        coordinator(given.coordinator, wanted, dice)
    if not given.runs and not given.coordinator:
        print("nothing was asked for: see --help", file=sys.stderr)


if __name__ == "__main__":
    main()
