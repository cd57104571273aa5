"""A run that was killed goes on as if nothing had happened, and a damaged checkpoint is named and passed over."""

import errno
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.data.digits import digits
from signstep.errors import InputError, LoadError
from signstep.networks.small import digits_cnn
from signstep.train import Moment, Settings, fit

THREAT = ss.linf(0.1)
SETTINGS = Settings(epochs=4, batch=32, average=0.9, crop=1, flip=True)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    x, y = digits("train")
    return x[:200], y[:200]


SCRIPT = """
import os
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
import signstep as ss
from signstep.data.digits import digits
from signstep.networks.small import digits_cnn
from signstep.train import Moment, Settings, fit

torch.set_num_threads(1)
torch.manual_seed(0)
parts = (torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU(), torch.nn.Dropout(0.2),
         torch.nn.Linear(32, 10))
model = torch.nn.Sequential(*parts)
x, y = digits("train")
settings = Settings(epochs=6, batch=32, average=0.9, crop=1, flip=True)
fit(model, x[:300], y[:300], threat=ss.linf(0.1), recipe=sys.argv[2], settings=settings, folder=Path(sys.argv[1]),
    save_seconds=0, watch=lambda _: os.read(0, 1) == b"stop")  # a byte for each step; at their end it runs freely
save_file(model.state_dict(), Path(sys.argv[1]) / "end.safetensors")
"""


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


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Each step waits for a byte from here, so that a run is alive when it is killed, on whatever machine."""
    name = "fgsm-pgi"  # the recipe that remembers most
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    subprocess.run([sys.executable, script, whole, name], check=True, stdin=subprocess.DEVNULL)
    rng = random.Random(name)
    for _ in range(2):
        reached = _latest(broken)
        with subprocess.Popen([sys.executable, script, broken, name], stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(bytes(rng.randrange(8, 20)))  # of 60 steps
            process.stdin.flush()
            while _latest(broken) <= reached and process.poll() is None:
                time.sleep(0.005)
            time.sleep(rng.random() * 0.1)  # anywhere between two bytes of a file and between two steps
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
    assert not (broken / "end.safetensors").exists()
    subprocess.run([sys.executable, script, broken, name], check=True, stdin=subprocess.DEVNULL)
    assert (broken / "end.safetensors").read_bytes() == (whole / "end.safetensors").read_bytes()


def _latest(folder: Path) -> str:
    return max((path.name for path in folder.glob("checkpoint-*")), default="")


def test_a_run_gone_on_with_after_a_recovery_looks_when_the_uninterrupted_one_does(tmp_path: Path) -> None:
    x, y = digits("train")
    settings = Settings(
        epochs=12, rate=5e-3, cure="pgd-at"
    )  # costs ten times as much, and would be looked at less often

    def new() -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return digits_cnn()

    options = {"threat": ss.linf(0.3), "recipe": "fgsm", "settings": settings}
    whole, broken = new(), new()
    one = fit(whole, x, y, **options)  # type: ignore[arg-type]
    assert one.events
    later = one.events[0].step + 3
    done: list[int] = []

    def watch(moment: Moment) -> bool:
        done.append(moment.step)
        return len(done) >= later

    fit(new(), x, y, folder=tmp_path, watch=watch, **options)  # type: ignore[arg-type]
    two = fit(broken, x, y, folder=tmp_path, **options)  # type: ignore[arg-type]
    assert any(note.startswith("went on") for note in two.notes)
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
