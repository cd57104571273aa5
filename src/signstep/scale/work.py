"""What a worker is given and what it does: the audit of a few units, with an answer for each."""

import io
import os
import pickle
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from signstep.auditing.evidence import Evidence
from signstep.auditing.run import Job, Run
from signstep.data.forms import ROWS, Batches, Later
from signstep.engine.arrays import Home
from signstep.engine.origin import contained, said_of
from signstep.engine.tasks import ignored
from signstep.errors import InputError, LoadError, SignstepError
from signstep.frames import named
from signstep.io.caps import NAMES, caps, current
from signstep.model.batch_sizes import OUT_OF_MEMORY
from signstep.scale.differences import differences
from signstep.scale.identity import identity
from signstep.scale.kept_memory import keep_memory
from signstep.scale.ledger import Done
from signstep.scale.machines import machine
from signstep.scale.rows import Cursor, Piece, pieces_of
from signstep.scale.unit_files import packed

_PASSING = (OSError, MemoryError, OUT_OF_MEMORY)


@dataclass(frozen=True)
class Reached:
    """Data that a worker gets at itself, with the model: by their names, and not by their bytes.

    Attributes:
        batches: the same here.
        again: makes the whole audit anew, wherever it is called.
        total: the number of examples.
    """

    batches: Iterable[Any]
    again: Callable[[], Job]
    total: int

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    @property
    def left_out(self) -> dict[str, int]:
        """What of the data is not among the batches, as far as that is known before they are read."""
        return dict(getattr(self.batches, "left_out", {}))


@dataclass(frozen=True)
class Work:
    """What every worker is given once.

    Attributes:
        job: pickled: the audit itself, or what makes it anew; or other work, see `Errands`.
        anew: whether it is what makes it anew.
        run: pickled: how it is carried out.
        terms: what the worker's audit must come to.
        unit: rows of a unit.
        device: where; "" for where the model is.
        threads: of torch; 0 leaves them.
        folder: the current folder, which names of files and modules start from.
        paths: of modules.
        caps: how large what a file claims may be.
        dtype: torch's default.
    """

    job: bytes
    anew: bool
    run: bytes
    terms: Mapping[str, str]
    unit: int
    device: str = ""
    threads: int = 0
    folder: str = ""
    paths: tuple[str, ...] = ()
    caps: Mapping[str, int] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32


class Task(NamedTuple):
    """Units for a worker.

    Attributes:
        pieces: the units.
        batch: rows at a time.
        room: bytes of points that each may keep.
        again: whether somebody was at it before.
    """

    pieces: tuple[Piece, ...]
    batch: int
    room: int
    again: bool = False

    @property
    def starts(self) -> tuple[int, ...]:
        """Which units."""
        return tuple(piece.start for piece in self.pieces)


@dataclass(frozen=True)
class Failure:
    """Why a unit was not done.

    Attributes:
        rows: the first example and the one behind the last; the same twice where no example is to blame.
        error: the exception itself, pickled; b"" where it cannot be.
        said: in a sentence.
        passing: whether another attempt may help.
        stopped: the model, an endpoint, gave up.
    """

    rows: tuple[int, int]
    error: bytes
    said: str
    passing: bool = False
    stopped: bool = False


@dataclass(frozen=True)
class Answer:
    """What became of a task.

    Attributes:
        done: its units.
        failure: what ended it before its end.
        warned: warnings of the first unit.
    """

    done: tuple[Done, ...]
    failure: Failure | None = None
    warned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hello:
    """What a worker says before anything runs.

    Attributes:
        process: its number.
        failure: why it cannot work.
    """

    process: int
    failure: Failure | None = None


class Performer(Protocol):
    """Who does tasks."""

    def perform(self, task: Task) -> Answer:
        """Do the units of a task."""


class Errands(ABC):
    """Work that is no audit in units: a unit is the number of a thing to do."""

    @abstractmethod
    def begun(self, slot: int) -> Performer:
        """Get ready, in the process where it is done.

        Raises:
            SignstepError: it cannot be done there.
        """


# Of a `Run`, what is the business of whoever gives the work out.
_OF_THE_WHOLE: dict[str, Any] = {"executor": None, "out": None, "resume": False, "unit": ROWS, "progress": None}


class Bench:
    """A worker's own audit, ready to be carried out unit by unit.

    Args:
        job: the audit.
        unit: rows of a unit.
        device: where.
    """

    def __init__(self, job: Job, unit: int, device: torch.device) -> None:
        job.model.to(device)
        self.job, self.device = job, device
        self._cursor = Cursor(lambda: pieces_of(stream_of(job), unit, job.limit, digests=False))
        self._machine = machine(device)

    def perform(self, task: Task) -> Answer:
        """Carry out the units of a task, one after the other, up to the first that cannot be."""
        done: list[Done] = []
        said: list[str] = []
        for piece in task.pieces:
            try:
                with warnings.catch_warnings(record=True) as warned:
                    warnings.simplefilter("always")
                    one = self._done(piece, task)
                if piece.start == 0:
                    said += [str(one_.message) for one_ in warned if issubclass(one_.category, UserWarning)]
            except Exception as error:  # the model's own, too; whoever gave the work raises it
                return Answer(tuple(done), self._failed(piece, task, error), tuple(said))
            if isinstance(one, Failure):
                return Answer(tuple(done), one, tuple(said))
            done.append(one)
        return Answer(tuple(done), None, tuple(said))

    def _done(self, piece: Piece, task: Task) -> Done | Failure:
        began = time.perf_counter()
        whole = self._cursor.read(piece)
        kept = None if self.job.run.evidence is None else Evidence(task.room)
        result = self._audited(whole, task.batch, kept)
        if result.partial:
            why = next((note for note in result.notes if "ended early" in note), "")
            if not why:
                raise KeyboardInterrupt
            return Failure((piece.start, piece.stop), b"", why, stopped=True)
        result = replace(result, terms={**result.terms, "device": self.device.type})
        points = {} if kept is None else kept.tensors()
        size = sum(part.nbytes for name, part in points.items() if name.startswith("x"))
        content = packed(result, points, 0 if kept is None else kept.dropped)
        seconds = time.perf_counter() - began
        return Done(piece.start, piece.stop, whole.digest, content, size, self._machine, seconds)

    def _audited(self, whole: Piece, batch: int, kept: Evidence | None) -> Any:
        run = replace(
            self.job.run,
            shard=range(whole.start, whole.stop),
            device=self.device,
            evidence=kept,
            **_OF_THE_WHOLE,
        )
        return self.job.audited(Later(whole.batches(batch), whole.start), run)

    def _failed(self, piece: Piece, task: Task, error: Exception) -> Failure:
        if _is_passing(error):
            return failure(error, (piece.start, piece.stop), passing=True)
        if isinstance(error, LoadError):
            return failure(error, (piece.start, piece.start))
        rows = self._to_blame(piece, task)
        return failure(error, (piece.start, piece.stop) if rows is None else rows)

    def _to_blame(self, piece: Piece, task: Task) -> tuple[int, int] | None:
        """The first example that fails alone, found by halves; the smallest part that does, where none fails alone."""
        try:
            whole = self._cursor.read(piece)
        except Exception:
            return None
        low, high = whole.start, whole.stop
        while high - low > 1:
            middle = (low + high) // 2
            parts = [part for part in ((low, middle), (middle, high)) if self._fails(whole.within(*part), task.batch)]
            if not parts:
                break
            low, high = parts[0]
        return low, high

    def _fails(self, part: Piece, batch: int) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._audited(part, batch, None)
        except Exception:
            return True
        return False


def stream_of(job: Job) -> Batches:
    """The batches of an audit's data, as the audit reads them."""
    declared = job.model
    data = job.data.batches if isinstance(job.data, Reached) else job.data
    return Batches(
        data,
        home=Home(device=torch.device("cpu"), dtype=Home(declared.network).dtype),
        ignore=ignored(declared.task),
        classes=declared.classes,
    )


def failure(error: BaseException, rows: tuple[int, int], *, passing: bool = False) -> Failure:
    """What is told of an exception."""
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # whatever pickling raises
        content = b""
    said = str(error) if isinstance(error, SignstepError) else said_of(error) or named(error)
    return Failure(rows, content, said, passing)


def raised(found: Failure) -> BaseException:
    """An exception that is told of, to be raised here: of the same type where it is one of Signstep's."""
    first, behind = found.rows
    where = (
        "" if first == behind else f"example {first}" if behind == first + 1 else f"examples {first} to {behind - 1}"
    )
    try:
        error = pickle.loads(found.error) if found.error else None
    except Exception:  # of a module that is not here
        error = None
    if isinstance(error, SignstepError):
        return error.within(where) if where else error
    told = LoadError if isinstance(error, OSError) else InputError
    failed = told(
        f"{where}: {found.said}" if where else found.said,
        remedy="correct it there; what was done is kept",
    )
    failed.__cause__ = error
    return failed


def _is_passing(error: BaseException | None) -> bool:
    """Whether the machine is to blame, which another attempt may find better disposed."""
    while error is not None:
        if isinstance(error, _PASSING):
            return True
        error = error.__cause__
    return False


# In a process of its own.


_BENCHES: dict[int, Performer] = {}


def hello(work: Work, slot: int = 0) -> Hello:
    """Get ready to work, or say why not."""
    try:
        _bench(work, slot)
    except Exception as error:
        return Hello(os.getpid(), failure(error, (0, 0)))
    return Hello(os.getpid())


def perform(work: Work, task: Task, slot: int = 0) -> Answer:
    """Do the units of a task; what is needed for it is made once in a process."""
    try:
        bench = _bench(work, slot)
    except Exception as error:
        return Answer((), failure(error, (0, 0), passing=_is_passing(error)))
    with caps(**work.caps):
        return bench.perform(task)


@contained
def _bench(work: Work, slot: int) -> Performer:
    key = hash((work.job, work.run, work.device, slot))
    if key not in _BENCHES:
        _BENCHES.clear()
        _settle(work)
        with caps(**work.caps), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = loaded(work.job, work)
            if isinstance(made, Errands):
                _BENCHES[key] = made.begun(slot)
                return _BENCHES[key]
            job: Job = made() if work.anew else made
            asked: Run = loaded(work.run, work)
            if work.anew:  # by what this worker found; what the others found is compared below
                asked = replace(asked, data=job.run.data, hashes={**asked.hashes, **job.run.hashes})
            job = replace(job, run=asked)
            device = _device(work, job, slot)
            _compare(identity(job, device.type), work.terms)
            _BENCHES[key] = Bench(job, work.unit, device)
    return _BENCHES[key]


def _settle(work: Work) -> None:
    """Stand where whoever gave the work stands, and find modules where it finds them."""
    if work.folder:
        try:
            os.chdir(work.folder)
        except OSError as error:
            raise LoadError(
                f"a worker cannot see the folder {work.folder} ({error.strerror})",
                remedy="start where every worker has that folder, such as a shared one",
            ) from error
    sys.path[:0] = [path for path in work.paths if path not in sys.path and (not path or Path(path).exists())]
    if work.threads:
        torch.set_num_threads(work.threads)
    keep_memory()
    torch.set_default_dtype(work.dtype)


def _device(work: Work, job: Job, slot: int) -> torch.device:
    """Where this worker works; of several cards each worker gets one in turn."""
    return in_turn(torch.device(work.device) if work.device else Home(job.model.network).device, slot)


def in_turn(device: torch.device, slot: int) -> torch.device:
    """Of several cards, the one of this worker."""
    if str(device) == "cuda" and torch.cuda.device_count() > 1:
        return torch.device("cuda", slot % torch.cuda.device_count())
    return device


def _compare(mine: Mapping[str, str], theirs: Mapping[str, str]) -> None:
    """See that a worker has the same model, data and terms.

    Raises:
        LoadError: it has not.
    """
    said = differences(mine, theirs)
    if said:
        raise LoadError(
            f"a worker has other terms ({said})", remedy="give every worker the same files and the same versions"
        )


def around(job: bytes, threads: int) -> Work:
    """Work to be done as it would be here: the same folder, modules, caps and default type."""
    return Work(
        job,
        anew=False,
        run=b"",
        terms={},
        unit=1,
        threads=threads,
        folder=str(Path.cwd()),
        paths=tuple(sys.path),
        caps={name: getattr(current(), name) for name in NAMES},
        dtype=torch.get_default_dtype(),
    )


def pickled(thing: object, what: str) -> bytes:
    """As it travels; code that is in no module goes along where cloudpickle is installed.

    Raises:
        InputError: it cannot travel.
    """
    try:
        return pickle.dumps(thing)
    except Exception as error:  # whatever pickling raises
        failed, remedy = error, "define it in a module, or run pip install cloudpickle"
    try:
        import cloudpickle

        return bytes(cloudpickle.dumps(thing))
    except ImportError:
        pass
    except Exception as error:
        failed, remedy = error, "define it in a module, as a class or a function with a name"
    raise InputError(f"{what} cannot be sent to a worker ({named(failed)})", remedy=remedy) from failed


def loaded(content: bytes, work: Work) -> Any:
    """What was pickled; modules of it are imported here.

    Raises:
        LoadError: a module is not here.
    """
    try:
        return pickle.load(io.BytesIO(content))
    except (ImportError, AttributeError) as error:
        raise LoadError(
            f"a worker cannot import the model ({error})",
            remedy=f"see that its module can be imported from {work.folder or 'there'} on every machine",
        ) from error
