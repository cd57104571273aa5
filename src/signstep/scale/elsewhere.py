"""What executors share whose workers are in other processes: the coordinator gives work out, and tasks have numbers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from signstep.auditing.result import Result
from signstep.auditing.run import Job
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.scale.coordinator import carry_out
from signstep.scale.executors import Staff, Workers
from signstep.scale.work import Performer, Task, Work

Held = TypeVar("Held")


class Elsewhere(Staff):
    """An executor, but for how many workers there are and how they are begun.

    Attributes:
        seconds: that a task should last.
        threads: of torch in each worker, where one can say.
    """

    seconds: float

    @property
    def goal(self) -> float:
        """See `Staff`."""
        return self.seconds

    def carry_out(self, job: Job) -> Result:
        """See `signstep.auditing.run.Executor`."""
        return carry_out(job, self)

    def begun(
        self,
        make: Callable[[], Work],
        bench: Callable[[], Performer],  # noqa: ARG002 - this process does none of it
    ) -> AbstractContextManager[Workers]:
        """See `Staff`."""
        return self.team(make)

    @abstractmethod
    def team(self, make: Callable[[], Work]) -> AbstractContextManager[Workers]:
        """Workers that are given what ``make`` gives, for the ``with`` block.

        Raises:
            LoadError: one cannot work, and says why.
            MissingExtraError: a package is missing.
        """

    def check(self) -> None:
        """See that seconds, and threads where there are such, make sense.

        Raises:
            InputError: they do not.
        """
        threads = getattr(self, "threads", None)
        if threads is not None and threads < 1:
            raise InputError(Arg("threads", threads), remedy="pass the threads of each worker, at least 1")
        if not self.seconds > 0:
            raise InputError(Arg("seconds", self.seconds), remedy="pass seconds above 0")


class Team(ABC, Generic[Held]):
    """Tasks that are given out, by their numbers, and what an engine holds of each.

    Args:
        places: tasks at a time.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.running: dict[int, Held] = {}
        self._given = 0

    @property
    def free(self) -> int:
        """See `Workers`."""
        return self.places - len(self.running)

    def submit(self, task: Task) -> int:
        """See `Workers`."""
        self._given += 1
        self.running[self._given] = self.given(task)
        return self._given

    @abstractmethod
    def given(self, task: Task) -> Held:
        """Give a task to the engine."""


def first_line(error: BaseException, *, last: bool = False) -> str:
    """What an engine's error says, in a line: its first one, or its last one."""
    said: list[Any] = str(error).strip().splitlines()
    return said[-1 if last else 0][:200] if said else type(error).__name__
