"""Malformed requests, hostile images and slow clients against a serving guard: what it answers, and its memory.

Four parts, each by clients in processes of their own over real connections: requests bent by the mutators of
`guard_hostile`, requests that schemathesis makes of the OpenAPI document (where it is installed), images, and clients
that send a byte at a time, nothing at all, or read no answer, while others are answered. Whatever is answered has to be
below 500 but for a 503 that says when to come back; a whole request has to be answered; the service has to live and
take no more memory than `--most`. What the allocator keeps is told from what is in use by a trim (`malloc_trim`) and by
the same again (`--times`): a leak grows each time. Each failure is printed with the bytes that made it; the last line
counts them.
"""

import argparse
import collections
import ctypes
import importlib.util
import json
import multiprocessing
import os
import random
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import torch

import signstep as ss
from guard_client import asked, guarded, memory, peak, peak_from_here, serving, warmed
from guard_hostile import FIELDS, SHAPE, Sent, head, image, request, valid_images
from harness import machine, table
from signstep.guard.bodies import Limits, Wanted
from signstep.guard.calibrating import Calibrated, Terms, calibrate
from signstep.guard.service import Service

SILENCE = 0  # instead of a status: the connection was closed without an answer
LATE = -1  # nothing came in time
UNSENT = -2  # no client would send it
PATIENCE = 400.0  # seconds; the machine may be needed for something else meanwhile
BODY_SECONDS = 0.5  # that the service waits for a body
LONGEST_WAIT = 60.0  # so that every request is looked at, however many come
_SHOWN = 5


class Client:
    """One that keeps its connection as long as the service does, and counts what came of each kind of request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket: socket.socket | None = None
        self.counts: collections.Counter[tuple[str, int]] = collections.Counter()
        self.slowest: dict[str, float] = {}
        self.failures: list[str] = []

    def send(self, sent: Sent) -> int:
        """The status of the answer, or one of the above."""
        used = self.socket is not None
        began = time.monotonic()
        status = self._sent(sent)
        if status == SILENCE and used:  # the service may have closed the old connection before
            status = self._sent(sent)
        took = time.monotonic() - began
        self.counts[sent.kind, status] += 1
        self.slowest[sent.kind] = max(self.slowest.get(sent.kind, 0.0), took)
        accidental = status >= 500 and status != 503
        if accidental or (sent.whole and status <= 0) or status == LATE:
            whole = b"".join(sent.parts)
            self.failures.append(f"{sent.kind}: {status} after {took:.1f} s to {len(whole)} bytes {whole[:600]!r}")
        return status

    def _sent(self, sent: Sent) -> int:
        try:
            if self.socket is None:
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
            for part in sent.parts:
                self.socket.sendall(part)
        except TimeoutError:
            return self._left(LATE)
        except OSError:  # it may have answered before it closed
            if self.socket is None:
                return SILENCE
        try:
            reply = HTTPResponse(self.socket, method=sent.method)
            reply.begin()
            reply.read()
            status, over = reply.status, reply.will_close
            reply.close()
        except TimeoutError:
            return self._left(LATE)
        except (OSError, HTTPException, ValueError):
            return self._left(SILENCE)
        if over or not sent.whole:  # what else was in it would be taken for the next request
            return self._left(status)
        return status

    def _left(self, status: int) -> int:
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        return status


def bent_requests(client: Client, count: int, seed: int) -> None:
    """Requests by our own mutators."""
    draws = random.Random(seed)
    for _ in range(count):
        client.send(request(draws))


def images(client: Client, count: int, seed: int) -> None:
    """Images."""
    draws, valid = random.Random(seed), valid_images()
    for _ in range(count):
        way, content, kind = image(draws, valid)
        headers = [("host", "guard"), ("content-type", kind), ("content-length", str(len(content)))]
        client.send(Sent(way, (head("POST", "/predict", headers), content), whole=True))


def schema_requests(client: Client, count: int, seed: int) -> None:
    """Requests that schemathesis makes of our description, most of them against it."""
    import hypothesis
    import requests
    import schemathesis
    from schemathesis import GenerationMode

    with urlopen(f"http://127.0.0.1:{client.port}/openapi.json") as reply:
        described = schemathesis.openapi.from_dict(json.load(reply))
    session = requests.Session()
    settings = hypothesis.settings(
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    draws = random.Random(seed)

    def ask(case: Any) -> None:
        if "name" in case.path_parameters and draws.random() < 0.8:  # by chance nobody finds the name of the model
            case.path_parameters["name"] = "net"
        try:
            words = case.as_transport_kwargs(base_url=f"http://127.0.0.1:{client.port}")
            status = session.request(**words, timeout=PATIENCE, allow_redirects=False).status_code
        except requests.Timeout:
            status = LATE
        except (requests.RequestException, UnicodeError, ValueError):  # what its client cannot send
            status = UNSENT
        client.counts[f"{case.method} {case.path}", status] += 1
        if (status >= 500 and status != 503) or status == LATE:
            client.failures.append(f"{status} to {case!r}"[:900])

    found: Any = described.get_all_operations()  # of a package that need not be here
    operations: list[Any] = [one.ok() for one in found]
    while client.counts.total() < count:
        for operation in operations:
            posts = operation.method.upper() == "POST"
            for mode in (GenerationMode.NEGATIVE, GenerationMode.NEGATIVE, GenerationMode.POSITIVE):
                seed += 1
                left = count - client.counts.total()
                if left <= 0:
                    return
                try:
                    strategy = operation.as_strategy(generation_mode=mode)
                    seeded: Any = hypothesis.seed(seed)
                    given: Any = hypothesis.given
                    run = seeded(given(strategy)(ask))
                    bounded: Any = hypothesis.settings(settings, max_examples=min(left, 20 if posts else 2))
                    bounded(run)()
                except hypothesis.errors.Unsatisfiable:
                    continue  # an operation without parameters cannot be asked wrongly


def slow_clients(port: int, count: int) -> tuple[int, list[float], list[str]]:
    """Connections that do not come to an end; how many were closed in time, what others waited meanwhile, failures."""
    headers = [("host", "guard"), ("content-type", "application/json"), ("content-length", "900")]
    usual = head("POST", "/predict", headers)
    silent: list[tuple[bytes, float]] = [(b"", 0.0), (usual[:40], 0.0), (usual, 0.0)]
    kinds = [*silent, (usual, 0.5), (usual + b"{", 0.5), (usual[:-2], 0.5), (b"GET ", 0.7)]
    closed, waits, failures = 0, list[float](), list[str]()
    lock, ended = threading.Lock(), threading.Event()

    def dawdle(number: int) -> None:
        nonlocal closed
        first, pause = kinds[number % len(kinds)]
        until = time.monotonic() + 20 * BODY_SECONDS
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
                one.sendall(first)
                one.settimeout(pause or 0.5)
                while time.monotonic() < until:
                    try:
                        if one.recv(1000) == b"":
                            with lock:
                                closed += 1
                            return
                    except TimeoutError:
                        if pause:
                            one.sendall(b" ")
        except OSError:
            with lock:
                closed += 1
            return
        with lock:
            failures.append(f"slow {number % len(kinds)}: was not closed")

    body, connection = json.dumps({"inputs": [[[[0.5] * 8] * 8]]}).encode(), None

    def usual_client() -> None:
        nonlocal connection
        while not ended.is_set():
            began = time.monotonic()
            status, _, connection = asked(port, body, connection)
            waits.append(time.monotonic() - began)
            if status not in (200, 202, 422, 503):
                failures.append(f"beside slow clients: {status}")
            time.sleep(0.05)

    threads = [threading.Thread(target=dawdle, args=(number,)) for number in range(count)]
    usual_thread = threading.Thread(target=usual_client)
    for one in (usual_thread, *threads):
        one.start()
    for one in threads:
        one.join()
    ended.set()
    usual_thread.join()
    return closed, waits, failures


Said = tuple["collections.Counter[tuple[str, int]]", dict[str, float], list[str]]


def worker(what: Callable[[Client, int, int], None], port: int, count: int, seed: int, out: Any) -> None:
    """One client's part."""
    client = Client(port)
    try:
        what(client, count, seed)
    except Exception as error:
        client.failures.append(f"the client itself failed: {error!r}")
    out.put((client.counts, client.slowest, client.failures))


def stormed(what: Callable[[Client, int, int], None], port: int, count: int, clients: int, seed: int) -> Said:
    """What came of so many requests, by as many clients."""
    out: multiprocessing.Queue[Said] = multiprocessing.Queue()
    shares = [count // clients + (number < count % clients) for number in range(clients)]
    asking = [
        multiprocessing.Process(target=worker, args=(what, port, share, seed * 1000 + number, out))
        for number, share in enumerate(shares)
    ]
    for one in asking:
        one.start()
    counts: collections.Counter[tuple[str, int]] = collections.Counter()
    slowest: dict[str, float] = {}
    failures: list[str] = []
    for _ in asking:
        more, took, failed = out.get()
        counts += more
        failures += failed
        for kind, seconds in took.items():
            slowest[kind] = max(seconds, slowest.get(kind, 0.0))
    for one in asking:
        one.join()
    return counts, slowest, failures


def named(status: int) -> str:
    """As the table says it."""
    return {SILENCE: "closed", LATE: "no answer", UNSENT: "not sent"}.get(status, str(status))


def shown(counts: "collections.Counter[tuple[str, int]]", slowest: dict[str, float]) -> str:
    """A table of kinds and statuses."""
    rows = []
    for kind in sorted({kind for kind, _ in counts}):
        statuses = sorted((status, count) for (one, status), count in counts.items() if one == kind)
        words = ", ".join(f"{count} x {named(status)}" for status, count in statuses)
        rows.append([kind, str(sum(count for _, count in statuses)), f"{slowest.get(kind, 0):.2f}", words])
    return table(["kind", "requests", "slowest s", "answers"], rows)


def alive(port: int, process: int) -> list[str]:
    """Whether the service still answers, and the process is the same."""
    body = json.dumps({"inputs": [[[[0.5] * 8] * 8]]}).encode()
    status = SILENCE
    for _ in range(5):  # a 429 may say that it still works
        status, _, _ = asked(port, body, None)
        if status in (200, 202, 422):
            break
        time.sleep(1)
    there = os.waitpid(process, os.WNOHANG) == (0, 0)
    return [] if there and status in (200, 202, 422) else [f"the service is gone or does not answer: {status}"]


def trimmed(process: int) -> float:
    """Resident megabytes of the service once its allocator has given back what nobody uses."""
    os.kill(process, signal.SIGUSR1)
    time.sleep(1)
    return memory(process)


def made_service(url: str, model: ss.Model, made: Calibrated, limits: Limits) -> Service:
    """A small network that takes numbers, records and images; on a signal its allocator gives back what it holds."""
    trim = ctypes.CDLL(None).malloc_trim
    signal.signal(signal.SIGUSR1, lambda *_: trim(0))
    return replace(guarded(url, model, made, Wanted(SHAPE, FIELDS, resize=True)), limits=limits)


def one_part(name: str, storm: Callable[[], Said], process: int, most: float) -> list[str]:
    """One part, and what it says; its failures."""
    peak_from_here(process)
    began, before = time.monotonic(), memory(process)
    counts, slowest, failed = storm()
    if peak(process) > most:
        failed.append(f"the service took {peak(process):.0f} MB")
    seconds = time.monotonic() - began
    print(f"\n{name}: {counts.total()} in {seconds:.0f} s; {len(failed)} failures")
    print(shown(counts, slowest))
    print(f"{before:.0f} MB before, {peak(process):.0f} MB at most, {memory(process):.0f} MB after", end="")
    print(f", {trimmed(process):.0f} MB of them in use")
    print("\n".join(failed[:_SHOWN]), flush=True)
    return failed


def main() -> None:
    multiprocessing.set_start_method("fork")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000, help="by our own mutators")
    parser.add_argument("--schema", type=int, default=3_000, help="requests by schemathesis")
    parser.add_argument("--images", type=int, default=10_000, help="hostile images")
    parser.add_argument("--slow", type=int, default=300, help="slow clients at once")
    parser.add_argument("--clients", type=int, default=8, help="processes that ask")
    parser.add_argument("--times", type=int, default=1, help="each part, the same again: what is kept shows as growth")
    parser.add_argument("--most", type=float, default=640, help="megabytes of the service; more is a failure")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    model = ss.Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval())
    made = calibrate(model, [(torch.rand(300, *SHAPE), None)], Terms())
    make = partial(
        made_service,
        model=model,
        made=made,
        limits=Limits(rows=8, body_seconds=BODY_SECONDS, longest_wait=LONGEST_WAIT),
    )
    warmed(make)
    print(machine(), flush=True)
    failures: list[str] = []
    parts = {"requests": bent_requests, "schema": schema_requests, "images": images}
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'guard.db'}"
        with serving(partial(make, url)) as (port, process):
            bent_requests(Client(port), 200, -1)
            images(Client(port), 100, -1)
            start = memory(process)
            for name, what in [part for part in parts.items() for _ in range(given.times)]:
                count = getattr(given, name)
                if name == "schema" and importlib.util.find_spec("schemathesis") is None:
                    print("\nschema: schemathesis is not installed")
                    count = 0
                if count:
                    failures += one_part(name, partial(stormed, what, port, count, given.clients, given.seed), process,
                                         given.most) + alive(port, process)  # fmt: skip
            if given.slow:
                closed, waits, failed = slow_clients(port, given.slow)
                failures += failed + alive(port, process)
                print(
                    f"\n{given.slow} slow clients at once: {closed} left by the service; beside them {len(waits)}",
                    end=" ",
                )
                print(f"answers, the slowest after {max(waits):.2f} s; {memory(process):.0f} MB")
                print("\n".join(failed[:_SHOWN]), flush=True)
            print(f"\nmemory of the service: {start:.0f} MB warm, {memory(process):.0f} MB at the end")
    print(f"{len(failures)} failures")


if __name__ == "__main__":
    main()
