"""Giving the units of an audit out, booking what comes back, and seeing to those that failed.

What a worker could not finish, because it died or its memory did not suffice, is given out again with the work halved:
half of the units, then half of the rows at a time. What fails whatever is done about it, such as an error in the
model's own code, ends the audit with the examples that it fails on; the rest stays in the ledger.
"""

import tempfile
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from signstep.auditing.evidence import Evidence
from signstep.auditing.memory import planned_rows
from signstep.auditing.result import Result
from signstep.auditing.run import Job
from signstep.data.forms import Batch, Batches
from signstep.engine.arrays import Home
from signstep.engine.tasks import ignored
from signstep.engine.tree import rows, tree_map
from signstep.engine.untouched import untouched
from signstep.errors import InputError, ModelError, SignstepWarning
from signstep.messages import Arg
from signstep.model.victims.endpoint import HttpVictim
from signstep.scale.executors import Lost, Staff, Workers
from signstep.scale.identity import identity
from signstep.scale.joining import joined
from signstep.scale.ledger import Ledger, ledger
from signstep.scale.machines import free_memory
from signstep.scale.rows import Piece, pieces_of
from signstep.scale.work import Answer, Bench, Failure, Reached, Task, Work, around, pickled, raised, stream_of

_TRIES, _DEATHS = 3, 8  # attempts at a unit: where the machine gave an error; where a worker died
_MOST_UNITS, _MOST_BYTES = 256, 2**27  # of a task
_LATE = 3.0  # times as long as its units take others: a task that is given out once more at the end
_TICK = 0.5


def carry_out(job: Job, staff: Staff) -> Result:
    """The record of an audit whose units ``staff`` did; see `signstep.audit`.

    Raises:
        InputError: what was asked for makes no sense, or the ledger is of another audit.
        LoadError: a worker cannot work, or the ledger cannot be written.
        ModelError: a unit cannot be done.
    """
    _check(job, staff)
    run = job.run
    read = stream_of(job)
    described = run.data or ("tensors" if isinstance(job.data, tuple) else type(job.data).__name__)
    job = replace(job, run=replace(run, data=described))
    device = Home(job.model.network).device if run.device is None else torch.device(run.device)
    job.model.to(device)
    terms = identity(job, device.type)
    with ExitStack() as held:
        if run.out is None:
            out = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="signstep-")))
        else:
            out = Path(run.out)
        flow = iter(read)
        first = next(flow, None)
        batch = _batch(job, first, staff)
        book = held.enter_context(ledger(out, terms, batch=batch, unit=run.unit, resume=run.resume))
        shift = _Shift(job, staff, book, read, [] if first is None else chain([first], flow))
        try:
            shift.work(terms, device)
        except KeyboardInterrupt:
            shift.interrupted = True
        return shift.result()


def _check(job: Job, staff: Staff) -> None:
    run = job.run
    if run.shard is not None:
        raise InputError(
            Arg("shard", run.shard), "and", Arg("executor"), "each cut the data", remedy="pass one of the two"
        )
    if not isinstance(run.unit, int) or run.unit < 1:
        raise InputError(Arg("unit", run.unit), remedy="pass a number of examples, at least 1")
    if job.limit is not None and job.limit < 1:
        raise InputError(Arg("limit", job.limit), remedy="pass the number of examples to audit, at least 1")
    if run.resume and run.out is None:
        raise InputError(Arg("resume", True), "needs the folder of the ledger", remedy=("pass", Arg("out")))
    if isinstance(job.model.network, HttpVictim) and staff.places > 1:
        raise InputError(
            Arg("executor"),
            "has several workers, and each would ask the endpoint as if it were alone",
            remedy="pass ss.Pool(0), on the command line --workers 1",
        )


def _batch(job: Job, first: Batch | None, staff: Staff) -> int:
    """Rows at a time: those that the data comes in, as far as memory has room for every worker's."""
    if first is None:
        return 1
    size = min(job.run.unit, rows(first[0]))
    network, free = job.model.network, free_memory()
    if staff.here and staff.places > 1 and free is not None and isinstance(network, nn.Module):
        where = Home(network).device
        if where.type == "cpu" and not isinstance(first[0], dict):
            try:
                few = tree_map(lambda part: part[:2].to(where), first[0])
                with untouched(network, mode=job.model.mode):
                    assert isinstance(few, torch.Tensor)
                    size = min(size, planned_rows(network, few, min(2**30, free // (2 * staff.places))))
            except Exception:  # the audit itself will say what is wrong with model or data
                return max(1, size)
    return max(1, size)


@dataclass
class _Given:
    """A task that somebody is at.

    Attributes:
        task: the task.
        since: when it was given out.
        again: whether it was given out a second time.
    """

    task: Task
    since: float
    again: bool = False


class _Shift:
    """The work on one audit, from what is missing in its ledger to its result."""

    def __init__(self, job: Job, staff: Staff, book: Ledger, read: Batches, flow: Iterable[Batch]) -> None:
        self.job, self.staff, self.book = job, staff, book
        self.interrupted = False
        self._read, self._flow = read, flow
        self._remote = isinstance(job.data, Reached) and ignored(job.model.task) is None
        self._source: Iterator[Piece] = self._missing()
        self._exhausted = False
        self._starts: list[int] = []  # of all units, as far as they are known
        self._again: deque[Task] = deque()
        self._running: dict[int, _Given] = {}
        self._attempts: Counter[int] = Counter()
        self._paces: deque[float] = deque(maxlen=64)  # seconds of a unit
        self._waits: deque[float] = deque(maxlen=64)  # of a task, beyond those of its units
        self._failed: Failure | None = None
        self._lost_before = book.forget_damaged()

    def work(self, terms: dict[str, str], device: torch.device) -> None:
        """Do what is missing."""
        ahead = next(self._source, None)
        if ahead is None:
            self._exhausted = True
            return
        self._source = _before(ahead, self._source)
        self._progress()
        with self.staff.begun(lambda: self._made(terms, device), lambda: self._bench(device)) as workers:
            while True:
                self._give_out(workers)
                if not self._running or self._is_done():
                    return
                for number, outcome in workers.wait(_TICK):
                    self._end(self._running.pop(number), outcome)

    def result(self) -> Result:
        """The record of what is done.

        Raises:
            KeyboardInterrupt: it was interrupted before there was any.
            ModelError: a unit cannot be done.
        """
        stopped = self._failed is not None and self._failed.stopped
        if self._failed is not None and not stopped:
            raise raised(self._failed)
        remarks: list[str] = []
        starts = self._starts
        if stopped and self._failed is not None:
            remarks.append(self._failed.said)
        if self.interrupted or stopped:
            starts = self._side_by_side()
            kept = f"{len(self.book.rows)} units of {self.job.run.unit} examples are done; resume goes on with the rest"
            remarks.append(f"interrupted: {kept}")
            if not starts:
                if stopped:
                    raise ModelError(remarks[0], remedy="call again with resume")
                raise KeyboardInterrupt
        if not starts:
            raise InputError(
                Arg("data"),
                "gave no batches",
                remedy="pass an iterable of (x, y) that is not exhausted (a list or a DataLoader)",
            )
        if self._remote and isinstance(self.job.data, Reached):
            self._read.left_out = self.job.data.left_out
        found = joined(
            self.book,
            starts=starts,
            unit=self.job.run.unit,
            evidence=self.job.run.evidence,
            read=self._read,
            remarks=remarks,
        )
        if not remarks:
            self.book.complete()
        return found

    # What is to be done.

    def _missing(self) -> Iterator[Piece]:
        """Units that the ledger has not; where the data is read here, those it has are compared with it.

        Raises:
            InputError: the data has changed.
        """
        run = self.job.run
        if self._remote:
            total = self._total()
            whole: Iterator[Piece] = (Piece(start, min(start + run.unit, total)) for start in range(0, total, run.unit))
        else:
            whole = pieces_of(self._flow, run.unit, self.job.limit)
        for piece in whole:
            self._starts.append(piece.start)
            row = self.book.rows.get(piece.start)
            if row is None:
                yield piece
            elif row.stop != piece.stop or (piece.digest and row.digest != piece.digest):
                raise InputError(
                    Arg("data"),
                    f"has other examples {row.start} to {row.stop - 1} than when their unit was done",
                    remedy="pass the same data, or another folder",
                )

    def _give_out(self, workers: Workers) -> None:
        while workers.free > 0:
            task = self._next(workers)
            if task is None:
                return
            self._running[workers.submit(task)] = _Given(task, time.monotonic())

    def _next(self, workers: Workers) -> Task | None:
        if self._failed is not None:
            return None
        if self._again:
            return self._again.popleft()
        pieces: list[Piece] = []
        most, size = self._size(workers), 0
        while not self._exhausted and len(pieces) < most and size < _MOST_BYTES:
            piece = next(self._source, None)
            if piece is None:
                self._exhausted = True
            else:
                pieces.append(piece)
                size += piece.nbytes
        return Task(tuple(pieces), self.book.batch, self._room()) if pieces else self._late()

    def _size(self, workers: Workers) -> int:
        """Units of the next task: what lasts as long as it should, and less towards the end."""
        left = self._left()
        if not self._paces:
            return 1 if self.staff.goal < 120 or left is None else max(1, -(-left // (4 * workers.places)))
        size = round(self.staff.goal / max(1e-3, median(self._paces)))
        if left is not None:
            size = min(size, -(-left // (2 * workers.places)))
        return max(1, min(size, _MOST_UNITS))

    def _left(self) -> int | None:
        """Units that nobody has been given, where that is known."""
        total = self._total() if self._remote else self._read.most
        if total is None:
            return None
        if self.job.limit is not None:
            total = min(total, self.job.limit)
        given = sum(len(given.task.pieces) for given in self._running.values())
        return max(1, -(-total // self.job.run.unit) - len(self.book.rows) - given)

    def _total(self) -> int:
        """Examples, of data whose number is known."""
        assert isinstance(self.job.data, Reached)
        return self.job.data.total if self.job.limit is None else min(self.job.data.total, self.job.limit)

    def _room(self) -> int:
        """Bytes of points that a unit may keep: none where those before it already fill what there is."""
        evidence = self.job.run.evidence
        if evidence is None:
            return 0
        kept = sum(self.book.rows[start].points for start in self._side_by_side())
        return evidence.limit if kept < evidence.limit else 0

    def _late(self) -> Task | None:
        """A task that takes far longer than others, to be given out once more: what comes first counts."""
        if not self._paces or self._again:
            return None
        pace, wait, now = median(self._paces), median(self._waits), time.monotonic()
        for given in self._running.values():
            if not given.again and now - given.since > 1 + _LATE * (wait + pace * len(given.task.pieces)):
                given.again = True
                return given.task
        return None

    # What became of it.

    def _end(self, given: _Given, outcome: Answer | Lost) -> None:
        if isinstance(outcome, Lost):
            self._retry(self._left_of(given.task), given.task, outcome)
            return
        self.book.book(outcome.done)
        if outcome.done:
            self._paces.extend(one.seconds for one in outcome.done)
            self._waits.append(max(0.0, time.monotonic() - given.since - sum(one.seconds for one in outcome.done)))
        for text in outcome.warned:
            warnings.warn(SignstepWarning(text), stacklevel=2)
        self._progress()
        found = outcome.failure
        if found is None:
            return
        pieces = self._left_of(given.task)
        if found.passing and pieces and self._attempts[pieces[0].start] < _TRIES - 1:
            self._retry(pieces, given.task, Lost(found.said))
        elif self._failed is None and (pieces or not found.passing):
            self._failed = found

    def _left_of(self, task: Task) -> list[Piece]:
        return [piece for piece in task.pieces if piece.start not in self.book.rows]

    def _retry(self, pieces: list[Piece], task: Task, lost: Lost) -> None:
        """Give units out again, with the work halved."""
        if not pieces:
            return
        for piece in pieces:
            self._attempts[piece.start] += 1
        worst = max(pieces, key=lambda piece: self._attempts[piece.start])
        if self._attempts[worst.start] >= _DEATHS:
            self._failed = Failure((worst.start, worst.stop), b"", f"a worker was lost {_DEATHS} times ({lost.reason})")
            return
        half = (len(pieces) + 1) // 2
        batch = task.batch
        if len(pieces) == 1 and self._attempts[pieces[0].start] > 2:
            batch = max(1, batch // 2)
        for part in (pieces[:half], pieces[half:]):
            if part:
                self._again.append(Task(tuple(part), batch, task.room))

    def _is_done(self) -> bool:
        """Whether everything is done, though somebody may still be at what another one has finished."""
        return self._exhausted and not self._again and all(start in self.book.rows for start in self._starts)

    def _side_by_side(self) -> list[int]:
        """The units from the first one on, up to the first that is not done."""
        found, at = [], 0
        while (row := self.book.rows.get(at)) is not None:
            found.append(at)
            at = row.stop
        return found

    def _progress(self) -> None:
        if self.job.run.progress is not None:
            self.job.run.progress(sum(row.stop - row.start for row in self.book.rows.values()))

    # Who does it.

    def _bench(self, device: torch.device) -> Bench:
        return Bench(self.job, self.job.run.unit, device)

    def _made(self, terms: dict[str, str], device: torch.device) -> Work:
        """What workers in other processes are given."""
        run: Any = self.job.run
        kept = None if run.evidence is None else Evidence(run.evidence.limit)
        plain = replace(run, executor=None, out=None, resume=False, progress=None, evidence=kept)
        thing: object = replace(self.job, data=(), run=plain)
        if self._remote and isinstance(self.job.data, Reached):
            thing = self.job.data.again
        return replace(
            around(pickled(thing, f"the model {self.job.model.title}"), self.staff.each),
            anew=self._remote,
            run=pickled(plain, "what is said of the run"),
            terms=terms,
            unit=run.unit,
            device="" if device.type == "cpu" else str(device),
        )


def _before(first: Piece, rest: Iterator[Piece]) -> Iterator[Piece]:
    yield first
    yield from rest
