"""Faults of the machine: signals, kills, disks that fill up or fail, no home, no output, links, another run."""

import errno
import io
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from own_process import FORKED, Running, started
from signstep import demo
from signstep.auditing.matrix import TransferMatrix
from signstep.auditing.result import Result
from signstep.cli import main
from signstep.io.files import is_own, write_whole
from signstep.io.folders import replaced, sweep
from signstep.io.locks import alone_in
from signstep.networks.small import digits_cnn

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
MINE = ["--model", "faultnets:net", *DATA]  # what verify is given
WAITS = ["audit", "--model", "faultnets:waiting", *DATA, *TERMS]
FEW = ["--limit", "2", "--curve", "none", "--attack", "fgsm"]
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
    from signstep import report

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


def test_python_keeps_its_handlers() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    streams = sys.stdout, sys.stderr
    assert main(["list"]) == 0
    ends: list[int] = []
    thread = threading.Thread(target=lambda: ends.append(main(["list"])))  # where no handler can be set
    thread.start()
    thread.join()
    assert ends == [0]
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


def wait_in_the_audit() -> None:
    """After the first of the batches of the final audit."""

    from dataclasses import replace

    from signstep.cli import final_audit

    real = vars(final_audit)["audit"]

    def slow(*given: Any, run: Any, **named: Any) -> Result:
        def told(done: int) -> None:
            run.progress(done)
            Path("reached").touch()
            time.sleep(60)

        result: Result = real(*given, run=replace(run, progress=told), **named)
        return result

    vars(final_audit)["audit"] = slow


def test_an_interrupted_final_audit_leaves_weights_card_and_a_partial_report(place: Path) -> None:
    words = [*TRAIN[:3], "--epochs", "1", "--ladder", "quick", "--out", "out"]
    run = started(place, words, wait_in_the_audit)
    run.until((place / "reached").exists)
    run.signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM
    result = Result.load(place / "out" / "report" / "result.json")
    assert (result.partial, result.examples) == (True, 256)
    assert {"MODEL_CARD.md", "weights.safetensors"} <= {path.name for path in (place / "out").iterdir()}
    assert left_over(place / "out") == []


def test_an_interrupted_comparison_of_recipes_goes_on(place: Path) -> None:
    words = ["compare", "--recipe", "a=natural", "--recipe", "b=n-fgsm", *TRAIN[1:3], "--set", "epochs=400"]
    run = started(place, [*words, "--out", "out"])
    run.until(lambda: run.err.exists() and "a: clean examples" in run.err.read_text())
    time.sleep(0.3)
    run.signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM
    assert "interrupted after 0 of 2: call again to go on" in run.err.read_text()
    assert list((place / "out" / "a").glob("checkpoint-*.pt"))
    assert left_over(place / "out") == []


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
        assert main(["verify", out, *MINE]) == 0


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
    for count in range(1, 60, 4):
        run = started(place, MERGE, kill_at_rename, count)
        if (status := run.end()) == 0:
            break
        assert status == -signal.SIGKILL
        mixtures += {name: part for name, part in contents(folder).items() if not name.startswith(".")} != before
        sweep(folder)
        (folder / ".signstep-begun").unlink()
        assert contents(folder) == before
        assert not (folder / "pictures").exists()
    assert mixtures > 1
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


def fail_at(folder: str, codes: list[int], said: str) -> None:
    """Every operation that changes the folder fails once; the command is repeated until none of them is left."""
    from signstep import report

    vars(report)["page"] = lambda *_: "<html></html>"  # it takes most of the time, and is not what fails
    here, seen, at = os.path.realpath(folder), [0], [0]
    events = {"open", "os.rename", "os.mkdir", "os.chmod"}

    def failing(path: object) -> None:
        if at[0] and isinstance(path, (str, os.PathLike)) and os.path.realpath(path).startswith(here):
            seen[0] += 1
            if seen[0] == at[0]:
                code = codes[at[0] % len(codes)]
                raise OSError(code, os.strerror(code), str(path))

    def hook(event: str, given: Any) -> None:
        if event in events and (event != "open" or given[2] & (os.O_WRONLY | os.O_RDWR)):
            failing(given[0])

    def fsync(descriptor: int) -> None:
        failing(Path(f"/proc/self/fd/{descriptor}").readlink())

    sys.addaudithook(hook)
    os.fsync = fsync  # type: ignore[assignment]
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
    run = started(place, ["list"], fail_at, "report", [errno.EIO, errno.ENOSPC, errno.EDQUOT], "ends.json")
    assert run.end(120) == 0, run.err.read_text()
    ends = json.loads((place / "ends.json").read_text())
    assert len(ends) > 40
    assert ends[-1] == [0, False, []]
    for status, same, own in ends[:-1]:
        # An error after all has moved is told, though what is there is whole.
        assert (status, same) in ((2, True), (0, False)), ends
        assert own == [], ends
    errors = [line for line in run.err.read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == sum(status == 2 for status, *_ in ends)
    assert all("cannot be written (" in line and "pass another folder" in line for line in errors)
    assert "Traceback" not in run.err.read_text()


UNITS = [*AUDIT, *FEW, "--out", "out", "--workers", "1"]


def fail_in_units(said: str) -> None:
    """One operation on the folder fails, in the whole command of an audit in units; then it is gone on with."""
    from signstep import report
    from signstep.scale import digest

    vars(report)["page"] = lambda *_: "<html></html>"
    here, seen, at, ends = os.path.realpath("out"), 0, 0, []
    events = {"open", "os.rename", "os.mkdir", "os.chmod", "sqlite3.connect"}

    def failing(path: object) -> None:
        nonlocal seen
        text = str(path).removeprefix("file:") if isinstance(path, (str, os.PathLike)) else ""
        if at and os.path.realpath(text).startswith(here):
            seen += 1
            if seen == at:
                if str(path).startswith("file:"):
                    raise sqlite3.OperationalError("unable to open database file")
                code = (errno.EIO, errno.ENOSPC)[at % 2]
                raise OSError(code, os.strerror(code), str(path))

    def hook(event: str, given: Any) -> None:
        if event in events and (event != "open" or given[2] & (os.O_WRONLY | os.O_RDWR)):
            failing(given[0])

    def fsync(descriptor: int) -> None:
        failing(Path(f"/proc/self/fd/{descriptor}").readlink())

    sys.addaudithook(hook)
    os.fsync = fsync  # type: ignore[assignment]
    # The report, which comes behind the ledger, is written as that of every command is: see above.
    for count in (*range(1, 20), *range(20, 400, 15)):
        shutil.rmtree("out", ignore_errors=True)
        at, seen = count, 0
        status, whole = main(UNITS), seen < count
        at = 0
        own = left_over(Path("out")) if Path("out").exists() else []
        again = main([*UNITS, "--resume"])
        ends.append((status, own, again, "" if again else digest(Result.load(Path("out") / "result.json"))))
        if whole:
            break
    Path(said).write_text(json.dumps(ends))


def test_an_error_at_every_operation_of_an_audit_in_units(place: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to know what is synced")
    run = started(place, ["list"], fail_in_units, "ends.json")
    assert run.end(300) == 0, run.err.read_text()
    ends = json.loads((place / "ends.json").read_text())
    assert len(ends) > 10
    assert ends[-1][0] == 0
    for status, own, again, same in ends:
        assert status in (0, 2)
        assert own == []
        assert (again, same) == (0, ends[-1][3])
    said = run.err.read_text()
    assert said.count("error: ") == sum(status == 2 for status, *_ in ends) > 5
    assert "Traceback" not in said


def small_files(said: str) -> None:
    """No file may grow beyond so many bytes."""
    before, ends = contents(Path("report")), []
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    sys.stdout = io.StringIO()
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


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A real file system of so many kilobytes."""
    mounted: list[Path] = []

    def made(kilobytes: int) -> Path:
        where = tmp_path / f"tiny{len(mounted)}"
        where.mkdir()
        mount = shutil.which("mount")
        done = mount and subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(where)], capture_output=True, check=False
        )
        if not done or done.returncode:
            pytest.skip("needs to mount a tmpfs, which this user may not here")
        mounted.append(where)
        return where

    yield made
    for where in mounted:
        subprocess.run(["umount", str(where)], check=True)


@pytest.mark.usefixtures("place")
def test_a_file_system_that_is_full(
    tiny: Callable[[int], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From no room at all to enough: whatever does not fit, the report that is there stays, and the new one is said."""
    disk = tiny(1024)
    assert main([*AUDIT, "--out", str(disk / "report")]) == 0
    before, statuses, printed = contents(disk / "report"), [], []
    ballast = disk / "ballast"
    for free in (0, 4, 12, 40, 100, 400):
        ballast.unlink(missing_ok=True)
        with ballast.open("wb", buffering=0) as file:
            room = os.statvfs(disk)
            size = room.f_bavail * room.f_bsize - free * 1024
            file.write(bytes(max(0, size)))
        capsys.readouterr()
        status = main([*AUDIT, "--seed", "1", "--out", str(disk / "report")])
        said = capsys.readouterr()
        statuses.append(status)
        printed.append("robust" in said.out)
        assert "Traceback" not in said.err
        if status:
            assert said.err.count("error: ") == 1
            assert "cannot be written (No space left on device" in said.err
            assert contents(disk / "report") == before
        assert left_over(disk) == []
    assert printed[-1]
    assert sum(printed) > statuses.count(0)  # also where there was room to begin, and none to end
    assert statuses[0] == 2
    assert statuses[-1] == 0
    # The cache of the demonstration is a convenience.
    ballast.unlink()
    ballast.write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))
    monkeypatch.setenv("SIGNSTEP_CACHE", str(disk / "cache"))
    assert not kept()
    assert left_over(disk) == []


def kept() -> bool:
    """Whether weights find a place in the cache."""
    path = demo._cache_file(demo._RECIPE)
    return path is not None and demo._keep(path, digits_cnn()) and path.is_file()


@pytest.mark.parametrize("option", ["--data", "--weights", "--classes"])
def test_a_path_in_a_home_that_nobody_knows(option: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for domain in ([], ["--domain", "tabular", "--schema", str(place / "none.toml")]):
        assert main([*AUDIT, *domain, option, "~nobody-of-this-name/x"]) == 2
        err = capsys.readouterr().err
        assert err.count("error: ") == 1
        assert domain or "'~nobody-of-this-name/x' begins with a home folder that is not known" in err


@pytest.mark.usefixtures("place")
def test_a_report_that_cannot_be_written_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hours of an audit are not lost to a disk."""
    real = Path.replace

    def full(self: Path, to: Path) -> Path:
        if Path(to).name == "SHA256SUMS":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, to)

    monkeypatch.setattr(Path, "replace", full)
    assert main([*AUDIT, "--out", "out", "--json"]) == 2
    said = capsys.readouterr()
    assert Result.from_json(said.out).examples == 20
    assert said.err.endswith("error: out/SHA256SUMS cannot be written (No space left on device); pass another folder\n")


# Where to.


def link_to(target: str) -> Callable[[Path], Path]:
    def made(place: Path) -> Path:
        (place / "link").symlink_to(target)
        return place / "link"

    return made


WHERE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "inside a file": (lambda place: place / "set.npz" / "out", "cannot be written (Not a directory)"),
    "a file": (lambda place: place / "set.npz", "cannot be written (it is a file)"),
    "too long": (lambda place: place / ("a" * 300), "cannot be written (File name too long)"),
    "too deep": (lambda place: place.joinpath(*["b" * 200] * 30), "cannot be written (File name too long)"),
    "a link to nothing": (link_to("nowhere"), "cannot be written (it is a link to nowhere, not there)"),
    "a link to a file": (link_to("set.npz"), "cannot be written (it is a link to a file)"),
    "a loop": (link_to("link"), "cannot be written (it is a link"),
    "somebody's": (lambda place: place, "holds other files; pass a new folder"),
    "a device": (lambda _: Path("/dev/null"), "cannot be written (it is a file)"),
    "proc": (lambda _: Path("/proc/signstep"), "cannot be written ("),
}
COMMANDS = {
    "audit": AUDIT,
    "attack": ["attack", *AUDIT[1:]],
    "merge": MERGE[:3],
    "transfer": ["transfer", "--surrogate", "a=" + NET.format("net"), *SIDES[2:], *TERMS],
    "compare": ["compare", "s0", "s0b=s0"],
    "train": TRAIN,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_cannot_be(command: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(place)
    for name, (made, said) in WHERE.items():
        (place / "link").unlink(missing_ok=True)
        where = made(place)
        assert main([*COMMANDS[command], "--out", str(where)]) == 2, name
        err = capsys.readouterr().err
        assert f"error: --out {where} {said}" in err, (name, err)
        assert err.count("error: ") == 1
        assert "Traceback" not in err
    assert {name: part for name, part in contents(place).items() if "__pycache__" not in name} == before


def test_a_disk_that_may_only_be_read(
    place: Path, tiny: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tiny(1024)
    shutil.copytree(place / "report", disk / "report")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for command, words in COMMANDS.items():
        assert main([*words, "--out", str(disk / "out")]) == 2, command
        assert f"--out {disk / 'out'} cannot be written (Read-only file system); pass" in capsys.readouterr().err
    assert main([*AUDIT, "--out", str(disk / "report")]) == 2
    assert main(["verify", str(disk / "report"), *MINE]) == 0
    monkeypatch.setenv("SIGNSTEP_CACHE", str(disk / "cache"))
    assert not kept()


@pytest.mark.parametrize(
    ("home", "cached"), [("there", True), ("missing", False), ("file", False), ("", None), ("there/no\nsense", False)]
)
def test_a_home_of_any_kind(home: str, cached: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIGNSTEP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / home))
    if cached is None:  # nobody says where, and the user has no entry

        def unknown(_: object) -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", classmethod(unknown))
        cached = False
    before = sorted(tmp_path.iterdir())
    assert kept() is cached
    assert sorted(tmp_path.iterdir()) == before


def test_links_and_mixed_folders_take_a_report(place: Path) -> None:
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    assert main([*AUDIT, "--out", "link"]) == 0
    assert (place / "link").is_symlink()
    assert main(["verify", "real", *MINE]) == 0
    # A report of another version, with whatever else lies there.
    (place / "real" / "result.json").write_text('{"format": 0}')
    (place / "real" / "mine.txt").write_text("foreign")
    assert main([*AUDIT, "--out", "real"]) == 0
    assert (place / "real" / "mine.txt").read_text() == "foreign"
    assert main(["verify", "real", *MINE]) == 1  # what the report did not write is named
    (place / "real" / "mine.txt").rename(place / "mine.txt")
    assert main(["verify", "real", *MINE]) == 0
    assert left_over(place / "real") == []


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_the_umask_decides_who_may_read(mask: int, mode: int, place: Path) -> None:
    before = os.umask(mask)
    try:
        assert main([*MERGE[:-1], "out"]) == 0
        assert main([*COMMANDS["transfer"], "--out", "matrix"]) == 0
    finally:
        os.umask(before)
    files = [path for name in ("out", "matrix") for path in (place / name).rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}


# Streams, homes and clocks.


def test_transfer_and_comparison_are_replaced_whole(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Path.rename
    for command, last in (("transfer", "transfer.json"), ("compare", "compare.svg")):
        words = [*COMMANDS[command], "--out", command]
        assert main(words) == 0
        before = contents(place / command)

        def failing(self: Path, to: Path, last: str = last) -> Path:
            if Path(to).name == last and "new" in self.parts:
                raise OSError(errno.EIO, "Input/output error")
            return real(self, to)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", failing)
            assert main(words) == 2
        assert contents(place / command) == before
        assert "cannot be written (Input/output error)" in capsys.readouterr().err


def unread(*descriptors: int) -> None:
    """Nobody is at the other end of these."""
    reader, writer = os.pipe()
    os.close(reader)
    for descriptor in descriptors:
        os.dup2(writer, descriptor)


READ = {
    "list": ["list"],
    "explain": ["explain", "pgd"],
    "schema": ["schema", "--domain", "control"],
    "verify": ["verify", "report"],
}


@pytest.mark.parametrize("command", [*READ, "audit", "attack", "merge", "transfer", "compare", "--help", "--version"])
def test_a_reader_that_leaves(command: str, place: Path) -> None:
    words = READ.get(command) or [*COMMANDS.get(command, [command]), *(["--out", "out"] if command in COMMANDS else [])]
    run = started(place, words, unread, 1)
    assert run.end() == 141
    assert "Traceback" not in run.err.read_text()
    if command in ("audit", "merge"):
        assert main(["verify", "out", *MINE]) == 0


def test_errors_that_nobody_reads_cost_nothing(place: Path) -> None:
    run = started(place, [*AUDIT, "--out", "out"], unread, 2)
    assert run.end() == 0
    assert "robust" in run.out.read_text()
    assert main(["verify", "out", *MINE]) == 0


def narrow(encoding: str) -> None:
    """Standard output has no letters but these."""
    sys.stdout = os.fdopen(1, "w", encoding=encoding, closefd=False)


def test_a_narrow_encoding_escapes_what_it_lacks(place: Path) -> None:
    name = "r\u00e9seau \u2264.npz"
    (place / name).write_bytes((place / "set.npz").read_bytes())
    run = started(place, [*AUDIT, "--data", name, "--out", "out", "--json"], narrow, "latin-1")
    assert run.end() == 0, run.err.read_text()
    said = run.out.read_text(encoding="latin-1")
    assert "r\u00e9seau \\u2264.npz" in said
    assert Result.from_json(said) == Result.load(place / "out" / "result.json")


# What only a new interpreter sees: the streams it begins with.
SHELL = {
    "a reader that leaves": ("PROGRAM list | true; echo ${PIPESTATUS[0]}", "141"),
    "closed": ("AUDIT >&- 2>&- <&-; echo $?", "0"),
    "C": ("PYTHONIOENCODING=ascii LC_ALL=C AUDIT --json >json; echo $?", "0"),
}


@pytest.mark.parametrize("case", SHELL)
def test_streams_of_a_shell(case: str, place: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash for its pipes")
    (place / "réseau.npz").write_bytes((place / "set.npz").read_bytes())
    line, wanted = SHELL[case]
    audit = " ".join(["PROGRAM", *AUDIT, "--data", "réseau.npz", "--out", "out"])
    line = line.replace("AUDIT", audit).replace("PROGRAM", f"{sys.executable} -m signstep.cli")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}
    done = subprocess.run([bash, "-c", line], capture_output=True, check=False, env=environment)
    assert done.stdout.decode().strip() == wanted, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    if "AUDIT" in SHELL[case][0]:
        assert main(["verify", "out", *MINE, "--data", "réseau.npz"]) == 0
    if (place / "json").exists():
        said = (place / "json").read_text(encoding="utf-8")
        assert Result.from_json(said) == Result.load(place / "out" / "result.json")


@pytest.mark.parametrize("text", ["é ≤ 😀 \udcff", "plain"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_letters_that_an_encoding_lacks_are_escaped_as_json_reads_them(encoding: str, text: str) -> None:
    said = json.dumps(text, ensure_ascii=False).encode(encoding, "signstep.escaped")
    assert json.loads(said.decode(encoding)) == text


def test_a_clock_that_is_set_back(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [2e9]

    def earlier() -> float:
        now[0] -= 3600.0
        return now[0]

    monkeypatch.setattr(time, "time", earlier)
    assert main([*AUDIT, "--out", "out"]) == 0
    result = Result.load(place / "out" / "result.json")
    assert 0 < result.seconds < 600
    assert all(0 <= entry.seconds < 600 for entry in result.attacks)
    # The guard's memory has dates, which no other clock tells; how long something takes it asks another one.
    sources = [path for path in Path(main.__code__.co_filename).parents[1].rglob("*.py") if path.parent.name != "guard"]
    assert [path.name for path in sources if "time.time(" in path.read_text(encoding="utf-8")] == []


def test_what_is_renamed_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written, synced, renamed, the folder synced: also for checkpoints."""
    from signstep.train.checkpoints import save_checkpoint

    done: list[str] = []
    synced, renamed, replaced_ = os.fsync, Path.rename, Path.replace

    def fsync(descriptor: int) -> None:
        at = os.fstat(descriptor)
        found = [path for path in (tmp_path, *tmp_path.rglob("*")) if path.lstat().st_ino == at.st_ino]
        done.append("sync " + ("folder" if found[0].is_dir() else "file"))
        synced(descriptor)

    def moved(real: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def move(self: Path, to: Path) -> Path:
            done.append("rename")
            return real(self, to)

        return move

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", moved(renamed))
    monkeypatch.setattr(Path, "replace", moved(replaced_))
    save_checkpoint(tmp_path, 1, {"step": 1})
    assert done == ["sync file", "rename", "sync folder"]
    done.clear()
    with replaced(tmp_path, lambda _: []) as new:
        write_whole(new / "one", "1")
        (new / "two").write_text("2")
        assert done == ["rename"]
    first = done.index("rename", 1)
    assert done[1:first].count("sync file") == 3  # both, and the journal
    assert done[first:] == ["rename", "rename", "sync folder", "sync folder"]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    with alone_in(tmp_path) as first, alone_in(tmp_path) as second:
        assert (first, second) == (True, False)
    with alone_in(tmp_path) as again:
        assert again
    assert not is_own(".signstep-begun")
