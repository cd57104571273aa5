"""Processes on this machine, by Python's own pools: one of one worker for each place, so that a death has one address.

A pool whose worker dies is broken as a whole. With a pool for each worker it is known which task the dead one had, and
the others go on.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from signstep.errors import InputError, LoadError
from signstep.messages import Arg
from signstep.scale.asked import Asked
from signstep.scale.elsewhere import Elsewhere, Team
from signstep.scale.executors import Lost, Workers, alone
from signstep.scale.machines import cores
from signstep.scale.work import Answer, Hello, Performer, Task, Work, hello, perform, raised

_GREETINGS = 3  # attempts to have a process begin


@dataclass(frozen=True)
class Pool(Elsewhere):
    """Carries out an audit on this machine: ``ss.audit(..., run=ss.Run(executor=ss.Pool(4), out="report"))``.

    A script that starts processes needs ``if __name__ == "__main__":`` around what starts them.

    Attributes:
        workers: processes; "auto" for one for each core; 0 for none but this one.
        threads: of torch in each; None shares the cores out. Numbers of other threads may differ in their last digits.
        start: "spawn", or "forkserver", which is quicker where Python has it.
        seconds: that a worker is given work for at a time, which is what a kill loses of it.

    Raises:
        InputError: one makes no sense.
    """

    workers: int | Literal["auto"] = "auto"
    threads: int | None = None
    start: Literal["spawn", "forkserver"] = "spawn"
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.workers != "auto" and (not isinstance(self.workers, int) or not 0 <= self.workers <= 1024):
            raise InputError(Arg("workers", self.workers), remedy="pass a number from 0 to 1024, or 'auto'")
        self.check()
        if self.start not in {"spawn", "forkserver"} & {*multiprocessing.get_all_start_methods()}:
            raise InputError(Arg("start", self.start), "is not one that Python has here", remedy="pass 'spawn'")

    @classmethod
    def asked(cls, asked: Asked) -> "Pool":
        """From a command line."""
        asked.refuse("a pool", "address", "partition")
        return cls("auto" if asked.workers is None else asked.workers)

    @property
    def places(self) -> int:
        """See `Staff`."""
        return cores() if self.workers == "auto" else max(1, self.workers)

    @property
    def goal(self) -> float:
        """See `Staff`; this process gives itself a unit at a time, which costs nothing."""
        return self.seconds if self.workers else 0.0

    @property
    def here(self) -> bool:
        """See `Staff`."""
        return True

    def begun(self, make: Callable[[], Work], bench: Callable[[], Performer]) -> AbstractContextManager[Workers]:
        """See `Staff`."""
        return alone(bench) if self.workers == 0 else self.team(make)

    def team(self, make: Callable[[], Work]) -> AbstractContextManager[Workers]:
        """See `Elsewhere`."""
        return _processes(self, make())

    @property
    def each(self) -> int:
        """Threads of each worker."""
        if self.threads is not None:
            return self.threads
        return 0 if self.workers == 0 else max(1, cores() // self.places)


@contextmanager
def _processes(pool: Pool, work: Work) -> Iterator[Workers]:
    team = _Team(pool, work)
    try:
        team.greet()
        yield team
    finally:
        team.close()


class _Team(Team["tuple[int, Future[Answer]]"]):
    """Single-worker pools, by the number of their place."""

    def __init__(self, pool: Pool, work: Work) -> None:
        super().__init__(pool.places)
        self._context = multiprocessing.get_context(pool.start)
        if pool.start == "forkserver":
            self._context.set_forkserver_preload(["signstep.scale.work"])
        self._work = work
        self._pools = [self._new(slot) for slot in range(pool.places)]

    def _new(self, slot: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=self._context, initializer=_begin, initargs=(self._work, slot))

    def greet(self) -> None:
        """See that all can work, before anything runs.

        Raises:
            LoadError: one cannot.
        """
        said = [pool.submit(_hello) for pool in self._pools]
        for slot, future in enumerate(said):
            self._greet(slot, future)

    def _greet(self, slot: int, future: "Future[Hello]") -> None:
        for attempt in range(_GREETINGS):
            try:
                found = future.result()
            except BrokenProcessPool as error:
                if attempt == _GREETINGS - 1:
                    raise LoadError(
                        "a worker process ended before it began",
                        remedy="see that memory suffices, and that a script that starts workers does so under "
                        'if __name__ == "__main__":',
                    ) from error
                self._replace(slot)
                future = self._pools[slot].submit(_hello)
                continue
            if found.failure is not None:
                raise raised(found.failure)
            return

    def given(self, task: Task) -> "tuple[int, Future[Answer]]":
        """See `Team`."""
        taken = {slot for slot, _ in self.running.values()}
        slot = next(slot for slot in range(self.places) if slot not in taken)
        # As bytes: torch would otherwise lend the worker its memory through a descriptor, which a thread hands over,
        # and that thread prints a traceback where the worker is dead by then.
        content = pickle.dumps(task)
        try:
            future = self._pools[slot].submit(_perform, content)
        except BrokenProcessPool:  # it died with nothing to do
            self._replace(slot)
            future = self._pools[slot].submit(_perform, content)
        return slot, future

    def wait(self, seconds: float) -> list[tuple[int, Answer | Lost]]:
        """See `Workers`."""
        wait([future for _, future in self.running.values()], timeout=seconds, return_when=FIRST_COMPLETED)
        ended = [number for number, (_, future) in self.running.items() if future.done()]
        return [(number, self._outcome(*self.running.pop(number))) for number in ended]

    def _outcome(self, slot: int, future: "Future[Answer]") -> Answer | Lost:
        try:
            return future.result()
        except BrokenProcessPool:
            self._replace(slot)
            return Lost("its process was killed, or ran out of memory")

    def _replace(self, slot: int) -> None:
        self._pools[slot].shutdown(wait=False, cancel_futures=True)
        self._pools[slot] = self._new(slot)

    def close(self) -> None:
        """End every process; who is still at something is killed."""
        busy = {slot for slot, _ in self.running.values()}
        for slot, pool in enumerate(self._pools):
            if slot in busy:
                for process in list((pool._processes or {}).values()):
                    with suppress(OSError, ValueError):
                        process.kill()
            pool.shutdown(wait=slot not in busy, cancel_futures=True)


_MINE: list[tuple[Work, int]] = []


def _begin(work: Work, slot: int) -> None:
    """In a worker: an interruption is the business of whoever gives the work; whose end is ours too."""
    _MINE[:] = [(work, slot)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _hello() -> Hello:
    return hello(*_MINE[0])


def _perform(content: bytes) -> Answer:
    work, slot = _MINE[0]
    task: Task = pickle.loads(content)
    return perform(work, task, slot)


def _follow(parent: "multiprocessing.process.BaseProcess") -> None:
    parent.join()
    os._exit(1)
