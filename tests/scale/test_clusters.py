"""A Ray cluster of two nodes and submitit's own executor give the record of one process; what is not there is said."""

import builtins
import pickle
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from test_units import ROWS, THREAT, UNIT, data, starts
from unitnets import Faulty, RowNet

import signstep as ss
from own_process import FORKED, called
from signstep.auditing.result import Result
from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.scale import EXECUTORS, Pool, digest, executor_of
from signstep.scale.asked import Asked
from signstep.scale.work import Failure, Hello

FOLDERS = [str(Path(__file__).parent), str(Path(ss.__file__).parent.parent)]


def audited(executor: Any, model: Any = None, **more: Any) -> Result:
    run = ss.Run(executor=executor, **{"unit": UNIT, **more})
    return ss.audit(model or RowNet(), data(), threat=THREAT, attacks=["fgsm", "pgd:steps=3"], run=run)


@pytest.fixture
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in FOLDERS:
        monkeypatch.setenv("PYTHONPATH", folder, prepend=":")


def on_two_nodes(place: str) -> None:
    """In a process of its own, since Ray leaves things behind in it."""
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        once = Faulty((float(data()[0][9, 0]),), 1, place)
        audited(ss.Ray(cluster.address, workers=2), once, out=Path(place) / "out").save(Path(place) / "found.json")
    finally:
        cluster.shutdown()


@pytest.mark.usefixtures("_importable")
@pytest.mark.skipif(FORKED is None, reason="needs processes that are forked")
def test_two_nodes_of_ray_give_the_record_of_one_process(tmp_path: Path) -> None:
    """A worker is killed on the way."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    process = called(on_two_nodes, str(tmp_path))
    process.join(600)
    assert process.exitcode == 0
    found = Result.load(tmp_path / "found.json")
    assert len(list(tmp_path.glob("*-0"))) == 1, "it has killed"
    one = audited(Pool(0))
    assert digest(replace(found, model=one.model)) == digest(one)
    assert starts(tmp_path / "out") == list(range(0, ROWS, UNIT))


@pytest.mark.usefixtures("_importable")
def test_jobs_of_submitit_give_the_record_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.chdir(tmp_path)
    found = audited(ss.Slurm(workers=2, cluster="local"), out=tmp_path / "out", unit=12)
    assert digest(found) == digest(audited(Pool(0), unit=12))
    assert starts(tmp_path / "out") == [0, 12]
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing is left of what travelled"


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("ray", "submitit"):
        monkeypatch.delitem(sys.modules, package, raising=False)
    real = builtins.__import__

    def lacking(
        name: str,
        here: Mapping[str, object] | None = None,
        there: Mapping[str, object] | None = None,
        names: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        if name.partition(".")[0] in ("ray", "submitit"):
            raise ImportError(name)
        return real(name, here, there, names or (), level)

    monkeypatch.setattr(builtins, "__import__", lacking)
    for executor, said in ((ss.Ray(), r"package ray; run pip install 'signstep\[ray\]'"), (ss.Slurm(), "submitit")):
        with pytest.raises(MissingExtraError, match=said):
            audited(executor)


class Reference:
    """To what a task comes to; like Ray's own it is equal to itself alone."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function, self.args = function, args


class LentRay(ModuleType):
    """As much of Ray as is asked for, in this process: tasks are done when they are waited for.

    Attributes:
        lost: tasks whose workers die.
        said: what each remote function was called for, by its name.
        broken: greetings that come to nothing good.
    """

    __version__ = "2.54.0"

    def __init__(self, cpus: int = 2) -> None:
        super().__init__("ray")
        self.cpus, self.lost, self.broken, self.said = cpus, 0, 0, list[str]()
        self.exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.cpus}

    def put(self, thing: Any) -> Any:
        return pickle.loads(pickle.dumps(thing))

    def remote(self, **_: object) -> Any:
        return lambda function: SimpleNamespace(remote=lambda *args: Reference(function, args))

    def wait(self, references: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        del timeout
        return references[-num_returns:], references[:-num_returns]

    def get(self, reference: Any, timeout: float | None = None) -> Any:
        if isinstance(reference, list):
            return [self.get(one, timeout) for one in reference]
        function, args = reference.function, reference.args
        self.said.append(function.__name__)
        if function.__name__ == "hello" and self.broken:
            self.broken -= 1
            return Hello(1, Failure((0, 0), b"", "this node sees no such folder"))
        if function.__name__ == "perform" and self.lost:
            self.lost -= 1
            raise self.exceptions.RayError("The worker died\nmore of it")
        return function(*args)

    def cancel(self, *_: object, **__: object) -> None:
        raise self.exceptions.RayError("it has ended")


@pytest.fixture
def lent_ray(monkeypatch: pytest.MonkeyPatch) -> LentRay:
    ray = LentRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


@pytest.mark.parametrize(("workers", "cpus", "greeted"), [(2, 2, 2), (5, 3, 3), (1, 4, 1), (None, 4, 4)])
def test_every_place_of_a_cluster_is_greeted_before_anything_runs(
    workers: int | None, cpus: int, greeted: int, lent_ray: LentRay
) -> None:
    lent_ray.cpus = cpus
    staff = ss.Ray(workers=workers, threads=torch.get_num_threads())
    found = audited(staff)
    assert lent_ray.said[:greeted] == ["hello"] * greeted
    assert lent_ray.said.count("hello") == greeted
    assert digest(found) == digest(audited(Pool(0)))
    lent_ray.said, lent_ray.broken = [], 1
    with pytest.raises(InputError, match="this node sees no such folder"):
        audited(staff)
    assert "perform" not in lent_ray.said


def test_a_task_whose_worker_dies_is_given_out_again(lent_ray: LentRay, tmp_path: Path) -> None:
    lent_ray.lost = 3
    found = audited(ss.Ray(workers=2, threads=torch.get_num_threads()), out=tmp_path / "out")
    assert digest(found) == digest(audited(Pool(0)))
    assert starts(tmp_path / "out") == list(range(0, ROWS, UNIT))
    lent_ray.lost = 99
    with pytest.raises(InputError, match=r"examples 0 to 3: a worker was lost 8 times \(The worker died\)"):
        audited(ss.Ray(workers=1, threads=torch.get_num_threads()))


@pytest.mark.parametrize(("asked", "joined"), [(None, "local"), ("auto", "auto")])
def test_a_cluster_is_joined_only_where_one_is_asked_for(
    asked: str | None, joined: str, lent_ray: LentRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own default joins whatever was last begun on this machine."""
    addresses: list[object] = []
    monkeypatch.setattr(lent_ray, "is_initialized", lambda: False)
    monkeypatch.setattr(lent_ray, "init", lambda address, **_: addresses.append(address), raising=False)
    monkeypatch.setattr(lent_ray, "shutdown", lambda: addresses.append("shut down"), raising=False)
    audited(ss.Ray(asked, workers=2, threads=torch.get_num_threads()))
    assert addresses == [joined, "shut down"]


def test_an_address_where_nobody_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lent = ModuleType("ray")  # of the real one nothing is asked before the address
    lent.__version__ = "2.54.0"  # type: ignore[attr-defined]
    lent.is_initialized = lambda: False  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", lent)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(LoadError, match=f"no Ray cluster answers at {address}"):
        audited(ss.Ray(address))


def test_a_machine_without_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LoadError, match="no Slurm can be used from here"):
        audited(ss.Slurm())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        (ss.Ray, {"address": "nowhere"}, "address='nowhere' is not HOST:PORT"),
        (ss.Ray, {"address": "head:99999"}, "is not HOST:PORT"),
        (ss.Ray, {"gpus": -1}, "gpus=-1"),
        (ss.Ray, {"workers": 0}, "workers=0"),
        (ss.Slurm, {"workers": 0}, "workers=0"),
        (ss.Slurm, {"cluster": "moon"}, "cluster='moon'"),
        (ss.Slurm, {"cpus": 0}, "cpus=0"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: Any, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        kind(**wrong)


class Mine:
    """An executor of somebody's own: it does nothing but say so."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    def carry_out(self, job: Any) -> Result:
        raise InputError(f"{self.asked.workers} workers were asked for {len(job.names)} attacks")


def test_an_executor_of_ones_own_is_a_row_like_the_others() -> None:
    assert executor_of("RAY:head:6379", Asked(3)) == ss.Ray("head:6379", workers=3)
    assert executor_of("slurm:local", Asked(2, partition="gpu")) == ss.Slurm(2, "gpu", cluster="local")
    assert executor_of("pool", Asked()) == Pool("auto")
    with EXECUTORS.lent():
        EXECUTORS.add(Mine, name="mine")
        mine = executor_of("mine", Asked(7))
        with pytest.raises(InputError, match="7 workers were asked for 2 attacks"):
            audited(mine)
