"""kill -9 at random moments of a serving guard: whether every answer that a client got is in the store.

Each round a process serves, clients ask as fast as they are answered, and the process is killed without warning.
Answers that clients had read whole by then are looked up in the store afterwards. The last line says how many were
missing.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import torch

import signstep as ss
from harness import machine
from signstep.guard.app import make_app
from signstep.guard.bodies import Limits, Wanted
from signstep.guard.calibrating import Calibrated, Terms, calibrate
from signstep.guard.guard import Guard
from signstep.guard.service import Offered, Service
from signstep.guard.serving import server
from signstep.guard.store import Store

SHAPE = (1, 8, 8)


def guarded(url: str, model: ss.Model, made: Calibrated) -> Service:
    """A service around a small network."""
    guard = Guard(model, made.policy, store=url, calibration=made.calibration)
    return Service(guard, Offered("net", Wanted(SHAPE)), Limits())


def asking(port: int, bodies: list[bytes], ids: list[str], ended: threading.Event) -> None:
    """Ask until nobody answers; the ids of whole answers go into the list."""
    number = 0
    while not ended.is_set():
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            while not ended.is_set():
                connection.request(
                    "POST", "/predict", bodies[number % len(bodies)], {"content-type": "application/json"}
                )
                content = connection.getresponse().read()
                ids.append(json.loads(content)["id"])
                number += 1
        except (OSError, HTTPException, ValueError, KeyError):
            time.sleep(0.01)
        finally:
            connection.close()


def one_round(make: Callable[[], Service], bodies: list[bytes], clients: int, after: float) -> list[str]:
    """Serve in a child, ask, kill it so many seconds after the first answer; the ids that were answered."""
    listening = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            server(make_app(make()), Limits()).run(sockets=[listening])
        os._exit(1)
    port = listening.getsockname()[1]
    listening.close()
    ids: list[str] = []
    ended = threading.Event()
    threads = [threading.Thread(target=asking, args=(port, bodies, ids, ended)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    while not ids:
        time.sleep(0.001)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    ended.set()
    for thread in threads:
        thread.join()
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how often the process is killed")
    parser.add_argument("--clients", type=int, default=4, help="that ask at once")
    parser.add_argument("--longest", type=float, default=0.3, help="seconds from the first answer to the kill, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    draws, torch_draws = random.Random(given.seed), torch.Generator().manual_seed(given.seed)
    torch.set_num_threads(1)
    model = ss.Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval())
    rows = torch.rand(300, *SHAPE, generator=torch_draws)
    made = calibrate(model, [(rows, None)], Terms())
    bodies = [json.dumps({"inputs": row[None].tolist()}).encode() for row in rows]
    answered: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'guard.db'}"
        for number in range(given.kills):
            answered += one_round(
                partial(guarded, url, model, made), bodies, given.clients, draws.uniform(0, given.longest)
            )
            if (number + 1) % 20 == 0:
                print(f"{number + 1} kills, {len(answered)} answers", flush=True)
        store = Store(url)
        stored = {row["id"] for row in store.read(store.tables.decisions.select())}
        store.close()
    print(machine())
    print(
        f"{given.kills} kills, {len(answered)} answers read whole, {len(set(answered) - stored)} missing in the store"
    )


if __name__ == "__main__":
    main()
