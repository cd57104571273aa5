"""Workers killed at random, and whoever gives the work out too: is the record the same, is a unit twice or missing?

    python benchmarks/scale_chaos.py --workers 100 --into chaos.jsonl
    python benchmarks/scale_chaos.py --giver 100 --all 10 --into chaos.jsonl

Each audit is one of 30 units. With ``--workers`` it is on a pool of two processes, of which one, as the dice say, is
killed (SIGKILL) after a random time of ``--seconds`` on average, over and over, as long as the audit lasts. With
``--giver`` the process that gives the work out, and does it, is killed in this way, and the audit goes on by resume,
until it ends. With ``--all`` it has two workers, and the dice choose among the three; none is killed before a unit was
done since the giver last was, since its start takes longer than the time between two kills. After each run the record's
digest is compared with that of an audit that nobody disturbed, and the ledger's rows with the units that there are.
With ``--into`` a run is a line of a file, and those that are there are not made again.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def pool() -> ss.Pool:
    return ss.Pool(2, threads=1, seconds=0.5, start="forkserver")


def children() -> list[int]:
    """Processes that fork servers of this one, or of what they made, have made: by what the kernel says."""
    there: dict[int, tuple[int, bytes]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            there[int(folder.name)] = (int(fields[1]), (folder / "cmdline").read_bytes())
        except OSError:
            continue
    mine, found = {os.getpid()}, []
    for _ in range(4):  # a server, what it made, that one's server, and what it made
        mine |= {number for number, (parent, _) in there.items() if parent in mine}
    for number in mine - {os.getpid()}:
        parent, words = there[number]
        if b"forkserver" in words and parent in there and there[parent][1] == words:  # as it was forked
            found.append(number)
    return found


class Chaos:
    """In a ``with`` block kills children now and then, when they may be."""

    def __init__(self, seconds: float, dice: random.Random, may: Callable[[], bool] = lambda: True) -> None:
        self.killed: list[int] = []
        self._seconds, self._dice, self._may, self._over = seconds, dice, may, threading.Event()
        self._thread = threading.Thread(target=self._kill)

    def __enter__(self) -> "Chaos":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _kill(self) -> None:
        while not self._over.wait(self._dice.expovariate(1 / self._seconds)):
            there = children() if self._may() else []
            if there:
                victim = self._dice.choice(there)
                try:
                    os.kill(victim, signal.SIGKILL)
                    self.killed.append(victim)
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


def workers(seconds: float, dice: random.Random, out: str) -> tuple[Result, dict[str, int]]:
    """An audit whose workers are killed."""
    result = None
    with Chaos(seconds, dice) as chaos:
        try:
            result = audited(pool(), out)
        except ss.SignstepError as error:  # too many deaths at one place: said, and what was done is kept
            print(error, flush=True)
    counts = {"killed": len(chaos.killed), "early": int(result is None)}
    return result or audited(ss.Pool(0), out, resume=True), counts


def _one(out: str, workers: int) -> None:
    torch.set_num_threads(1)
    executor = pool() if workers else ss.Pool(0)
    audited(executor, out, resume=True).save(Path(out) / "result.json")


def _lives(out: str, workers: int, chaos: Chaos, died: Callable[[], None]) -> tuple[Result, dict[str, int]]:
    """An audit that is begun again until it ends."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["signstep.scale.work"])
    givers = early = 0
    with chaos:
        while True:
            process = context.Process(target=_one, args=(out, workers))
            process.start()
            process.join()
            if process.exitcode == 0:
                break
            died()
            givers += process.exitcode == -signal.SIGKILL
            early += process.exitcode != -signal.SIGKILL
    return Result.load(Path(out) / "result.json"), {"killed": len(chaos.killed), "givers": givers, "early": early}


def giver(seconds: float, dice: random.Random, out: str) -> tuple[Result, dict[str, int]]:
    """An audit whose giver of work, who does it alone, is killed."""
    return _lives(out, 0, Chaos(seconds, dice), lambda: None)


def everybody(seconds: float, dice: random.Random, out: str) -> tuple[Result, dict[str, int]]:
    """An audit whose workers, and whoever gives them work, are killed."""
    units, before = Path(out) / "ledger" / "units", [0]

    def count() -> int:
        return len(list(units.glob("*.safetensors"))) if units.is_dir() else 0

    def died() -> None:
        before[0] = count()

    return _lives(out, 2, Chaos(seconds, dice, lambda: count() > before[0]), died)


KINDS = {"workers": workers, "giver": giver, "all": everybody}


def made(kind: str, number: int, seconds: float, wanted: str) -> dict[str, Any]:
    """One run, by its own dice."""
    with tempfile.TemporaryDirectory() as out:
        result, counts = KINDS[kind](seconds, random.Random(f"{kind} {number}"), out)
        line = {"kind": kind, "number": number, **counts, "wrong": wrong(result, out, wanted)}
    print(line, flush=True)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=0, help="audits whose workers are killed")
    parser.add_argument("--giver", type=int, default=0, help="audits whose giver of work is killed")
    parser.add_argument("--all", type=int, default=0, help="audits whose workers, and giver of work, are killed")
    parser.add_argument("--seconds", type=float, default=0.5, help="between two kills, on average")
    parser.add_argument("--into", type=Path, help="a file of runs, a line each")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    lines: list[dict[str, Any]] = []
    if given.into is not None and given.into.exists():
        lines = [json.loads(line) for line in given.into.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as out:
        wanted = digest(audited(ss.Pool(0), out))
    for kind in KINDS:
        there = {line["number"] for line in lines if line["kind"] == kind}
        for number in set(range(getattr(given, kind))) - there:
            lines.append(made(kind, number, given.seconds, wanted))
            if given.into is not None:
                with given.into.open("a") as file:
                    print(json.dumps(lines[-1]), file=file)
    for kind in KINDS:
        mine = [line for line in lines if line["kind"] == kind]
        counts = {name: sum(line.get(name, 0) for line in mine) for name in ("killed", "givers", "early")}
        print(
            f"{kind}: {len(mine)} runs, {counts['killed']} kills, {counts['givers']} of whoever gives the work out;",
            end="",
        )
        print(f" {counts['early']} ended early and gone on with; {sum(bool(line['wrong']) for line in mine)} wrong")


if __name__ == "__main__":
    main()
