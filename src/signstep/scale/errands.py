"""Giving out work whose units are whole things to do, such as a model to train and to audit, one to a worker."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from signstep.errors import LoadError
from signstep.scale.executors import Lost, Staff
from signstep.scale.ledger import Done
from signstep.scale.machines import machine
from signstep.scale.rows import Piece
from signstep.scale.work import Answer, Errands, Failure, Task, around, failure, pickled, raised

_TRIES = 3
_TICK = 0.5


class Stopped(Exception):  # noqa: N818 - no error of anybody's
    """An errand was interrupted, and goes on when it is begun again."""


@dataclass(frozen=True)
class Doing:
    """Does errands in this process.

    Attributes:
        do: takes the number of one and whether somebody was at it before; gives what came of it. Raises `Stopped`.
        device: where.
    """

    do: Callable[[int, bool], bytes]
    device: torch.device

    def perform(self, task: Task) -> Answer:
        """See `signstep.scale.work.Performer`."""
        done: list[Done] = []
        for piece in task.pieces:
            began = time.perf_counter()
            try:
                content = self.do(piece.start, task.again)
            except Stopped as error:
                return Answer(tuple(done), Failure((0, 0), b"", str(error), stopped=True))
            except Exception as error:  # the model's own, too; whoever gave the work raises it
                return Answer(tuple(done), failure(error, (0, 0)))
            seconds = time.perf_counter() - began
            done.append(Done(piece.start, piece.stop, "", content, 0, machine(self.device), seconds))
        return Answer(tuple(done))


def run_errands(staff: Staff, errands: Errands, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """What came of each errand, with its number, as they end.

    Args:
        staff: does them.
        errands: what is to be done.
        names: of the errands, for people; there are as many as there are names.

    Raises:
        KeyboardInterrupt: one was interrupted.
        LoadError: no worker can do one, or workers died at it three times.
        SignstepError: what an errand raised.
    """
    waiting = deque(range(len(names)))
    running: dict[int, int] = {}
    tries: Counter[int] = Counter()
    content = pickled(errands, "the work")
    with staff.begun(lambda: around(content, staff.each), lambda: errands.begun(0)) as workers:
        while waiting or running:
            while waiting and workers.free > 0:
                number = waiting.popleft()
                tries[number] += 1
                running[workers.submit(Task((Piece(number, number + 1),), 1, 0, tries[number] > 1))] = number
            for key, outcome in workers.wait(_TICK):
                number = running.pop(key)
                if isinstance(outcome, Lost):
                    if tries[number] == _TRIES:
                        raise LoadError(
                            f"{names[number]}: a worker was lost {_TRIES} times ({outcome.reason})",
                            remedy="give each worker more memory, or use fewer of them; what was done is kept",
                        )
                    waiting.append(number)
                elif outcome.failure is None:
                    yield number, outcome.done[0].content
                elif outcome.failure.stopped:
                    raise KeyboardInterrupt
                else:
                    raise raised(outcome.failure)
