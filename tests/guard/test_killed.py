"""kill -9 at any moment: whatever a client was answered is in the store, and the store opens again."""

import contextlib
import json
import os
import random
import signal
import socket
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from guard_bench import made, odd, service

from signstep.guard.app import make_app
from signstep.guard.bodies import Limits
from signstep.guard.serving import server
from signstep.guard.store import Store

pytest.importorskip("fastapi")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def forked(store: Path, listening: socket.socket) -> int:
    """A process that serves, until it is killed."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            server(make_app(service(made(store))), Limits()).run(sockets=[listening])
        os._exit(1)
    return child


def answered_until_killed(child: int, port: int, after: float) -> list[str]:
    """The ids of what was answered before the process was killed, so many seconds after its first answer."""
    ids: list[str] = []
    body, ends = json.dumps({"inputs": odd(0.1).tolist()}).encode(), 0.0
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=5 if ids else 60)
        try:
            connection.request("POST", "/predict", body, {"content-type": "application/json"})
            if ids and time.monotonic() > ends:  # while the answer is on its way
                os.kill(child, signal.SIGKILL)
            reply = connection.getresponse()
            content = reply.read()
            if reply.status == 200:
                ids.append(json.loads(content)["id"])
                ends = ends or time.monotonic() + after
        except (OSError, HTTPException, ValueError):
            if ids:
                return ids
            time.sleep(0.02)
        finally:
            connection.close()


def test_what_was_answered_is_stored(tmp_path: Path) -> None:
    store, draws, answered = tmp_path / "guard.db", random.Random(3), list[str]()
    made()  # what is known of clean inputs is worked out here once, and not in each process
    for _ in range(3):
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        child = forked(store, listening)
        port = listening.getsockname()[1]
        listening.close()
        try:
            answered += answered_until_killed(child, port, draws.uniform(0.0, 0.15))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
    opened = Store(f"sqlite:///{store}")
    stored = {row["id"] for row in opened.read(opened.tables.log(limit=10_000))}
    opened.close()
    assert len(answered) >= 3
    assert set(answered) <= stored
