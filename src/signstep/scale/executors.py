"""Who does the work: a protocol for each way of having it done, and this process as the simplest.

Nothing here schedules processes or machines: a process pool, Ray and Slurm do that. What is the same for all is the
coordinator's: which unit comes next, and what becomes of one that failed.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from signstep.scale.work import Answer, Performer, Task, Work


@dataclass(frozen=True)
class Lost:
    """A task whose worker died.

    Attributes:
        reason: what is known of it.
    """

    reason: str


class Workers(Protocol):
    """Workers that are ready."""

    @property
    def places(self) -> int:
        """How many there are."""

    @property
    def free(self) -> int:
        """How many tasks they take now."""

    def submit(self, task: Task) -> int:
        """Give a task to one; the number of the task."""

    def wait(self, seconds: float) -> list[tuple[int, Answer | Lost]]:
        """Tasks that have ended, waiting for the first one for so many seconds."""


@runtime_checkable
class Staff(Protocol):
    """What an executor offers `signstep.scale.coordinator`."""

    @property
    def places(self) -> int:
        """Workers, as far as that is known before they are there; more than one where it is not."""

    @property
    def each(self) -> int:
        """Threads of torch for each worker; 0 leaves them."""

    @property
    def goal(self) -> float:
        """Seconds that a task should last."""

    @property
    def here(self) -> bool:
        """Whether all workers share this machine, its cores and its memory."""

    def begun(self, make: Callable[[], Work], bench: Callable[[], Performer]) -> AbstractContextManager[Workers]:
        """Workers for the ``with`` block; after it none is left.

        Args:
            make: what they are given, for those in other processes.
            bench: this process's own.

        Raises:
            LoadError: one cannot work, and says why.
            MissingExtraError: a package is missing.
        """


class Alone:
    """This process as a worker: a task is done when it is waited for."""

    def __init__(self, bench: Performer) -> None:
        self._bench = bench
        self._waiting: deque[tuple[int, Task]] = deque()
        self._given = 0

    @property
    def places(self) -> int:
        """See `Workers`."""
        return 1

    @property
    def free(self) -> int:
        """See `Workers`."""
        return 0 if self._waiting else 1

    def submit(self, task: Task) -> int:
        """See `Workers`."""
        self._given += 1
        self._waiting.append((self._given, task))
        return self._given

    def wait(self, seconds: float) -> list[tuple[int, Answer | Lost]]:  # noqa: ARG002 - it is done at once
        """See `Workers`."""
        if not self._waiting:
            return []
        number, task = self._waiting.popleft()
        return [(number, self._bench.perform(task))]


@contextmanager
def alone(bench: Callable[[], Performer]) -> Iterator[Workers]:
    """This process, as the only worker."""
    yield Alone(bench())
