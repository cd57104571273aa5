"""A run that was killed goes on as if nothing had happened, and a damaged checkpoint is named and passed over."""

import contextlib
import errno
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import signstep as ss
from own_process import FORKED, called
from signstep.data.digits import digits
from signstep.errors import InputError, LoadError
from signstep.train import Moment, Settings, fit
from signstep.train.loop import _Loop
from signstep.train.probe import Look
from signstep.train.recipes import training_recipe
from signstep.train.run import Run

THREAT = ss.linf(0.1)
SETTINGS = Settings(epochs=4, batch=32, average=0.9, crop=1, flip=True, check_every=3)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    x, y = digits("train")
    return x[:200], y[:200]


def fresh() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10)
        )


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def stopping_after(steps: int) -> Any:
    answers = iter([*[False] * (steps - 1), True])
    return lambda _: next(answers)


@pytest.mark.parametrize(
    ("name", "focus"),
    [
        *((name, 0.0) for name in ("n-fgsm", "fgsm-pgi", "free", "gradalign", "trades")),
        ("n-fgsm", 1.0),
        ("free:replays=2", 1.0),
    ],
)
def test_what_goes_on_equals_what_was_never_interrupted(
    name: str, focus: float, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    whole, settings = fresh(), replace(SETTINGS, focus=focus)
    fit(whole, *data, threat=THREAT, recipe=name, settings=settings)
    broken = fresh()
    for steps in (1, 6, 10):
        interrupted = fit(
            broken,
            *data,
            threat=THREAT,
            recipe=name,
            settings=settings,
            folder=tmp_path,
            watch=stopping_after(steps),
        )
        assert interrupted.partial
        broken = fresh()  # nothing of the model that was there is needed
    trained = fit(broken, *data, threat=THREAT, recipe=name, settings=settings, folder=tmp_path)
    assert "went on from step 17" in trained.notes
    assert equal(broken, whole)


def _train(folder: Path, steps: Connection) -> None:
    """In a process of its own: a step for each byte that comes, and all that are left once none can come any more."""
    torch.set_num_threads(1)
    x, y = digits("train")
    model = fresh()

    def watch(_: Moment) -> None:
        with contextlib.suppress(EOFError):
            steps.recv_bytes()

    recipe = "fgsm-pgi"  # the recipe that remembers most
    settings = replace(SETTINGS, epochs=6)
    data = (x[:300], y[:300])
    fit(model, *data, threat=THREAT, recipe=recipe, settings=settings, folder=folder, save_seconds=0, watch=watch)
    save_file(model.state_dict(), folder / "end.safetensors")


@pytest.mark.skipif(FORKED is None, reason="there is no fork here")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Each step waits for a byte from here, so that a run is alive when it is killed, on whatever machine."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def begun(folder: Path, steps: int) -> tuple[BaseProcess, Connection]:
        folder.mkdir(exist_ok=True)
        theirs, ours = Pipe(duplex=False)
        for _ in range(steps):
            ours.send_bytes(b".")
        process = called(_train, folder, theirs)
        theirs.close()
        return process, ours

    def to_its_end(folder: Path) -> bytes:
        process, steps = begun(folder, 0)
        steps.close()
        process.join(60)
        assert process.exitcode == 0
        return (folder / "end.safetensors").read_bytes()

    rng = random.Random(0)
    for _ in range(2):
        reached = _latest(broken)
        process, steps = begun(broken, rng.randrange(8, 20))  # of 54
        while _latest(broken) <= reached and process.is_alive():
            time.sleep(0.005)
        time.sleep(rng.random() * 0.1)  # anywhere between two bytes of a file and between two steps
        assert process.is_alive()
        process.kill()
        process.join()
        steps.close()
    assert not (broken / "end.safetensors").exists()
    assert to_its_end(broken) == to_its_end(whole)


def _latest(folder: Path) -> str:
    return max((path.name for path in folder.glob("checkpoint-*")), default="")


def _looks(*standing: int) -> Callable[..., Look]:
    """In the place of real looks: so many rows stand against PGD at one after the other, and then as many as ever."""
    left = iter(standing)
    found = Look(64, 0.9, 1.5, clean=60, fgsm=31, pgd=31, weight_cosine=0.5, input_cosine=0.5)
    return lambda *_, **__: replace(found, pgd=next(left, found.pgd))


def test_a_run_gone_on_with_after_a_recovery_looks_when_the_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits("train")
    data = x[:640], y[:640]
    settings = Settings(epochs=80, batch=600, cure="pgd-at")
    every = [
        _Loop(Run(fresh(), *data, THREAT, recipe, settings), recipe, None, 30.0, None).alarm_every
        for recipe in (training_recipe("fgsm"), training_recipe("pgd-at"))
    ]
    assert every[0] != every[1]  # the cure costs ten times as much, and would be looked at at other times
    options: dict[str, Any] = {"threat": THREAT, "recipe": "fgsm", "settings": settings}
    whole, broken = fresh(), fresh()
    monkeypatch.setattr("signstep.train.loop.look", _looks(31, 31, 1))
    one = fit(whole, *data, **options)
    assert [event.before for event in one.events] == ["fgsm"]
    later = one.events[0].step + 3
    monkeypatch.setattr("signstep.train.loop.look", _looks(31, 31, 1))
    fit(fresh(), *data, folder=tmp_path, watch=stopping_after(later), **options)
    monkeypatch.setattr("signstep.train.loop.look", _looks())
    two = fit(broken, *data, folder=tmp_path, **options)
    assert any(note.startswith("went on") for note in two.notes)
    assert len(one.readings) > 6
    assert [reading.step for reading in one.readings] == [reading.step for reading in two.readings]
    assert one.selections == two.selections
    assert equal(whole, broken)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    whole = fresh()
    fit(whole, *data, threat=THREAT, settings=SETTINGS)
    fit(fresh(), *data, threat=THREAT, settings=SETTINGS, folder=tmp_path, save_seconds=0, watch=stopping_after(9))
    found = sorted(tmp_path.glob("checkpoint-*.pt"))
    assert [path.name for path in found] == ["checkpoint-00000008.pt", "checkpoint-00000009.pt"]
    content = bytearray(found[1].read_bytes())
    content[len(content) // 2] ^= 1
    found[1].write_bytes(content)
    model = fresh()
    trained = fit(model, *data, threat=THREAT, settings=SETTINGS, folder=tmp_path)
    assert "checkpoint-00000009.pt is damaged" in trained.notes[0]
    assert trained.notes[1] == "went on from step 8"
    assert equal(model, whole)


def test_a_checkpoint_of_another_run_is_refused(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    fit(fresh(), *data, threat=THREAT, settings=SETTINGS, folder=tmp_path, watch=stopping_after(2))
    for settings, threat in ((replace(SETTINGS, rate=1e-3), THREAT), (SETTINGS, ss.linf(0.2))):
        with pytest.raises(InputError, match="belongs to a run with other settings, data or model"):
            fit(fresh(), *data, threat=threat, settings=settings, folder=tmp_path)
    with pytest.raises(InputError, match="belongs to a run"):
        fit(fresh(), *data, threat=THREAT, recipe="fgsm", settings=SETTINGS, folder=tmp_path)
    with pytest.raises(InputError, match="belongs to a run"):
        fit(fresh(), data[0] * 0.5, data[1], threat=THREAT, settings=SETTINGS, folder=tmp_path)


def test_a_full_disk_ends_in_one_sentence_and_loses_nothing(
    data: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fresh()
    fit(whole, *data, threat=THREAT, settings=SETTINGS)
    fit(fresh(), *data, threat=THREAT, settings=SETTINGS, folder=tmp_path, watch=stopping_after(5))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "mkstemp", full)
        with pytest.raises(LoadError, match="cannot be written"):
            fit(fresh(), *data, threat=THREAT, settings=SETTINGS, folder=tmp_path, save_seconds=0)
    model = fresh()
    trained = fit(model, *data, threat=THREAT, settings=SETTINGS, folder=tmp_path)
    assert "went on from step 5" in trained.notes
    assert equal(model, whole)


def test_a_run_that_is_done_is_not_repeated(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    first, second = fresh(), fresh()
    one = fit(first, *data, threat=THREAT, settings=SETTINGS, folder=tmp_path)
    two = fit(second, *data, threat=THREAT, settings=SETTINGS, folder=tmp_path)
    assert equal(first, second)
    assert (one.best, one.steps) == (two.best, two.steps)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 1 + len(one.readings)
