"""The log as files: every line is kept while there is room, in order, and nothing else hangs on it."""

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guard_bench import Asking, made, odd, service

import signstep as ss
from signstep.guard.app import make_app
from signstep.guard.logfile import LOG, LogFile


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Any]:
    held: list[LogFile] = []

    def make(**more: Any) -> LogFile:
        held.append(LogFile(tmp_path / "guard.log", **more))
        held[-1].begin()
        return held[-1]

    level = LOG.level
    yield make
    for one in held:
        one.end()
    LOG.setLevel(level)


def files(folder: Path) -> list[Path]:
    """The oldest first."""
    return sorted(
        folder.glob("guard.log*"), key=lambda path: -int(path.suffix[1:] or 0) if path.suffix[1:].isdigit() else 0
    )


def lines(folder: Path) -> list[str]:
    return [line for path in files(folder) for line in path.read_text().splitlines()]


def test_every_line_of_every_thread_is_in_one_of_the_files_and_in_order(tmp_path: Path, opened: Any) -> None:
    log = opened(log_mb=0.002, log_files=100)

    def write(who: int) -> None:
        for number in range(100):
            LOG.info("thread %d line %d", who, number)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found = [tuple(map(int, (words[3], words[5]))) for words in (line.split() for line in lines(tmp_path))]
    assert sorted(found) == [(who, number) for who in range(4) for number in range(100)]
    assert all([number for who, number in found if who == mine] == list(range(100)) for mine in range(4))
    assert len(files(tmp_path)) > 5
    assert max(path.stat().st_size for path in files(tmp_path)) <= 2000
    assert log.lost == 0


def test_no_more_files_are_kept_than_asked_for_and_the_latest_lines_are_among_them(tmp_path: Path, opened: Any) -> None:
    opened(log_mb=0.001, log_files=3)
    for number in range(500):
        LOG.warning("line %d", number)
    assert len(files(tmp_path)) == 4
    kept = [int(line.split()[-1]) for line in lines(tmp_path)]
    assert kept == list(range(500 - len(kept), 500))
    assert all(path.stat().st_mode & 0o077 == 0 for path in files(tmp_path))


def test_whatever_is_logged_is_one_line(tmp_path: Path, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened()
    monkeypatch.setattr(LOG, "propagate", False)  # pytest would pass half a surrogate on to who cannot write it
    LOG.warning("a client\nERROR forged\x1b[2J\u202e\ud800")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        LOG.exception("a request failed")
    one, two = lines(tmp_path)
    assert "Z WARNING a client | ERROR forged" in one
    assert one.isprintable()
    assert "ERROR a request failed | Traceback" in two
    assert "second" in two


def test_answers_leave_and_are_stored_while_the_log_turns_over_and_while_its_disk_is_full(
    tmp_path: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    log = opened(log_mb=0.001, log_files=2, said=said.append)
    guard = made(tmp_path / "guard.db")
    assert guard.store is not None
    with Asking(make_app(service(guard))) as asking:

        def ask() -> None:
            for number in range(60):
                LOG.info("filled %d", number)
            for _ in range(3):
                assert asking.ask("POST", "/predict", b"{", {"content-type": "application/json"}).status == 400
                assert asking.predict(odd(0.1)).status == 200

        ask()
        assert len(files(tmp_path)) == 3

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "rename", full)
        monkeypatch.setattr(log, "_open", full)
        ask()
        assert log.lost > 0
        assert said == ["the log cannot be written; decisions are stored all the same"]
        monkeypatch.undo()
        before = log.lost
        ask()
        assert log.lost == before
        assert said[1:] == [f"the log is written again; {before} lines were not"]
        assert len(guard.store.read(guard.store.tables.log(limit=1000))) == 9


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    (tmp_path / "guard.log").symlink_to(tmp_path / "other")
    for path in (tmp_path / "guard.log", tmp_path, tmp_path / "no" / "guard.log"):
        with pytest.raises(ss.SignstepError, match="cannot be written"):
            LogFile(path)
    assert (tmp_path / "other").read_text() == "kept"
    for more in ({"log_mb": 1e-5}, {"log_mb": float("nan")}, {"log_files": 0}, {"log_files": 10**9}):
        with pytest.raises(ss.SignstepError, match="log_"):
            LogFile(tmp_path / "new.log", **more)
    # What is no log is neither written to nor turned over: a store, weights, somebody's file in an older one's place.
    for name, place in (("guard.db", "guard.db"), ("new.log", "new.log.2")):
        (tmp_path / place).write_bytes(b"SQLite format 3\0")
        with pytest.raises(ss.SignstepError, match=f"{place} holds something else than a log of the guard"):
            LogFile(tmp_path / name, log_files=3)
        assert (tmp_path / place).read_bytes() == b"SQLite format 3\0"
    assert logging.getLogger("signstep.guard").handlers == []


def test_a_log_goes_on_where_it_ended(tmp_path: Path, opened: Any) -> None:
    for number in range(2):
        log = opened()
        LOG.warning("line %d", number)
        log.end()
    assert [line.split()[-1] for line in lines(tmp_path)] == ["0", "1"]
