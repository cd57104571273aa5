"""Several processes: the same weights everywhere, and those of one process."""

import importlib.util
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from own_process import FORKED, called
from signstep.data.digits import digits
from signstep.errors import InputError, LoadError
from signstep.train import Settings, Torchrun, fit, training_recipe
from signstep.train.prepare import check_team
from signstep.train.team import Team

THREAT = ss.linf(0.1)
# A batch of 45 rows does not divide by two.
SETTINGS = Settings(epochs=2, batch=45, crop=1, flip=True, average=0.9, check_every=3)


class Together:
    """Stands in for Fabric: threads that meet."""

    def __init__(self, rank: int, slots: list[Any], meeting: threading.Barrier) -> None:
        self.global_rank, self.world_size, self.device = rank, len(slots), torch.device("cpu")
        self._slots, self._meeting = slots, meeting

    def _met(self, thing: Any) -> list[Any]:
        self._slots[self.global_rank] = thing
        self._meeting.wait(60)
        found = list(self._slots)
        self._meeting.wait(60)
        return found

    def all_reduce(self, data: Tensor, group: object = None, reduce_op: str = "mean") -> Tensor:  # noqa: ARG002
        assert reduce_op == "mean"
        return torch.stack(self._met(data)).mean(0)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return self._met(obj)[src]


def network(*, norm: bool = False) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        between = [nn.BatchNorm1d(32)] if norm else []
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), *between, nn.ReLU(), nn.Linear(32, 10))


def together(recipe: str, folder: Path, *, norm: bool = False) -> list[nn.Module]:
    x, y = digits("train")
    slots: list[Any] = [None, None]
    meeting = threading.Barrier(2)
    models = [network(norm=norm), network(norm=norm)]
    errors: list[BaseException] = []

    def go(rank: int) -> None:
        try:
            fabric = Together(rank, slots, meeting)
            where = folder / str(rank)
            fit(
                models[rank],
                x[:150],
                y[:150],
                threat=THREAT,
                recipe=recipe,
                settings=SETTINGS,
                fabric=fabric,
                folder=where,
            )
        except BaseException as error:
            errors.append(error)
            meeting.abort()

    threads = [threading.Thread(target=go, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return list(models)


@pytest.mark.parametrize("recipe", ["n-fgsm", "trades", "gradalign"])
def test_two_come_to_the_weights_of_one(recipe: str, tmp_path: Path) -> None:
    models = together(recipe, tmp_path)
    one = network()
    x, y = digits("train")
    fit(one, x[:150], y[:150], threat=THREAT, recipe=recipe, settings=SETTINGS)
    for first, second, alone in zip(*(model.parameters() for model in (*models, one)), strict=True):
        assert torch.equal(first, second)
        assert torch.allclose(first, alone, atol=2e-3 if recipe == "trades" else 1e-5)
    assert list((tmp_path / "0").glob("checkpoint-*.pt"))
    assert not (tmp_path / "1").exists(), "only the first process writes"


def test_running_statistics_are_shared(tmp_path: Path) -> None:
    first, second = (model.state_dict() for model in together("n-fgsm", tmp_path, norm=True))
    assert any(name.endswith("running_var") for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_recipes_that_remember_examples_are_for_one_process(tmp_path: Path) -> None:
    for recipe in ("fgsm-pgi", "free"):
        with pytest.raises(InputError, match="2 processes would each remember a part"):
            together(recipe, tmp_path)


def test_focus_is_for_one_process() -> None:
    two = Team(Together(0, [None, None], threading.Barrier(1)))
    with pytest.raises(InputError, match=r"focus=1 goes by .* 2 processes would each know a part; pass focus=0"):
        check_team(two, training_recipe("n-fgsm"), Settings(focus=1.0))


def one_of_two(rank: int, port: int, place: str) -> None:
    """As torchrun starts it."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    model, (x, y) = network(norm=False), digits("train")
    with Torchrun("cpu") as two:
        where = Path(place) / str(rank)
        fit(model, x[:150], y[:150], threat=THREAT, recipe="n-fgsm", settings=SETTINGS, fabric=two, folder=where)
    torch.save(model.state_dict(), Path(place) / f"{rank}.pt")


@pytest.mark.skipif(FORKED is None, reason="needs processes that are forked")
def test_two_processes_over_gloo_come_to_the_weights_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [called(one_of_two, rank, port, str(tmp_path)) for rank in range(2)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    one, (x, y) = network(), digits("train")
    fit(one, x[:150], y[:150], threat=THREAT, recipe="n-fgsm", settings=SETTINGS)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name, part in one.state_dict().items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], part, atol=1e-5)
    assert list((tmp_path / "0").glob("checkpoint-*.pt"))
    assert not (tmp_path / "1").exists(), "only the first process writes"


def test_a_script_that_torchrun_did_not_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(LoadError, match="torchrun did not start this process: RANK is not set; start the script by"):
        Torchrun("cpu")
    with pytest.raises(InputError, match="device='tpu'; pass 'cpu' or 'cuda'"):
        Torchrun("tpu")


SCRIPT = """
import torch
torch.set_num_threads(1)
from lightning_fabric import Fabric
import signstep as ss
from signstep.data.digits import digits
from signstep.train import Settings, fit

fabric = Fabric(accelerator="cpu", devices=DEVICES, strategy="ddp" if DEVICES > 1 else "auto")
fabric.launch()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
x, y = digits("train")
fit(model, x[:100], y[:100], threat=ss.linf(0.1), settings=Settings(epochs=2, batch=30), fabric=fabric)
weights = torch.cat([part.detach().flatten() for part in model.parameters()])
everybodys = fabric.all_gather(weights)
if fabric.global_rank == 0:
    assert DEVICES == 1 or torch.equal(everybodys[0], everybodys[1])
    torch.save(weights, "weights-DEVICES.pt")
"""


@pytest.mark.skipif(
    importlib.util.find_spec("lightning_fabric") is None, reason="needs lightning-fabric (the extra fabric)"
)
def test_with_the_real_fabric(tmp_path: Path) -> None:
    for devices in (1, 2):
        (tmp_path / "run.py").write_text(SCRIPT.replace("DEVICES", str(devices)))
        subprocess.run([sys.executable, "run.py"], cwd=tmp_path, check=True, timeout=120)
    one, two = (torch.load(tmp_path / f"weights-{devices}.pt", weights_only=True) for devices in (1, 2))
    assert torch.allclose(one, two, atol=1e-5)
