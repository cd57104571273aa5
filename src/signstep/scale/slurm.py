"""Jobs of a Slurm cluster, through submitit: what is given out at one time is one array."""

import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.io.files import write_whole
from signstep.messages import Arg
from signstep.scale.asked import Asked
from signstep.scale.elsewhere import Elsewhere, Team, first_line
from signstep.scale.executors import Lost, Workers
from signstep.scale.work import Answer, Task, Work, perform

_POLL = 0.2


@dataclass(frozen=True)
class Slurm(Elsewhere):
    """Carries out an audit as jobs of Slurm: ``ss.audit(..., run=ss.Run(executor=ss.Slurm(partition="gpu")))``.

    Work and answers travel through a folder in the current one, which every node has to see; it is removed at the end.

    Attributes:
        workers: jobs at a time.
        partition: that they are submitted to.
        cpus: of each job.
        gpus: of each job.
        memory: of each job, in GB; None for the cluster's own rule.
        minutes: after which Slurm ends a job.
        seconds: that a job should last.
        cluster: "slurm", or submitit's "local", processes on this machine, to try things out.
        options: further parameters of submitit, such as {"slurm_account": "lab"}.

    Raises:
        InputError: one makes no sense.
    """

    workers: int = 8
    partition: str | None = None
    cpus: int = 1
    gpus: int = 0
    memory: float | None = None
    minutes: int = 60
    seconds: float = 600.0
    cluster: Literal["slurm", "local"] = "slurm"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("cpus", 1), ("gpus", 0), ("minutes", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InputError(Arg(name, value), remedy=f"pass a whole number, at least {least}")
        if self.cluster not in ("slurm", "local"):
            raise InputError(Arg("cluster", self.cluster), remedy="pass 'slurm', or 'local' to try things out")
        self.check()

    @classmethod
    def asked(cls, asked: Asked) -> "Slurm":
        """From a command line; ``slurm:local`` is submitit's own executor on this machine."""
        if asked.address not in ("", "local"):
            raise InputError(
                Arg("on", f"slurm:{asked.address}"), "names no cluster of submitit", remedy="pass slurm or slurm:local"
            )
        local = asked.address == "local"
        return cls(asked.workers or cls.workers, asked.partition, cluster="local" if local else "slurm")

    @property
    def places(self) -> int:
        """See `Staff`."""
        return max(2, self.workers)

    @property
    def each(self) -> int:
        """See `Staff`."""
        return self.cpus

    @property
    def here(self) -> bool:
        """See `Staff`."""
        return self.cluster == "local"

    def team(self, make: Callable[[], Work]) -> AbstractContextManager[Workers]:
        """See `Elsewhere`."""
        return _jobs(self, make)


@contextmanager
def _jobs(asked: Slurm, make: Callable[[], Work]) -> Iterator[Workers]:
    try:
        import submitit
    except ImportError as error:
        raise MissingExtraError("submitit", "slurm") from error
    try:
        folder = Path(tempfile.mkdtemp(prefix="signstep-slurm-", dir=Path.cwd()))
    except OSError as error:
        raise LoadError(
            f"the folder {Path.cwd()} cannot be written ({error.strerror}), where work for Slurm would lie",
            remedy="start in a folder that every node sees and that can be written",
        ) from error
    try:
        try:
            executor = submitit.AutoExecutor(folder=folder, cluster=asked.cluster)
            executor.update_parameters(**_parameters(asked))
        except Exception as error:  # no Slurm here, or an option that submitit has not
            raise LoadError(
                f"no Slurm can be used from here ({first_line(error)})",
                remedy="start where sbatch and srun can be called",
            ) from error
        write_whole(folder / "work.pickle", pickle.dumps(make()))
        team = _Team(executor, asked, folder)
        try:
            yield team
        finally:
            team.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parameters(asked: Slurm) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": "signstep",
        "timeout_min": asked.minutes,
        "cpus_per_task": asked.cpus,
        "slurm_array_parallelism": asked.workers,
    }
    if asked.gpus:
        found["gpus_per_node"] = asked.gpus
    if asked.memory is not None:
        found["mem_gb"] = asked.memory
    if asked.partition is not None:
        found["slurm_partition"] = asked.partition
    return {**found, **asked.options}


class _Team(Team[Any]):
    """Jobs that are given out, and those that wait to be, all at once."""

    def __init__(self, executor: Any, asked: Slurm, folder: Path) -> None:
        super().__init__(asked.workers)
        self._executor, self._folder = executor, folder

    def given(self, task: Task) -> Any:
        """See `Team`; it waits to be sent with others."""
        return task

    def wait(self, seconds: float) -> list[tuple[int, Answer | Lost]]:
        """See `Workers`."""
        self._send()
        end = time.monotonic() + seconds
        while True:
            ended = [number for number, job in self.running.items() if job.done()]
            if ended or time.monotonic() > end:
                return [(number, _outcome(self.running.pop(number))) for number in ended]
            time.sleep(_POLL)

    def _send(self) -> None:
        """What waits, as one array.

        Raises:
            LoadError: Slurm does not take it.
        """
        waiting = {number: task for number, task in self.running.items() if isinstance(task, Task)}
        if not waiting:
            return
        path = str(self._folder / "work.pickle")
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(_perform, path, task) for task in waiting.values()]
        except Exception as error:  # of submitit, with what sbatch said
            said = first_line(error, last=True)
            raise LoadError(f"Slurm took no job ({said})", remedy="check partition and limits") from error
        self.running |= dict(zip(waiting, jobs, strict=True))

    def close(self) -> None:
        """Take back what is still given out."""
        for job in self.running.values():
            with suppress(Exception):  # one that has ended, or a cluster that has gone
                job.cancel()


def _outcome(job: Any) -> Answer | Lost:
    try:
        found: Answer = job.result()
    except Exception as error:  # submitit's own: the job was killed, ran out of time, or left no answer
        return Lost(first_line(error))
    return found


def _perform(path: str, task: Task) -> Answer:
    """In a job."""
    work: Work = pickle.loads(Path(path).read_bytes())
    return perform(work, task)
