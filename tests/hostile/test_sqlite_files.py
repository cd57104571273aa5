"""A table of SQLite that an enemy made costs nobody a file beside it or elsewhere."""

import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from signstep.errors import LoadError
from signstep.guard.store import Store
from signstep.scale.ledger import ledger

_MAGIC = bytes.fromhex("d9d505f920a163d7")
_PRECIOUS = b"\0precious"  # a file that begins so SQLite takes for no hot journal, and writes into
TERMS = {"model": "net"}


def table(folder: Path) -> Path:
    """A ledger, as it stands when nothing is done."""
    with ledger(folder, TERMS, batch=2, unit=4, resume=False):
        pass
    return folder / "ledger" / "ledger.sqlite"


def store(folder: Path) -> Path:
    """The store of a guard."""
    Store(f"sqlite:///{folder / 'guard.db'}").close()
    return folder / "guard.db"


def reopen_table(path: Path) -> None:
    """Go on with it."""
    with ledger(path.parent.parent, TERMS, batch=2, unit=4, resume=True) as opened:
        opened.complete()


def anew(path: Path) -> None:
    """Begin another in its place."""
    with ledger(path.parent.parent, TERMS, batch=2, unit=4, resume=False) as opened:
        opened.complete()


def reopen_store(path: Path) -> None:
    """Open it, and write."""
    held = Store(f"sqlite:///{path}")
    try:
        held.change(held.tables.notes.insert().values(name="a", value="b"))
    finally:
        held.close()


def super_journal(path: Path, victim: Path) -> None:
    """A hot journal that names the victim as its super-journal."""
    size = path.read_bytes()[16:18]
    page = int.from_bytes(size, "big")
    head = _MAGIC + struct.pack(">IIIII", 0, 7, path.stat().st_size // page, 512, page)
    name = str(victim).encode()
    tail = struct.pack(">I", 0x40000000 // page + 1) + name + struct.pack(">II", len(name), sum(name)) + _MAGIC
    path.with_name(path.name + "-journal").write_bytes(head.ljust(512, b"\0") + tail)


def linked(end: str) -> Callable[[Path, Path], None]:
    """A link to the victim in the place of a journal or a log."""
    return lambda path, victim: path.with_name(path.name + end).symlink_to(victim)


TRAPS = {"a super-journal": super_journal, **{f"a linked {end}": linked(end) for end in ("-journal", "-wal", "-shm")}}
OPENED = {"ledger": (table, reopen_table), "a new ledger": (table, anew), "store": (store, reopen_store)}


@pytest.mark.parametrize("trap", sorted(TRAPS))
@pytest.mark.parametrize("what", sorted(OPENED))
def test_nothing_beside_a_table_leads_to_another_file(what: str, trap: str, tmp_path: Path) -> None:
    if what == "store":
        pytest.importorskip("sqlalchemy")
    make, again = OPENED[what]
    path = make(tmp_path)
    victim = tmp_path / "victim"
    victim.write_bytes(_PRECIOUS)
    TRAPS[trap](path, victim)
    with pytest.raises(LoadError, match=r"names a file of another place|is no plain file") as raised:
        again(path)
    assert "\n" not in str(raised.value)
    assert victim.read_bytes() == _PRECIOUS


def test_sqlite_itself_would_remove_the_file(tmp_path: Path) -> None:
    """What the look is for: the trap is one."""
    path, victim = table(tmp_path), tmp_path / "victim"
    victim.write_bytes(_PRECIOUS)
    super_journal(path, victim)
    opened = sqlite3.connect(path)
    opened.execute("SELECT count(*) FROM audit").fetchone()
    opened.close()
    assert not victim.exists()


def test_an_honest_journal_is_rolled_back(tmp_path: Path) -> None:
    """A process that was killed amid a transaction leaves a journal, with which the next one goes on."""
    path = table(tmp_path)
    opened = sqlite3.connect(path, isolation_level=None)
    opened.execute("PRAGMA cache_size = 1")
    opened.execute("PRAGMA cache_spill = 1")
    opened.execute("BEGIN IMMEDIATE")
    rows = [(k, k + 1, "d" * 64, "s" * 64, 0, "{}", 0.5) for k in range(2000)]
    opened.executemany("INSERT INTO units VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    killed = tmp_path / "killed"
    shutil.copytree(path.parent, killed / "ledger")
    opened.rollback()
    opened.close()
    assert (killed / "ledger" / "ledger.sqlite-journal").stat().st_size > 512
    with ledger(killed, TERMS, batch=2, unit=4, resume=True) as found:
        assert found.rows == {}
