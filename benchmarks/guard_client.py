"""What the benchmarks of the guard share: a guarded service in a process of its own, a client, and its memory.

The service is forked from a process that has everything imported and built once (`warmed`), so that a life of it costs
tens of milliseconds, not the seconds of its imports.
"""

import contextlib
import os
import resource
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import signstep as ss
from signstep.guard.app import make_app
from signstep.guard.bodies import Limits, Wanted
from signstep.guard.calibrating import Calibrated
from signstep.guard.guard import Guard
from signstep.guard.service import Offered, Service
from signstep.guard.serving import server

ANSWERED = (200, 202, 422)


def guarded(url: str, model: ss.Model, made: Calibrated, wanted: Wanted) -> Service:
    """With detectors, store, alarms."""
    guard = Guard(model, made.policy, store=url, calibration=made.calibration)
    return Service(guard, Offered("net", wanted), Limits())


def warmed(make: Callable[[str], Service]) -> None:
    """Build a service once and leave it, for what stays of it: modules, charts, schemas of tables."""
    with tempfile.TemporaryDirectory() as folder:
        service = make(f"sqlite:///{Path(folder) / 'guard.db'}")
        server(make_app(service), service.limits).config.load()
        service.guard.close()


def forked(make: Callable[[], Service]) -> tuple[int, int]:
    """A service in a process of its own, which does not end by itself: its port and process."""
    # With its protocol named: asyncio sets TCP_NODELAY on no others, and each answer would wait 40 ms for the client's
    # delayed acknowledgement.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            service = make()
            server(make_app(service), service.limits).run(sockets=[listening])
        os._exit(1)
    port = listening.getsockname()[1]
    listening.close()
    return port, child


def killed(child: int) -> None:
    """Kill a process without warning and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@contextlib.contextmanager
def serving(make: Callable[[], Service]) -> Iterator[tuple[int, int]]:
    """A service in a process of its own: its port and process."""
    port, child = forked(make)
    try:
        yield port, child
    finally:
        killed(child)


def asked(port: int, body: bytes, connection: HTTPConnection | None) -> tuple[int, bytes, HTTPConnection | None]:
    """One request of JSON: its status, 0 without an answer; the answer; the connection where it is still open."""
    connection = connection or HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/predict", body, {"content-type": "application/json"})
        reply = connection.getresponse()
        content = reply.read()
    except (OSError, HTTPException):
        connection.close()
        return 0, b"", None
    return reply.status, content, connection


def memory(process: int) -> float:
    """Resident megabytes of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak(process: int) -> float:
    """The most resident megabytes that a process had since it began, or since `peak_from_here`."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def peak_from_here(process: int) -> None:
    """Forget the most that a process had."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
