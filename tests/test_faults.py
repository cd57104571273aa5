"""Faults of the machine: signals, kills, disks that fill up or fail, no home, no output, links, another run."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_process import FORKED, Running, started
from safetensors.torch import save_file

from signstep.auditing.matrix import TransferMatrix
from signstep.auditing.result import Result
from signstep.cli import main
from signstep.core.files import is_own, write_whole
from signstep.core.folders import replaced, sweep
from signstep.core.locks import alone_in

pytestmark = pytest.mark.skipif(FORKED is None, reason="needs fork, signals and flock, which POSIX has")

NETS = '''
import os, pathlib, time
from torch import nn


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))


class Waits(nn.Sequential):
    """Of the images with a first pixel of 1, the first it sees makes it wait; `reached` says so."""

    def forward(self, x):
        if bool((x.flatten(1)[:, 0] == 1).any()) and not pathlib.Path("reached").exists():
            pathlib.Path("reached").touch()
            for _ in range(3000):
                time.sleep(0.01)
        return super().forward(x)


def waiting():
    return Waits(nn.Flatten(), nn.Linear(12, 4))
'''


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, images in two batches of which the second makes one model wait, a report, two shards."""
    place = tmp_path_factory.mktemp("faults")
    (place / "faultnets.py").write_text(NETS)
    weight = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    save_file({"1.weight": weight - weight.mean(1, keepdim=True), "1.bias": torch.zeros(4)}, place / "net.safetensors")
    x = torch.randint(0, 255, (20, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    x[10:, 0, 0, 0] = 255
    y = (x.flatten(1).float() / 255 @ weight.T).argmax(1)
    np.savez(place / "set.npz", x=x.numpy().astype(np.uint8), y=y.numpy())
    for name, words in {"report": [], "s0": ["--shard", "0/2", *FEW], "s1": ["--shard", "1/2", *FEW]}.items():
        run = started(place, [*AUDIT, *words, "--out", name])
        assert run.end() == 0, run.err.read_text()
    return place


@pytest.fixture
def place(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("faultnets.py", "net.safetensors", "set.npz"):
        shutil.copy(origin / name, tmp_path)
    for name in ("report", "s0", "s1"):
        shutil.copytree(origin / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


DATA = ["--weights", "net.safetensors", "--data", "set.npz"]
TERMS = ["--threat", "linf:16/255", "--batch-size", "10"]
AUDIT = ["audit", "--model", "faultnets:net", *DATA, *TERMS]
WAITS = ["audit", "--model", "faultnets:waiting", *DATA, *TERMS]
FEW = ["--limit", "4", "--curve", "none", "--attack", "fgsm"]
MERGE = ["merge", "s0", "s1", "--out", "report"]
NET = "faultnets:{}@net.safetensors"
SIDES = ["--surrogate", "a=" + NET.format("waiting"), "--victim", "b=" + NET.format("net"), *DATA[2:]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_over(folder: Path) -> list[str]:
    """Of ours, whatever is not finished."""
    return [path.name for path in folder.rglob("*") if path.name.startswith(".")]


def audited(place: Path) -> None:
    result = Result.load(place / "out" / "result.json")
    assert (result.partial, result.examples) == (True, 10)


def crafted(place: Path) -> None:
    assert json.loads((place / "out" / "attacked.json").read_text())["inputs"] == 10


def transferred(place: Path) -> None:
    matrix = TransferMatrix.load(place / "out" / "transfer.json")
    assert (matrix.partial, matrix.examples) == (True, 10)
    assert "partial: interrupted after 10 examples" in (place / "out" / "index.html").read_text()
    # What a version without the field wrote is read.
    plain = json.loads(matrix.to_json())
    del plain["partial"]
    assert not TransferMatrix.from_json(json.dumps(plain)).partial


def compared(place: Path) -> None:
    plain = json.loads((place / "out" / "compare.json").read_text())
    assert list(plain["results"]) == ["a", "b"]
    assert "partial: interrupted after a, b" in plain["notes"]


ENTRANTS = [word for name in ("a", "b") for word in ("--model", f"{name}={NET.format('net')}")]
INTERRUPTED = {
    "audit": (WAITS, audited),
    "attack": (["attack", *WAITS[1:]], crafted),
    "transfer": (["transfer", *SIDES, *TERMS], transferred),
    "compare": (["compare", *ENTRANTS, "--model", f"c={NET.format('waiting')}", *DATA[2:], *TERMS[:2]], compared),
}


@pytest.mark.parametrize(
    ("command", "number"),
    [("audit", signal.SIGTERM), ("audit", signal.SIGHUP), ("audit", signal.SIGINT)]
    + [(name, signal.SIGTERM) for name in ("attack", "transfer", "compare")],
)
def test_a_signal_writes_what_was_found(command: str, number: signal.Signals, place: Path) -> None:
    words, check = INTERRUPTED[command]
    run = started(place, [*words, "--out", "out"])
    run.until((place / "reached").exists)
    run.signal(number)
    assert run.end() == 128 + number
    check(place)
    assert "Traceback" not in run.err.read_text()
    assert left_over(place / "out") == []


def test_before_the_first_batch_nothing_is_left(place: Path) -> None:
    run = started(place, [*WAITS, "--out", "out", "--batch-size", "20"])
    run.until((place / "reached").exists)
    run.signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM
    assert run.err.read_text().endswith("interrupted before the first batch was done: no report was written\n")
    assert not (place / "out").exists()


def hold_on_to_writing(mark: str) -> None:
    """Writing the report takes forever."""
    import signstep.report as report

    def slow(*_: object, **__: object) -> None:
        Path(mark).touch()
        time.sleep(60)

    report.write_report = slow  # type: ignore[assignment]


def test_a_second_signal_ends_at_once_and_keeps_what_was_there(place: Path) -> None:
    before = contents(place / "report")
    run = started(place, [*WAITS, "--out", "report"], hold_on_to_writing, "writing")
    for mark in ("reached", "writing"):
        run.until((place / mark).exists)
        run.signal(signal.SIGTERM)
    assert run.end(20) == 128 + signal.SIGTERM
    assert contents(place / "report") == before
    assert left_over(place / "report") == []


def ignore_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_what_nohup_ignores_stays_ignored(place: Path) -> None:
    run = started(place, [*WAITS, "--out", "out"], ignore_hangups)
    run.until((place / "reached").exists)
    run.signal(signal.SIGHUP)
    time.sleep(0.1)
    assert run.process.is_alive()
    run.signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM


def test_python_keeps_its_handlers(place: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    streams = sys.stdout, sys.stderr
    assert main(["list"]) == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before
    assert (sys.stdout, sys.stderr) == streams


TRAIN = ["train", "--limit", "200", "--epochs", "400", "--batch-size", "50", "--check-every", "5", "--ladder", "none"]


def test_training_keeps_a_checkpoint_and_goes_on_after_a_kill(place: Path) -> None:
    def begun(number: int) -> Running:
        run = started(place, [*TRAIN, "--out", "out"])
        run.until(lambda: run.err.exists() and "\nstep " in run.err.read_text())
        run.signal(number)
        return run

    assert begun(signal.SIGKILL).end() == -signal.SIGKILL
    assert (place / "out" / ".signstep-begun").exists()
    run = begun(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM
    assert "call again to go on" in run.err.read_text()
    assert list((place / "out").glob("checkpoint-*.pt"))
    assert left_over(place / "out") == []
    assert begun(signal.SIGTERM).end() == 128 + signal.SIGTERM


def test_a_killed_audit_blocks_no_next_one(place: Path) -> None:
    """Also one that was killed while the report was made, when temporary files lie about."""
    for out in ("out", "report"):
        before = contents(place / out) if out == "report" else {}
        for prepare in ((), (hold_on_to_writing, "writing")):
            (place / "reached").unlink(missing_ok=True)
            run = started(place, [*(AUDIT if prepare else WAITS), "--out", out], *prepare)
            run.until((place / ("writing" if prepare else "reached")).exists)
            run.signal(signal.SIGKILL)
            assert run.end() == -signal.SIGKILL
            (place / "writing").unlink(missing_ok=True)
            assert left_over(place / out)
            assert {name: part for name, part in contents(place / out).items() if name in before} == before
        run = started(place, [*AUDIT, "--out", out])
        assert run.end() == 0, run.err.read_text()
        assert left_over(place / out) == []
        assert main(["verify", out]) == 0


def kill_at_rename(count: int) -> None:
    """The process dies in the place of its so-many-th move between the folder and the staging folder."""
    real, calls = Path.rename, [0]

    def rename(self: Path, to: Path) -> Path:
        calls[0] += 1
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, to)

    Path.rename = rename  # type: ignore[method-assign, assignment]


def test_killed_between_two_renames_the_old_report_comes_back(place: Path) -> None:
    folder = place / "report"
    shutil.rmtree(folder / "pictures")  # so that a folder is made on the way
    (folder / "mine.txt").write_text("foreign")
    before, mixtures = contents(folder), 0
    for count in range(1, 60, 2):
        run = started(place, MERGE, kill_at_rename, count)
        if (status := run.end()) == 0:
            break
        assert status == -signal.SIGKILL
        mixtures += {name: part for name, part in contents(folder).items() if not name.startswith(".")} != before
        sweep(folder)
        (folder / ".signstep-begun").unlink()
        assert contents(folder) == before
        assert not (folder / "pictures").exists()
    assert mixtures > 3
    assert (folder / "pictures").is_dir()
    assert (folder / "mine.txt").read_text() == "foreign"


def test_two_runs_do_not_write_to_one_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = started(place, [*WAITS, "--out", "out"])
    run.until((place / "reached").exists)
    for words in ([*AUDIT, "--out", "out"], [*MERGE[:-1], "out"], [*AUDIT, "--out", "./out/../out"]):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert f"error: --out {Path(words[-1])} is being written by another run; wait for its end" in err
    run.signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM
    audited(place)
    assert main([*AUDIT, "--out", "out"]) == 0


# What looks like ours, and is a file of somebody else's, or one that somebody alive is writing.


def test_only_own_leftovers_are_cleaned(tmp_path: Path) -> None:
    for name in (".signstep-abcdefgh", ".signstep-staging1"):
        (tmp_path / name / "new").mkdir(parents=True)
    (tmp_path / ".signstep-abcdefgh" / "thesis.tex").write_text("foreign")
    (tmp_path / ".signstep-12345678.part").write_text("dead")
    (tmp_path / ".signstep-notes").write_text("foreign")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("foreign")
    (tmp_path / ".signstep-linkdir1").symlink_to("elsewhere")
    (tmp_path / ".signstep-linkfile.part").symlink_to("elsewhere/file")
    os.mkfifo(tmp_path / ".signstep-fifofifo.part")
    (tmp_path / "living").mkdir()
    with replaced(tmp_path / "living", lambda _: []) as new:
        write_whole(new / "file", "alive")
        sweep(tmp_path / "living")
        assert (new / "file").exists()
    before = {path.name for path in tmp_path.iterdir()}
    sweep(tmp_path)
    assert before - {path.name for path in tmp_path.iterdir()} == {".signstep-12345678.part", ".signstep-staging1"}
    assert (tmp_path / "living" / "file").read_text() == "alive"
    assert contents(tmp_path / "elsewhere") == {"file": b"foreign"}


@pytest.mark.parametrize(
    "journal",
    [
        {"new": {"thesis.tex": 0}, "made": []},
        {"new": {"../outside": 1}, "made": []},
        {"new": {}, "made": ["../empty"]},
        {"new": {"link/file": 1}, "made": []},
        {"new": ["thesis.tex"], "made": []},
        {"new": {"/etc/hostname": 1}, "made": ["/tmp"]},
        [],
    ],
)
def test_a_forged_journal_moves_nothing(journal: Any, tmp_path: Path) -> None:
    folder, staging = tmp_path / "folder", tmp_path / "folder" / ".signstep-abcdefgh"
    (tmp_path / "empty").mkdir()
    (tmp_path / "outside").write_text("foreign")
    for name in ("new", "old"):
        (staging / name).mkdir(parents=True)
    (folder / "thesis.tex").write_text("foreign")
    (folder / "link").symlink_to(tmp_path)
    (staging / "moves.json").write_text(json.dumps(journal))
    sweep(folder)
    assert (folder / "thesis.tex").read_text() == "foreign"
    assert (tmp_path / "outside").read_text() == "foreign"
    assert (tmp_path / "empty").is_dir()


# Disks.


def fail_at(folder: str, kind: str, codes: list[int], said: str) -> None:
    """Every operation that changes the folder fails once; the command is repeated until none of them is left."""
    here, seen, at = os.path.realpath(folder), [0], [0]
    code = codes[0]
    events = {"open", "os.rename", "os.mkdir", "os.chmod"}

    def failing(what: str, path: object) -> None:
        if at[0] and isinstance(path, (str, os.PathLike)) and os.path.realpath(path).startswith(here):
            seen[0] += 1
            if seen[0] == at[0]:
                code = codes[at[0] % len(codes)]
                raise OSError(code, os.strerror(code), str(path))

    def hook(event: str, given: Any) -> None:
        if event in events and (event != "open" or given[2] & (os.O_WRONLY | os.O_RDWR)):
            failing(event, given[0])

    def fsync(descriptor: int) -> None:
        failing("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))

    sys.addaudithook(hook)
    os.fsync = fsync
    before, ends = contents(Path(folder)), []
    for count in range(1, 400):
        at[0], seen[0] = count, 0
        status = main(MERGE)
        at[0] = 0
        after = contents(Path(folder))
        own = [name for name in after if name.startswith(".")]
        ends.append((status, after == before, own))
        if seen[0] < count:
            break
        if after != before:
            shutil.rmtree(folder)
            shutil.copytree("kept", folder)
    Path(said).write_text(json.dumps(ends))


def test_an_error_at_every_operation(place: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to know what is synced")
    shutil.copytree(place / "report", place / "kept")
    run = started(place, ["list"], fail_at, "report", "", [errno.EIO, errno.ENOSPC, errno.EDQUOT], "ends.json")
    assert run.end(120) == 0, run.err.read_text()
    ends = json.loads((place / "ends.json").read_text())
    assert len(ends) > 40, len(ends)
    assert ends[-1] == [0, False, []]
    for status, same, own in ends[:-1]:
        # An error after all has moved is told, though what is there is whole.
        assert (status, same) in ((2, True), (0, False)), ends
        assert own == [], ends
    errors = [line for line in run.err.read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == sum(status == 2 for status, *_ in ends)
    assert all("cannot be written (" in line and "pass another folder" in line for line in errors)
    assert "Traceback" not in run.err.read_text()


def small_files(said: str) -> None:
    """No file may grow beyond so many bytes."""
    before, ends = contents(Path("report")), []
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    sys.stdout = open(os.devnull, "w")
    for most in (0, 1, 100, 1000, 3000, 9000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        status = main(MERGE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        ends.append((most, status, contents(Path("report")) == before))
    Path(said).write_text(json.dumps(ends))


def test_files_that_cannot_grow(place: Path) -> None:
    run = started(place, ["list"], small_files, "ends.json")
    assert run.end() == 0, run.err.read_text()
    ends = json.loads((place / "ends.json").read_text())
    assert [end[1:] for end in ends if end[0]] == [[2, True]] * 5
