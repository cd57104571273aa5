"""The ledger of an audit: which of its units are done. One process writes it, the one that gives the work out.

A unit is done when its file is whole and its row is here. The file is written first, under another name, synced and
renamed; then the row is committed. A process that is killed between the two leaves a file without a row, which the next
one writes again. SQLite keeps a rollback journal rather than a log beside the table, which shared folders can bear too:
there is one writer and there are few rows, so that nothing is gained by another.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torch import Tensor

from signstep.auditing.checksums import LEDGER
from signstep.auditing.parts import stated
from signstep.auditing.result import Result
from signstep.errors import InputError, LoadError
from signstep.io.documents import json_value
from signstep.io.files import WriteError, write_whole
from signstep.io.folders import sweep
from signstep.io.locks import alone_in
from signstep.io.sqlite_files import refuse_led_away
from signstep.messages import Arg
from signstep.scale.differences import differences
from signstep.scale.unit_files import content_if_whole, sha256, unpacked

FOLDER, TABLE, UNITS = LEDGER, "ledger.sqlite", "units"
VERSION = 1
_APPLICATION = 0x5367_4C64
_SCHEMA = {
    "audit": "CREATE TABLE audit(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "units": "CREATE TABLE units(start INTEGER PRIMARY KEY, stop INTEGER NOT NULL, digest TEXT NOT NULL, "
    "sha256 TEXT NOT NULL, points INTEGER NOT NULL, machine TEXT NOT NULL, seconds REAL NOT NULL)",
}
_MOST_ROWS, _LONGEST = 10_000_000, 2**20


@dataclass(frozen=True)
class Done:
    """A unit that was done.

    Attributes:
        start: the place of its first example.
        stop: behind the last one.
        digest: SHA-256 of its rows of the data.
        content: of its file.
        points: bytes of inputs among its points.
        machine: where it was done, see `signstep.scale.machines`.
        seconds: that it took.
    """

    start: int
    stop: int
    digest: str
    content: bytes
    points: int
    machine: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Row:
    """The same as the ledger has it."""

    start: int
    stop: int
    digest: str
    sha256: str
    points: int
    machine: Mapping[str, Any]
    seconds: float


class Ledger:
    """What is done of an audit. Open one by `ledger`."""

    def __init__(self, folder: Path, table: sqlite3.Connection, said: Mapping[str, str], rows: Mapping[int, Row]):
        self.folder = folder
        self._table = table
        self._said = dict(said)
        self.rows = dict(rows)

    @property
    def batch(self) -> int:
        """Rows at a time, as the audit began with them."""
        return int(self._said["batch"])

    def book(self, done: Sequence[Done]) -> None:
        """Write files, then rows.

        Raises:
            LoadError: a disk is full, say; what was booked before stays.
        """
        fresh = [one for one in done if one.start not in self.rows]
        rows = []
        for one in fresh:
            write_whole(self._path(one.start), one.content)
            digest = sha256(one.content)
            rows.append(Row(one.start, one.stop, one.digest, digest, one.points, dict(one.machine), one.seconds))
        with self._writing():
            self._table.executemany(
                "INSERT OR REPLACE INTO units VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        *(row.start, row.stop, row.digest, row.sha256, row.points),
                        *(json.dumps(row.machine, sort_keys=True), row.seconds),
                    )
                    for row in rows
                ],
            )
        self.rows |= {row.start: row for row in rows}

    def read(self, start: int) -> tuple[Result, dict[str, Tensor], int]:
        """The record of a unit, its points, and how many were not kept.

        Raises:
            LoadError: its file is none, or of another unit.
        """
        row, path = self.rows[start], self._path(start)
        content = content_if_whole(path, row.sha256)
        if content is None:
            raise LoadError(f"{path} is damaged or gone", remedy="call again to do its unit anew")
        found = unpacked(content, path)
        shard = found[0].terms.get("shard")
        if found[0].partial or shard != stated(range(row.start, row.stop)) or found[0].examples != row.stop - row.start:
            raise LoadError(f"{path} is not of the unit that the ledger has it for", remedy="remove the ledger")
        return found

    def forget_damaged(self) -> int:
        """Take out the rows whose files are damaged or gone; how many there were."""
        lost = [start for start, row in self.rows.items() if content_if_whole(self._path(start), row.sha256) is None]
        with self._writing():
            self._table.executemany("DELETE FROM units WHERE start = ?", [(start,) for start in lost])
        for start in lost:
            del self.rows[start]
        return len(lost)

    def complete(self) -> None:
        """Say that nothing is missing."""
        with self._writing():
            self._table.execute("INSERT OR REPLACE INTO audit VALUES ('complete', 'yes')")

    def _path(self, start: int) -> Path:
        return self.folder / UNITS / f"{start:010d}.safetensors"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._table:
                self._table.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.Error as error:
            raise LoadError(
                f"the ledger {self.folder / TABLE} cannot be written ({error})",
                remedy="make room there, and go on with resume",
            ) from error


@contextmanager
def ledger(out: Path, terms: Mapping[str, str], *, batch: int, unit: int, resume: bool) -> Iterator[Ledger]:
    """The ledger of an audit in its output folder, for the ``with`` block; nobody else has it meanwhile.

    Args:
        out: the output folder; it is made where it is not there.
        terms: of the audit, by name.
        batch: rows at a time, of an audit that begins.
        unit: rows of a unit.
        resume: go on with what is there.

    Raises:
        InputError: another run is at it, or what is there is of another audit, or unfinished and not to go on with.
        LoadError: what is there is no ledger, or it cannot be written.
    """
    folder = out / FOLDER
    for inner in (folder, folder / UNITS):  # the folder itself is the caller's, what is in it may be anybody's
        if inner.is_symlink():
            raise LoadError(f"{inner} is a link, and no folder of a ledger", remedy="pass another folder")
    with ExitStack() as held:
        held.enter_context(_tidy(folder))
        try:
            (folder / UNITS).mkdir(parents=True, exist_ok=True)
            alone = held.enter_context(alone_in(folder))
        except OSError as error:
            raise WriteError(folder, error) from error
        if not alone:
            raise InputError(
                Arg("out", out), "is being written by another run", remedy="wait for its end, or pass another folder"
            )
        sweep(folder / UNITS)
        path = folder / TABLE
        if (path.is_symlink() or path.exists()) and not resume:
            _clear(path)
        table = held.enter_context(_opened(path))
        if _is_empty(table):  # new, or its beginning was undone when a process was killed
            _begin(table, terms, batch)
        said = _checked(table, path)
        _refuse_other(json_value(said["terms"], f"the ledger {path}"), terms, out)
        yield Ledger(folder, table, said, _rows(table, path, unit))


@contextmanager
def _tidy(folder: Path) -> Iterator[None]:
    """After an error put away what was made and not filled, by which nobody could tell whose the output folder is."""
    try:
        yield
    except BaseException:
        for made in (folder / UNITS, folder):
            with suppress(OSError):  # it is filled, or was not made
                made.rmdir()
        raise


def _clear(path: Path) -> None:
    """Remove a ledger whose audit ended, and its files.

    Raises:
        InputError: its audit did not end.
    """
    with _opened(path) as table:
        if _is_empty(table):
            return
        said, rows = _checked(table, path), _rows(table, path, None)
    if rows and said.get("complete") != "yes":
        raise InputError(
            Arg("out", path.parent.parent),
            f"holds {len(rows)} units of an audit that did not end",
            remedy=("pass", Arg("resume", True), "to go on, or another folder"),
        )
    try:
        for start in rows:
            (path.parent / UNITS / f"{start:010d}.safetensors").unlink(missing_ok=True)
        path.unlink()
    except OSError as error:
        raise WriteError(path, error) from error


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A table, new or there, which anybody may have written: nothing in it is run.

    Raises:
        LoadError: it cannot be opened, or what is in it is damaged.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise LoadError(f"the ledger {path} is no plain file", remedy="pass another folder")
    refuse_led_away(path)
    table: sqlite3.Connection | None = None
    try:
        table = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=rwc", uri=True, isolation_level=None)
        table.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        for text in ("trusted_schema = OFF", "cell_size_check = ON", "journal_mode = DELETE", "synchronous = FULL"):
            table.execute(f"PRAGMA {text}")
        yield table
    except sqlite3.Error as error:
        raise LoadError(f"the ledger {path} cannot be used ({error})", remedy="pass another folder") from error
    finally:
        if table is not None:
            table.close()


def _is_empty(table: sqlite3.Connection) -> bool:
    identity = [table.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    return identity == [0, 0] and table.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def _begin(table: sqlite3.Connection, terms: Mapping[str, str], batch: int) -> None:
    """An audit of which nothing is done: all at once, or not at all."""
    with table:
        table.execute("BEGIN IMMEDIATE")
        table.execute(f"PRAGMA application_id = {_APPLICATION}")
        table.execute(f"PRAGMA user_version = {VERSION}")
        for text in _SCHEMA.values():
            table.execute(text)
        rows = {"terms": json.dumps(dict(terms), ensure_ascii=True), "batch": str(batch)}
        table.executemany("INSERT INTO audit VALUES (?, ?)", list(rows.items()))


def _checked(table: sqlite3.Connection, path: Path) -> dict[str, str]:
    """What a ledger says of its audit.

    Raises:
        LoadError: it is no ledger, or one of another version.
    """
    application = table.execute("PRAGMA application_id").fetchone()[0]
    version = table.execute("PRAGMA user_version").fetchone()[0]
    if application != _APPLICATION:
        raise LoadError(f"{path} is no ledger of an audit", remedy="pass another folder")
    if version != VERSION:
        raise LoadError(
            f"the ledger {path} has version {version}, this version of signstep reads {VERSION}",
            remedy="go on with the version that wrote it, or pass another folder",
        )
    found = table.execute("SELECT name, sql FROM sqlite_master LIMIT 9").fetchall()
    if dict(found) != _SCHEMA or len(found) != len(_SCHEMA):
        raise LoadError(f"the ledger {path} has other tables than a ledger", remedy="pass another folder")
    rows = table.execute("SELECT name, value FROM audit LIMIT 9").fetchall()
    said = {name: value for name, value in rows if isinstance(name, str) and isinstance(value, str)}
    if len(said) != len(rows) or not {"terms", "batch"} <= set(said) or not said["batch"].isdecimal():
        raise LoadError(f"the ledger {path} does not say of which audit it is", remedy="pass another folder")
    if not 0 < len(said["batch"]) <= 9 or int(said["batch"]) < 1:
        raise LoadError(f"the ledger {path} has batches of {said['batch'][:20]} rows", remedy="pass another folder")
    return said


def _rows(table: sqlite3.Connection, path: Path, unit: int | None) -> dict[int, Row]:
    """The rows of the units.

    Raises:
        LoadError: one is none.
    """
    found: dict[int, Row] = {}
    for row in table.execute(f"SELECT * FROM units ORDER BY start LIMIT {_MOST_ROWS}"):
        start, stop, digest, content, points, machine, seconds = row
        fine = [type(part) for part in row] == [int, int, str, str, int, str, float]
        fine = fine and 0 <= start < stop and len(digest) <= 64 and len(content) <= 64
        fine = fine and (unit is None or (start % unit == 0 and stop - start <= unit))
        if not fine:
            raise LoadError(f"the ledger {path} has a row that is none of a unit", remedy="pass another folder")
        where = json_value(machine, f"the ledger {path}", 2**12)
        found[start] = Row(start, stop, digest, content, points, where if isinstance(where, dict) else {}, seconds)
    return found


def _refuse_other(there: object, terms: Mapping[str, str], out: Path) -> None:
    """See that a ledger is of this audit.

    Raises:
        InputError: it is not; the terms that differ are named.
    """
    said = differences(there if isinstance(there, dict) else {}, terms)
    if said:
        raise InputError(
            Arg("out", out),
            f"holds units of an audit with other terms ({said})",
            remedy="pass what that audit was given, or another folder",
        )
