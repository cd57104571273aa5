"""Where a process can be killed between two writes: hooks at each, which end the process there.

SQLite's own calls of the system are hooked inside of its library (``xSetSystemCall`` of its VFS, which is there for
tests: sqlite.org/c3ref/vfs.html), so that a life can end before, halfway through, or after the n-th write, truncation
or deletion of a file. The boundaries of our own code and of the server are hooked by name.
"""

import asyncio.selector_events
import ctypes
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from sqlalchemy import event
from sqlalchemy.engine import Engine

from signstep.guard.store import Store

POSITIONS = ("before", "half of it", "after")


def die() -> NoReturn:
    """End this process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


@dataclass
class At:
    """A moment at which a process ends.

    Attributes:
        number: of the write, from 1 on; 0 for none.
        position: one of `POSITIONS`.
        seen: writes so far.
    """

    number: int
    position: str = "before"
    seen: int = 0

    def passed(self, whole: Callable[[], int], half: Callable[[], object]) -> int:
        """Do one write, or die at it."""
        self.seen += 1
        if self.seen != self.number:
            return whole()
        if self.position == "half of it":
            half()
        elif self.position == "after":
            whole()
        die()


class _Vfs(ctypes.Structure):
    pass


_SET = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Vfs), ctypes.c_char_p, ctypes.c_void_p)
_GET = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Vfs), ctypes.c_char_p)
_Vfs._fields_ = [
    *((name, ctypes.c_int) for name in ("version", "file_size", "longest")),
    *((name, ctypes.c_void_p) for name in ("next", "name", "data")),
    *((f"method{number}", ctypes.c_void_p) for number in range(13)),
    ("set_call", _SET),
    ("get_call", _GET),
]
_WRITE = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_PWRITE = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_UNLINK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p)
_KEPT: list[Any] = []  # as long as the library may call them


def hook_sqlite(at: At) -> int:
    """Let each write of SQLite in this process pass by ``at``; how many kinds of calls were hooked, 0 for none."""
    import _sqlite3

    library = ctypes.CDLL(_sqlite3.__file__)
    find = getattr(library, "sqlite3_vfs_find", None)
    if find is None:  # a Python that hides the library within itself
        return 0
    find.restype = ctypes.POINTER(_Vfs)
    vfs = find(None)
    hooked = 0
    for name, kind in (
        ("write", _WRITE), ("pwrite", _PWRITE), ("pwrite64", _PWRITE), ("ftruncate", _TRUNCATE), ("unlink", _UNLINK),
    ):  # fmt: skip
        address = vfs.contents.get_call(vfs, name.encode())
        if not address:
            continue
        hook = kind(_passing(at, kind(address), halves=kind in (_WRITE, _PWRITE)))
        _KEPT.append(hook)
        vfs.contents.set_call(vfs, name.encode(), ctypes.cast(hook, ctypes.c_void_p))
        hooked += 1
    return hooked


def _passing(at: At, original: Callable[..., int], *, halves: bool) -> Callable[..., int]:
    def call(*given: Any) -> int:
        def half() -> None:
            if halves:
                file, content, size, *offset = given
                original(file, content, size // 2, *offset)

        return at.passed(lambda: original(*given), half)

    return call


def often_checkpointed() -> None:
    """Let SQLite carry the log into the database after every few pages, in this process."""

    @event.listens_for(Engine, "connect")
    def _opened(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA wal_autocheckpoint=8")


def _around(at: At, owner: Any, name: str) -> None:
    original = getattr(owner, name)

    def call(*given: Any, **more: Any) -> Any:
        found: list[Any] = []

        def whole() -> int:
            found.append(original(*given, **more))
            return 0

        at.passed(whole, lambda: None)
        return found[0]

    setattr(owner, name, call)


def _leaving(at: At) -> None:
    transport = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
    original = transport.write

    def write(self: Any, content: bytes) -> None:
        def whole() -> int:
            original(self, content)
            return 0

        at.passed(whole, lambda: original(self, content[: len(content) // 2]))

    transport.write = write


def _event(at: At, name: str) -> None:
    @event.listens_for(Engine, name)
    def _reached(*_: Any) -> None:
        at.passed(lambda: 0, lambda: None)


OURS: dict[str, Callable[[At], None]] = {
    "a decision is handed to the store": lambda at: _around(at, Store, "append"),
    "a group is committed": lambda at: _around(at, Store, "_commit"),
    "its transaction begins": lambda at: _event(at, "begin"),
    "its rows are written": lambda at: _event(at, "after_cursor_execute"),
    "its transaction ends": lambda at: _event(at, "commit"),
    "a part of an answer leaves": _leaving,
}
"""Boundaries of our own, by what happens there: each puts its hook in this process."""
