"""The store of a guard as an enemy may have written it: SQLite keeps in each column whatever was written there."""

import io
import itertools
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from signstep.errors import SignstepError
from signstep.guard.facts import gathered
from signstep.guard.reading import alarm_line, export, line, logged
from signstep.guard.rows import Alarmed, Decided, packed, unpacked
from signstep.guard.store import Store

pytest.importorskip("sqlalchemy")
EVIL: list[Any] = [
    *("\x1b[2J\n<script>", b"\xff\xfe", 1.5, -1, 2**62, 1e308, "x" * 100_000, ""),
    *("[[1]]", '[["a", "b", "c"]]', "{}", "null", "[" * 5000, "[[1, 2]]"),
]
COLUMNS = {
    "guard_decisions": [
        *("at", "client", "label", "name", "confidence", "p_value", "reasons", "input"),
        *("reviewed", "decided", "flagged"),
    ],
    "guard_alarms": ["at", "text", "kind"],
    "guard_notes": ["value"],
}


def npy(header: str, body: bytes = b"") -> bytes:
    """An input whose header says that."""
    said = header.encode()
    return zlib.compress(b"\x93NUMPY\x01\x00" + len(said).to_bytes(2, "little") + said + body)


def saved(array: Any, **more: Any) -> bytes:
    held = io.BytesIO()
    np.save(held, array, **more)
    return zlib.compress(held.getvalue())


INPUTS = {
    "terabytes": npy("{'descr':'<f4','fortran_order':False,'shape':(1000000000000,)}\n"),
    "beyond counting": npy("{'descr':'<f4','fortran_order':False,'shape':(10000000000000000000000,)}\n"),
    "below nothing": npy("{'descr':'<f4','fortran_order':False,'shape':(-1, -1)}\n", b"\0" * 4),
    "truths for numbers": npy("{'descr':'<f4','fortran_order':False,'shape':(True,)}\n", b"\0" * 8),
    "objects": saved(np.array([object]), allow_pickle=True),
    "texts": saved(np.full((1, 4, 4), "x")),
    "complex": saved(np.full((1, 4, 4), 1j)),
    "times": saved(np.zeros((1, 3, 3), "M8[s]")),
    "records": saved(np.zeros((1, 2, 2), [("a", "f4")])),
    "more behind": zlib.compress(zlib.decompress(packed(np.zeros(3))) + b"more"),
    "nothing": zlib.compress(b""),
    "no zlib": b"junk",
}


@pytest.mark.parametrize("name", sorted(INPUTS))
def test_an_input_claims_no_more_than_there_is(name: str) -> None:
    with pytest.raises(SignstepError, match="a stored input cannot be read"):
        unpacked(INPUTS[name])
    for x in (np.zeros((1, 4, 4), np.float32), np.zeros((2, 0, 3), np.float64), np.ones((3,), np.int64)):
        assert np.array_equal(unpacked(packed(x)), x)


def readers(store: Store, place: Path) -> Iterator[Callable[[], Any]]:
    """Whatever people ask of it."""
    yield lambda: [line(Decided.of(row)) for row in store.read(store.tables.log())]
    yield lambda: json.dumps(logged([Decided.of(row) for row in store.read(store.tables.log())]))
    yield lambda: [alarm_line(row) for row in store.read(store.tables.alarm_log())]
    yield lambda: store.read(store.tables.clients())
    yield lambda: export(store, place)
    yield lambda: gathered(store)


def test_whatever_stands_in_a_column_is_shown_or_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "guard.db"
    store = Store(f"sqlite:///{path}")
    one = Decided(
        "a1", 1.0, "ip 203.0.113.9", "accept", "accept", 1, "cat", 0.9, 0.5,
        input=packed(np.zeros((1, 4, 4), np.float32)), queue="done", reviewed=1, reviewer="key a",
    )  # fmt: skip
    assert store.append(one, [Alarmed(1.0, "walk", "ip 203.0.113.9", "steps", "a1")]).result()
    store.change(store.tables.notes.insert().values(name="service", value="{}"))
    sound = [read() for read in readers(store, tmp_path / "out.npz")][:-1]
    assert "accept" in sound[0][0]
    refused = 0
    enemy = sqlite3.connect(path)
    for table, names in COLUMNS.items():
        for name, value in itertools.product(names, EVIL):
            (before,) = enemy.execute(f"SELECT {name} FROM {table}").fetchone()
            enemy.execute(f"UPDATE {table} SET {name} = ?", (value,))
            enemy.commit()
            for read in readers(store, tmp_path / "out.npz"):
                try:
                    read()
                except SignstepError as error:
                    refused += 1
                    assert str(error).isprintable(), (table, name, value)  # noqa: PT017 - many of them
                except Exception as error:
                    raise AssertionError((table, name, str(value)[:40])) from error
            enemy.execute(f"UPDATE {table} SET {name} = ?", (before,))
            enemy.commit()
    enemy.close()
    assert refused > 100
    assert [read() for read in readers(store, tmp_path / "out.npz")][:-1] == sound
    store.close()
