"""The memory of the guard: decisions, alarms and keys in SQLite or PostgreSQL, by SQLAlchemy.

A decision is handed to one writer, which puts what has come meanwhile into one transaction (group commit) and tells
each that it is stored after the commit. Answers leave after that: what was answered is in the store, whatever kills the
process. SQLite runs with a write-ahead log and ``synchronous=FULL``, so that this holds for a power cut too.

Where the store fails (a full disk, a server that is gone) decisions go on and are not stored; the writer says so,
counts what is lost, and tries again with the next decision after a second.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.guard.rows import Alarmed, Decided
from signstep.guard.tables import Tables, made_tables
from signstep.io.sqlite_files import refuse_led_away
from signstep.messages import Arg

if TYPE_CHECKING:
    from sqlalchemy import Engine

_WAITING = 20_000  # decisions that may wait to be stored
_GROUP = 1000  # decisions of one transaction
_AGAIN = 1.0  # seconds from a failure to the next attempt
_PRUNED = 2000  # decisions from one look at retention to the next


@dataclass(frozen=True)
class Keep:
    """How much is kept, the oldest dropped first.

    Attributes:
        days: of decisions and alarms.
        rows: decisions.
        inputs: whose inputs are kept: "flagged" for those that were not simply accepted, "all", or "none", which keeps
            their keyed fingerprints alone.
        inputs_mb: of inputs.
        store_mb: of the whole store, for SQLite; what does not fit is not stored, as on a full disk. None for no bound.
    """

    days: float = 90.0
    rows: int = 1_000_000
    inputs: str = "flagged"
    inputs_mb: float = 1024.0
    store_mb: float | None = None

    def __post_init__(self) -> None:
        if self.inputs not in ("flagged", "all", "none"):
            raise InputError(Arg("inputs", self.inputs), remedy="pass flagged, all or none")
        for name in ("days", "rows", "inputs_mb"):
            if not getattr(self, name) > 0:
                raise InputError(Arg(name, getattr(self, name)), remedy="pass a number above 0")
        if self.store_mb is not None and not self.store_mb >= 1:
            raise InputError(Arg("store_mb", self.store_mb), remedy="pass at least 1")


def begun() -> "Future[bool]":
    """A future that whoever gives up waiting for it cannot cancel: the writer sets it all the same."""
    made: Future[bool] = Future()
    made.set_running_or_notify_cancel()
    return made


@dataclass
class _Waiting:
    decided: Decided | None
    alarms: Sequence[Alarmed]
    done: "Future[bool]" = field(default_factory=begun)


class Store:
    """The store behind a URL such as ``sqlite:///guard.db`` or ``postgresql://user@host/name``.

    Args:
        url: of SQLAlchemy.
        keep: how much is kept.
        said: is told when storing stops and when it goes on again.

    Attributes:
        failing: why nothing is stored now, or None.
        lost: decisions that were not stored.

    Raises:
        MissingExtraError: the extra guard is not installed.
        InputError: the URL is none, or of another database.
        LoadError: the store cannot be opened.
    """

    def __init__(self, url: str, keep: Keep | None = None, *, said: Callable[[str], None] | None = None) -> None:
        self.keep, self._said = keep or Keep(), said or (lambda _: None)
        self._engine = _engine(url, self.keep)
        self._tables = made_tables()
        self.failing: str | None = None
        self.lost = 0
        self._since_pruned, self._tried, self._full = 0, 0.0, False
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(_WAITING)
        try:
            self._tables.make(self._engine)
        except Exception as error:  # of any driver
            self._engine.dispose()
            raise LoadError(
                f"the store cannot be opened ({why(error)})", remedy="check its address, and who may write there"
            ) from error
        self._writer = threading.Thread(target=self._write, name="signstep-guard-store", daemon=True)
        self._writer.start()

    @property
    def tables(self) -> Tables:
        """The tables."""
        return self._tables

    @property
    def engine(self) -> "Engine":
        """What connects."""
        return self._engine

    def append(self, decided: Decided | None, alarms: Sequence[Alarmed] = ()) -> "Future[bool]":
        """Hand over a decision with its alarms; the future is done after the commit, and says whether it is stored."""
        waiting = _Waiting(decided, alarms)
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            if not self._full:
                self._said("decisions are not being stored: they come faster than the store takes them")
            self._full = True
            self._lose([waiting])
        return waiting.done

    def close(self) -> None:
        """Store what waits, and leave."""
        if self._writer.is_alive():
            self._queue.put(None)
            self._writer.join()
        self._engine.dispose()

    def _write(self) -> None:
        ended = False
        while not ended:
            group: list[_Waiting] = []
            one = self._queue.get()
            while one is not None:
                group.append(one)
                if len(group) >= _GROUP:
                    break
                try:
                    one = self._queue.get_nowait()
                except queue.Empty:
                    break
            ended = one is None
            if group:
                self._commit(group)

    def _commit(self, group: list[_Waiting]) -> None:
        if self.failing is not None and time.monotonic() - self._tried < _AGAIN:
            self._lose(group)
            return
        try:
            with self._engine.begin() as connection:
                rows = [one.decided.plain() for one in group if one.decided is not None]
                alarms = [alarm.plain() for one in group for alarm in one.alarms]
                if rows:
                    connection.execute(self._tables.decisions.insert(), rows)
                if alarms:
                    connection.execute(self._tables.alarms.insert(), alarms)
        except Exception as error:  # of any driver: what was to be answered is answered
            self._failed(why(error), group)
            return
        for one in group:
            one.done.set_result(True)
        if self.failing is not None:
            self.failing = None
            self._said(f"decisions are stored again; {self.lost} were not")
        self._full = False
        self._since_pruned += len(group)
        if self._since_pruned >= _PRUNED:
            self._since_pruned = 0
            with suppress(Exception):  # the next time
                self.prune(time.time())

    def _failed(self, reason: str, group: Sequence[_Waiting]) -> None:
        self._tried = time.monotonic()
        if self.failing is None:
            self._said(f"decisions are not being stored: {reason}")
        self.failing = reason
        self._lose(group)

    def _lose(self, group: Sequence[_Waiting]) -> None:
        self.lost += sum(one.decided is not None for one in group)
        for one in group:
            one.done.set_result(False)

    def prune(self, now: float) -> int:
        """Drop what is kept no longer; how many decisions went."""
        with self._engine.begin() as connection:
            return self._tables.prune(
                connection, now - self.keep.days * 86_400, self.keep.rows, int(self.keep.inputs_mb * 2**20)
            )

    def read(self, statement: Any) -> list[dict[str, Any]]:
        """The rows of a statement.

        Raises:
            LoadError: the store does not answer, or holds what its columns have no place for: SQLite keeps in each
                whatever somebody else wrote there.
        """
        try:
            with self._engine.connect() as connection:
                rows = [dict(row) for row in connection.execute(statement).mappings()]
        except Exception as error:
            raise LoadError(f"the store cannot be read ({why(error)})", remedy="see that it is there") from error
        for name, kinds in _kinds(statement).items():
            if not all(row[name] is None or isinstance(row[name], kinds) for row in rows):
                raise LoadError(
                    f"the store cannot be read (a value of {name} is of another type)",
                    remedy="see who else writes to it",
                )
        return rows

    def change(self, statement: Any, values: Mapping[str, Any] | None = None) -> int:
        """Carry out a statement by itself; how many rows it changed.

        Raises:
            LoadError: the store does not take it.
        """
        try:
            with self._engine.begin() as connection:
                return int(connection.execute(statement, values or {}).rowcount)
        except Exception as error:
            raise LoadError(f"the store cannot be written ({why(error)})", remedy="see that it is there") from error


def _kinds(statement: Any) -> dict[str, tuple[type, ...]]:
    """By the name of a column of a table that a statement asks for, the types of its values."""
    from sqlalchemy import Column

    columns = [column for column in statement.selected_columns if isinstance(column, Column)]
    kinds = {column.name: column.type.python_type for column in columns}
    return {name: (int, float) if kind is float else (kind,) for name, kind in kinds.items()}


def why(error: BaseException) -> str:
    """What a driver says, on one line and without what it was asked, which may hold inputs and passwords."""
    inner = getattr(error, "orig", None) or error
    return " ".join(str(inner).split())[:200] or type(inner).__name__


def _engine(url: str, keep: Keep) -> "Engine":
    try:
        import sqlalchemy
        from sqlalchemy import event
    except ImportError as error:
        raise MissingExtraError("sqlalchemy", "guard") from error
    try:
        parsed = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError as error:
        raise InputError(
            Arg("store"), "is no address of a database", remedy="pass sqlite:///guard.db, or postgresql://..."
        ) from error
    kind = parsed.get_backend_name()
    if kind == "postgresql":
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        return sqlalchemy.create_engine(parsed, pool_pre_ping=True, hide_parameters=True)
    if kind != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise InputError(
            Arg("store", parsed.render_as_string(hide_password=True)),
            "is kept nowhere that outlives the process" if kind == "sqlite" else "is of another database",
            remedy="pass sqlite:///guard.db, or postgresql://...",
        )
    refuse_led_away(Path(parsed.database.removeprefix("file:").partition("?")[0]))
    engine = sqlalchemy.create_engine(parsed, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _opened(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for words in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "trusted_schema=OFF"):
            cursor.execute(f"PRAGMA {words}")
        if keep.store_mb is not None:
            size = cursor.execute("PRAGMA page_size").fetchone()[0]
            cursor.execute(f"PRAGMA max_page_count={int(keep.store_mb * 2**20 // size)}")
        cursor.close()

    return engine
