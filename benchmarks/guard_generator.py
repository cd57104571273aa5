"""Asks a service over HTTP from one process: at full speed by so many clients, or at a rate, whatever it answers.

It shares the machine with the service, and says what it takes of it: the share of a core, and how late it was with what
was due. Requests are made beforehand; of an answer it reads the status and counts the bytes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

ANSWERED = (200, 202, 422)


@dataclass
class Asked:
    """What came of many requests.

    Attributes:
        seconds: that it took.
        due: of each answered request, seconds from the beginning.
        latencies: of each answered request, from when it was due.
        statuses: how many got which; 0 without an answer.
        late: of each request, how long after it was due it was sent.
        core: share of a core that the generator took.
    """

    seconds: float = 0.0
    due: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    late: list[float] = field(default_factory=list)
    core: float = 0.0

    @property
    def answered(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def p99(self, after: float = 0.0) -> float:
        """Milliseconds that one in a hundred of those answered takes longer, of those due from then on."""
        kept = [took for due, took in zip(self.due, self.latencies, strict=True) if due >= after]
        return float(np.quantile(kept, 0.99)) * 1000 if kept else float("nan")


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._answer: asyncio.Future[int] | None = None
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    async def ask(self, request: bytes) -> int:
        """The status of its answer."""
        self._held.clear()
        self._answer = asyncio.get_running_loop().create_future()
        assert self.transport is not None
        self.transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._held[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._held) >= end + 4 + length and self._answer is not None and not self._answer.done():
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, _: Exception | None) -> None:
        self.transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(0)


class _Pool:
    """Connections that are kept, as many as are needed at once."""

    def __init__(self, port: int, bodies: Sequence[bytes]) -> None:
        head = b"POST /predict HTTP/1.1\r\nHost: guard\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.port, self.requests = port, [head % len(body) + body for body in bodies]
        self._idle: list[_Connection] = []
        self.asked = Asked()
        self.began = 0.0

    async def ask(self, number: int, due: float) -> None:
        """Ask, and keep what came of it."""
        connection = self._idle.pop() if self._idle else None
        try:
            if connection is None or connection.transport is None:
                _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", self.port)
            self.asked.late.append(time.monotonic() - self.began - due)
            status = await connection.ask(self.requests[number % len(self.requests)])
        except OSError:
            status = 0
        self.asked.statuses[status] += 1
        if status in ANSWERED:
            self.asked.due.append(due)
            self.asked.latencies.append(time.monotonic() - self.began - due)
        if connection is not None and connection.transport is not None:
            self._idle.append(connection)

    async def at_full_speed(self, clients: int, seconds: float) -> None:
        """So many clients, each of which asks again once it was answered."""

        async def one(first: int) -> None:
            number = first
            while (due := time.monotonic() - self.began) < seconds:
                await self.ask(number, due)
                number += clients

        await asyncio.gather(*map(one, range(clients)))

    async def at_a_rate(self, rate: float, seconds: float) -> None:
        """Poisson arrivals, whatever is answered."""
        draws, due, number, tasks = np.random.default_rng(0), 0.0, 0, set()
        while (due := due + draws.exponential(1 / rate)) < seconds:
            wait = self.began + due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self.ask(number, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.gather(*tasks)


def _run(pool: _Pool, work: Callable[[_Pool], Awaitable[None]]) -> Asked:
    async def whole() -> None:
        pool.began = time.monotonic()
        await work(pool)
        pool.asked.seconds = time.monotonic() - pool.began

    used = time.process_time()
    asyncio.run(whole())
    pool.asked.core = (time.process_time() - used) / pool.asked.seconds
    return pool.asked


def at_full_speed(port: int, bodies: Sequence[bytes], clients: int, seconds: float) -> Asked:
    """Ask as fast as is answered, by so many clients."""
    return _run(_Pool(port, bodies), lambda pool: pool.at_full_speed(clients, seconds))


def at_a_rate(port: int, bodies: Sequence[bytes], rate: float, seconds: float) -> Asked:
    """Ask so often a second, whatever it answers."""
    return _run(_Pool(port, bodies), lambda pool: pool.at_a_rate(rate, seconds))
