"""Tasks on a Ray cluster that is there, or on one that is begun here for the time of the audit."""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.messages import Arg
from signstep.scale.asked import Asked
from signstep.scale.elsewhere import Elsewhere, Team, first_line
from signstep.scale.executors import Lost, Workers
from signstep.scale.machines import cores
from signstep.scale.work import Answer, Hello, Task, Work, hello, perform, raised

_OLDEST = (2, 54)
_PATIENCE = 5.0  # seconds for an address to answer
_GREETING = 300.0  # seconds for a first task to begin
_OTHERS = 60.0  # for the others, once the first has: a cluster may grow, or be busy with somebody else's


@dataclass(frozen=True)
class Ray(Elsewhere):
    """Carries out an audit as tasks of Ray: ``ss.audit(..., run=ss.Run(executor=ss.Ray("head:6379"), out="report"))``.

    The model, or the names that it is made from, goes into the cluster's store once. Whether the cluster asks for a
    token is its own affair and yours: nothing is switched off here.

    Attributes:
        address: "HOST:PORT" of a cluster, "ray://HOST:PORT" through its client, "auto" for one that runs here; None
            begins one here, for the time of the audit.
        workers: tasks at a time; None for as many as the cluster has room for.
        cpus: of each task.
        gpus: of each task; a part of one lets several share it.
        labels: that a node must have.
        threads: of torch in each; None for ``cpus``.
        seconds: that a task should last.

    Raises:
        InputError: one makes no sense.
    """

    address: str | None = None
    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("cpus", "gpus"):
            if not 0 <= getattr(self, name) < 1e6:
                raise InputError(Arg(name, getattr(self, name)), remedy="pass what each task takes, 0 or more")
        if self.workers is not None and self.workers < 1:
            raise InputError(Arg("workers", self.workers), remedy="pass a number of tasks, at least 1")
        self.check()
        if self.address not in (None, "auto"):
            _host_and_port(self.address or "")

    @classmethod
    def asked(cls, asked: Asked) -> "Ray":
        """From a command line."""
        asked.refuse("Ray", "partition")
        return cls(asked.address or None, asked.workers)

    @property
    def places(self) -> int:
        """See `Staff`."""
        return self.workers or 2

    @property
    def each(self) -> int:
        """See `Staff`."""
        return self.threads or max(1, int(self.cpus))

    @property
    def here(self) -> bool:
        """See `Staff`."""
        return self.address is None

    def team(self, make: Callable[[], Work]) -> AbstractContextManager[Workers]:
        """See `Elsewhere`."""
        return _cluster(self, make)


@contextmanager
def _cluster(asked: Ray, make: Callable[[], Work]) -> Iterator[Workers]:
    ray = _imported()
    begun = not ray.is_initialized()
    if begun:
        _connect(ray, asked)
    try:
        team = _Team(ray, asked, make())
        try:
            team.greet()
            yield team
        finally:
            team.close()
    finally:
        if begun:
            ray.shutdown()


def _imported() -> Any:
    """Ray itself.

    Raises:
        MissingExtraError: it is not installed, or too old.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    found = tuple(int(part) for part in ray.__version__.split(".")[:2] if part.isdecimal())
    if found < _OLDEST:
        raise InputError(
            f"Ray {ray.__version__} is installed, and 2.54 or newer is needed", remedy="run pip install -U ray"
        )
    return ray


def _connect(ray: Any, asked: Ray) -> None:
    """Join the cluster, or begin one.

    Raises:
        LoadError: nothing answers there.
    """
    if asked.address not in (None, "auto"):
        host, port = _host_and_port(asked.address or "")
        try:
            socket.create_connection((host, port), timeout=_PATIENCE).close()
        except OSError as error:
            raise LoadError(
                f"no Ray cluster answers at {asked.address} ({error.strerror or error})",
                remedy="check the address, and that the cluster is up (ray status)",
            ) from error
    own = asked.address is None
    size: dict[str, Any] = {"num_cpus": max(1, asked.workers or cores()), "include_dashboard": False} if own else {}
    try:
        # Without an address Ray would join whatever cluster was last begun on this machine.
        ray.init(address=asked.address or "local", log_to_driver=False, logging_level="ERROR", **size)
    except Exception as error:  # of many kinds, ConnectionError and RuntimeError among them
        if own:
            raise LoadError(
                f"no Ray cluster can be begun here ({first_line(error)})",
                remedy="try again when this machine has less to do, or leave Ray out: processes here need none",
            ) from error
        raise LoadError(
            f"no Ray cluster can be used at {asked.address} ({first_line(error)})",
            remedy="check it with ray status; where it asks for a token (ray start says), set RAY_AUTH_MODE=token here",
        ) from error


class _Team(Team[Any]):
    """Tasks of a cluster."""

    def __init__(self, ray: Any, asked: Ray, work: Work) -> None:
        self._ray = ray
        there = ray.cluster_resources()
        for name, each in (("CPU", asked.cpus), ("GPU", asked.gpus)):
            if each > there.get(name, 0):
                raise LoadError(
                    f"the Ray cluster has {there.get(name, 0):g} {name}s, and each task takes {each:g}",
                    remedy=("pass", Arg(f"{name.lower()}s", 1)),
                )
        rooms = [int(there[name] / each) for name, each in (("CPU", asked.cpus), ("GPU", asked.gpus)) if each]
        room = max(1, min(rooms, default=1))
        super().__init__(asked.workers or room)
        self._greeted = min(self.places, room)
        options: dict[str, Any] = {"num_cpus": asked.cpus, "num_gpus": asked.gpus}
        if asked.labels:
            options["label_selector"] = dict(asked.labels)
        self._hello = ray.remote(**options, max_retries=2, scheduling_strategy="SPREAD")(hello)
        self._perform = ray.remote(**options, max_retries=0)(perform)
        self._work = ray.put(work)

    def greet(self) -> None:
        """See that workers can work, before anything runs: as many as there is room for, on as many nodes.

        Raises:
            LoadError: one cannot.
        """
        said = [self._hello.remote(self._work) for _ in range(self._greeted)]
        try:
            first, _ = self._ray.wait(said, num_returns=1, timeout=_GREETING)
            there, _ = self._ray.wait(said, num_returns=len(said), timeout=_OTHERS if first else 0)
            found: list[Hello] = self._ray.get(there or said, timeout=1)
        except Exception as error:  # Ray's own, and what its tasks raise
            raise LoadError(
                f"no worker of the Ray cluster could begin ({first_line(error)})",
                remedy="see that signstep is installed on every node, and that some node has what a task takes",
            ) from error
        finally:
            for one in said:
                with suppress(Exception):  # it has ended, or the cluster has gone
                    self._ray.cancel(one, force=True)
        for one in found:
            if one.failure is not None:
                raise raised(one.failure)

    def given(self, task: Task) -> Any:
        """See `Team`."""
        return self._perform.remote(self._work, task)

    def wait(self, seconds: float) -> list[tuple[int, Answer | Lost]]:
        """See `Workers`."""
        waiting = {reference: number for number, reference in self.running.items()}
        ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=seconds)
        ended: list[tuple[int, Answer | Lost]] = []
        for reference in ready:
            number = waiting[reference]
            del self.running[number]
            try:
                ended.append((number, self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                ended.append((number, Lost(first_line(error))))
        return ended

    def close(self) -> None:
        """Take back what is still given out."""
        for reference in self.running.values():
            with suppress(Exception):  # of a cluster that has gone
                self._ray.cancel(reference, force=True)


def _host_and_port(address: str) -> tuple[str, int]:
    """The two of an address.

    Raises:
        InputError: it is none.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(Arg("address", address), "is not HOST:PORT", remedy="write ray:head:6379, say")
    return host.strip("[]"), int(port)
