"""Micro-batches: inputs that come within a few milliseconds share a pass; what cannot be answered in time is refused.

One thread calls the model. The event loop waits for it, and reads requests meanwhile.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from signstep.guard.bodies import Refused
from signstep.guard.guard import Guard, Judged
from signstep.guard.passes import Passes


@dataclass
class _Asked:
    x: Tensor
    client: str
    done: "asyncio.Future[list[Judged]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """Collects inputs and has them judged together.

    Args:
        guard: that judges.
        rows: of a pass, at most.
        wait: seconds that the first input of a pass waits for others.
        waiting: rows that may wait; more are refused.

    Attributes:
        depth: rows that wait.
        passes: what they take.
    """

    def __init__(self, guard: Guard, *, rows: int = 32, wait: float = 0.002, waiting: int = 256) -> None:
        self._guard, self._rows, self._wait, self._most = guard, rows, wait, waiting
        self._queue: asyncio.Queue[_Asked | None] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="signstep-guard-model")
        self._task: asyncio.Task[None] | None = None
        self.depth = 0
        self._seconds = 0.001  # for a row, a moving mean
        self.passes = Passes(rows)

    def start(self) -> None:
        """Begin, within the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Judge what waits, then end."""
        if self._task is not None:
            self._queue.put_nowait(None)
            await self._task
            self._task = None
        self._thread.shutdown()

    async def ask(self, x: Tensor, client: str) -> list[Judged]:
        """Have the inputs of one client judged; their decisions are on their way to the store.

        Raises:
            Refused: too many wait.
        """
        if self.depth + len(x) > self._most:
            raise Refused(429, "too many inputs wait; send it again later", wait=self.patience())
        self.depth += len(x)
        one = _Asked(x, client)
        self._queue.put_nowait(one)
        return await asyncio.shield(one.done)

    def patience(self) -> int:
        """Seconds until what waits now may be done."""
        return max(1, math.ceil(self.depth * self._seconds))

    async def _run(self) -> None:
        held: _Asked | None = None
        ended = False
        while not ended or held is not None:
            first = held or await self._queue.get()
            held = None
            if first is None:
                return
            group, rows, until = [first], len(first.x), time.monotonic() + self._wait
            while rows < self._rows and not ended:
                try:
                    left = until - time.monotonic()
                    one = self._queue.get_nowait() if left <= 0 else await asyncio.wait_for(self._queue.get(), left)
                except (asyncio.QueueEmpty, TimeoutError):
                    break
                if one is None:
                    ended = True
                elif rows + len(one.x) > self._rows:
                    held = one  # for the next pass
                    break
                else:
                    group.append(one)
                    rows += len(one.x)
            await self._judge(group, rows)

    async def _judge(self, group: Sequence[_Asked], rows: int) -> None:
        clients = [one.client for one in group for _ in range(len(one.x))]
        try:
            x = torch.cat([one.x for one in group])
            judged, took = await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, x, clients)
        except Exception as error:  # of the guard itself: those who asked are told, the next are judged
            for one in group:
                if not one.done.done():
                    one.done.set_exception(error)
                    one.done.exception()
            return
        finally:
            self.depth -= rows
        self._seconds += 0.1 * (took / rows - self._seconds)
        self.passes.saw(rows, took)
        at = 0
        for one in group:
            if not one.done.done():
                one.done.set_result(judged[at : at + len(one.x)])
            at += len(one.x)

    def _timed(self, x: Tensor, clients: Sequence[str]) -> tuple[list[Judged], float]:
        """The pass, and its seconds: without those that the event loop takes for others until it hears of it."""
        began = time.monotonic()
        judged = self._guard.judge(x, clients)
        return judged, time.monotonic() - began
