"""An audit in units gives the record of one audit, whatever befalls it on the way."""

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from unitnets import Faulty, RowNet

import signstep as ss
from flat import flat
from own_process import FORKED, called
from signstep.auditing.evidence import Evidence
from signstep.auditing.recount import recount
from signstep.auditing.result import Result
from signstep.auditing.stated_terms import claims
from signstep.errors import InputError, LoadError, SignstepError
from signstep.io.locks import alone_in
from signstep.scale import Pool, digest
from signstep.scale import ledger as ledgers
from signstep.scale.executors import Alone
from signstep.scale.unit_files import sha256
from signstep.scale.work import Task

ROWS, UNIT = 23, 4


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        y = RowNet()(x).argmax(1)
    y[:4] = (y[:4] - 1) % 4
    return x, y


THREAT = ss.linf(0.15, box=None)
WAYS: dict[str, dict[str, Any]] = {
    "attacks": {"attacks": ["random-sign", "fgsm", "pgd:steps=3", "fmn:steps=5"], "curve_attacks": ["random-sign"]},
    "ladder": {"ladder": ["fgsm", "fmn:steps=5", "square:queries=10 near<=0.9", "pgd:steps=3"]},
    "targeted": {"attacks": ["fgsm", "pgd:steps=3"], "target": "next", "curve": False, "limit": 21},
    "others": {"ladder": ["fgsm", "pgd:steps=3"], "transfer_to": {"b": RowNet(1), "c": RowNet(2)}},
    "a radius each": {
        "attacks": ["fgsm"],
        "threat": ss.linf(torch.linspace(0.05, 0.4, ROWS, dtype=torch.float64), box=None),
    },
}
FEW = {"attacks": ["fgsm", "pgd:steps=3"]}


def audited(way: dict[str, Any], given: Any = None, model: Any = None, **more: Any) -> Result:
    net, options = flat(model or RowNet(), {"threat": THREAT, **way, **more})
    return ss.audit(net, given or data(), **options)


def plain(result: Result) -> Result:
    """Without what is said of the units, and of the time."""
    terms = {name: value for name, value in result.terms.items() if name != "units"}
    entries = tuple(replace(entry, seconds=0.0) for entry in result.attacks)
    return replace(result, seconds=0.0, terms=terms, attacks=entries)


@pytest.mark.parametrize("way", sorted(WAYS))
def test_units_joined_are_the_audit_of_all(way: str) -> None:
    kept, all_kept = Evidence(), Evidence()
    whole = audited(WAYS[way], evidence=all_kept)
    for unit, batches in ((UNIT, False), (7, True), (64, False)):
        x, y = data()
        given = [(x[:9], y[:9]), (x[9:], y[9:])] if batches else None
        kept = Evidence()
        found = audited(WAYS[way], given, executor=Pool(0), unit=unit, evidence=kept)
        same = replace(whole, data=found.data)
        assert plain(found) == plain(same)
        assert recount(found).holds
        assert claims(found).holds
        assert found.terms["units"]["rows"] == unit
        assert Result.from_json(found.to_json()) == found
        order, wanted = kept.tensors()["row"].argsort(), all_kept.tensors()["row"].argsort()
        for name, part in all_kept.tensors().items():
            assert torch.equal(kept.tensors()[name][order], part[wanted])


def test_points_beyond_the_room_are_counted() -> None:
    full = Evidence()
    audited(FEW, evidence=full)
    for rows in (0, 3):
        limit = rows * 2 * 8 * 8
        one, several = Evidence(limit), Evidence(limit)
        audited(FEW, list(zip(*(torch.split(side, UNIT) for side in data()), strict=True)), evidence=one)
        audited(FEW, evidence=several, executor=Pool(0), unit=UNIT)
        assert (len(several), several.dropped) == (len(one), one.dropped) == (rows, len(full) - rows)
        assert several.rows() == one.rows()


# What is done stays done.


def switched(place: Path) -> Faulty:
    """A model that cannot take row 13 as long as a file is there."""
    place.touch()
    return Faulty((float(data()[0][13, 0]),), 0, str(place))


def test_an_error_of_the_model_names_the_example_and_what_was_done_stays(tmp_path: Path) -> None:
    model, out = switched(tmp_path / "broken"), tmp_path / "out"
    whole = audited(FEW, executor=Pool(0), unit=UNIT)
    seen: list[int] = []
    with pytest.raises(InputError, match=r"^example 13: the model raised ValueError.*such a row") as raised:
        audited(FEW, model=model, executor=Pool(0), unit=UNIT, out=out, progress=seen.append)
    assert isinstance(raised.value.__cause__, ValueError)
    assert seen[:4] == [0, 4, 8, 12]
    (tmp_path / "broken").unlink()
    with pytest.raises(InputError, match="holds 3 units of an audit that did not end; pass resume=True"):
        audited(FEW, model=model, executor=Pool(0), unit=UNIT, out=out)
    seen.clear()
    found = audited(FEW, model=model, executor=Pool(0), unit=UNIT, out=out, resume=True, progress=seen.append)
    assert seen[0] == 12, "three units were done before"
    assert digest(replace(found, model=whole.model)) == digest(whole)
    # All is there: nothing is asked of the model again.
    (tmp_path / "broken").touch()
    assert digest(audited(FEW, model=model, executor=Pool(0), unit=UNIT, out=out, resume=True)) == digest(found)
    # What ended is begun anew where nobody says resume.
    with pytest.raises(InputError, match=r"^example 13"):
        audited(FEW, model=model, executor=Pool(0), unit=UNIT, out=out)


def begun(out: Path, way: dict[str, Any] | None = None, given: Any = None, **more: Any) -> Result:
    return audited(way or FEW, given, executor=Pool(0), out=out, **{"unit": UNIT, **more})


def other_rows(row: int) -> tuple[Tensor, Tensor]:
    x, y = data()
    x[row] += 0.01
    return x, y


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "threat": ({"threat": ss.linf(0.2, box=None)}, r"terms \(threat.eps: 0.15 there, 0.2 here; threat.label: "),
    "seed": ({"seed": 1}, r"other terms \(seed: 0 there, 1 here\); pass what that audit was given, or another folder"),
    "attacks": ({"attacks": ["fgsm"]}, r"attacks: \[fgsm, pgd:steps=3\] there, \[fgsm\] here"),
    "ladder": ({"attacks": None, "ladder": ["fgsm", "pgd:steps=3"]}, "on a ladder: no there, yes here"),
    "weights": ({"model": RowNet(3)}, r"weights: [0-9a-f]{12}\.\.\. there, [0-9a-f]{12}\.\.\. here"),
    "unit": ({"unit": 8}, "unit: 4 there, 8 here"),
    "limit": ({"limit": 9}, "limit: none there, 9 here"),
    "data": ({"given": other_rows(5)}, "data has other examples 4 to 7 than when their unit was done"),
    "less data": ({"given": tuple(part[:22] for part in data())}, "data has other examples 20 to 22"),
}


@pytest.fixture(scope="module")
def whole_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    begun(out)
    return out


def copied(whole: Path, to: Path) -> Path:
    for path in whole.rglob("*"):
        if path.is_file():
            (to / path.relative_to(whole)).parent.mkdir(parents=True, exist_ok=True)
            (to / path.relative_to(whole)).write_bytes(path.read_bytes())
    return to


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_other_terms_are_refused_and_named(name: str, whole_ledger: Path, tmp_path: Path) -> None:
    more, said = OTHERS[name]
    out = copied(whole_ledger, tmp_path)
    with pytest.raises(InputError, match=said):
        begun(out, **{**FEW, **more}, resume=True)


def test_two_audits_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    with alone_in(tmp_path / "ledger"), pytest.raises(InputError, match="is being written by another run"):
        begun(tmp_path)
    begun(tmp_path)


def test_an_interruption_keeps_what_is_done(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    found = begun(tmp_path, progress=stop)
    whole = audited(FEW)
    assert (found.partial, found.examples) == (True, 12)
    assert "interrupted: 3 units of 4 examples are done; resume goes on with the rest" in found.notes
    assert found.per_example.clean == whole.per_example.clean[:12]
    assert recount(found).holds
    assert plain(begun(tmp_path, resume=True)) == plain(whole)
    with pytest.raises(KeyboardInterrupt):
        audited(FEW, executor=Pool(0), unit=UNIT, progress=lambda _: stop(12))


# Killed, full, damaged.


def killed(out: str, at: int, after: bool) -> None:
    """Begin an audit, and die at the n-th file or just behind it."""
    real, count = vars(ledgers)["write_whole"], 0

    def write(path: Path, content: bytes | str) -> None:
        nonlocal count
        count += 1
        if count == at and not after:
            os._exit(9)
        real(path, content)
        if count == at:
            os._exit(9)

    vars(ledgers)["write_whole"] = write
    begun(Path(out))


@pytest.mark.skipif(FORKED is None, reason="needs processes that are forked")
@pytest.mark.parametrize(("at", "after"), [(1, False), (3, True), (6, False)])
def test_a_killed_audit_loses_the_unit_it_was_at(at: int, after: bool, tmp_path: Path, whole_ledger: Path) -> None:
    process = called(killed, str(tmp_path), at, after)
    process.join(60)
    assert process.exitcode == 9
    seen: list[int] = []
    found = begun(tmp_path, resume=True, progress=seen.append)
    assert seen[0] == UNIT * (at - 1)
    assert digest(found) == digest(begun(copied(whole_ledger, tmp_path / "whole"), resume=True))
    assert starts(tmp_path) == list(range(0, ROWS, UNIT)), "no row twice, none missing"


def starts(out: Path) -> list[int]:
    with sqlite3.connect(out / "ledger" / "ledger.sqlite") as table:
        found = [row[0] for row in table.execute("SELECT start FROM units ORDER BY start")]
    table.close()
    return found


@pytest.mark.parametrize("at", range(1, 7))
def test_a_full_disk_ends_it_in_a_sentence(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(LoadError, match=r"cannot be written \(No space left on device\)"):
            begun(tmp_path)
    assert not list(tmp_path.rglob("*.part"))
    assert begun(tmp_path, resume=True).examples == ROWS


def test_a_full_disk_under_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ledgers._begin

    def small(table: sqlite3.Connection, *rest: Any) -> None:
        real(table, *rest)
        table.execute("PRAGMA max_page_count = 4")  # SQLite's own way to be told that there is no more room

    monkeypatch.setattr(ledgers, "_begin", small)
    with pytest.raises(LoadError, match=r"ledger.sqlite cannot be written \(database or disk is full\); make room"):
        begun(tmp_path, unit=1)
    done = starts(tmp_path)
    assert 0 < len(done) < ROWS
    seen: list[int] = []
    assert begun(tmp_path, unit=1, resume=True, progress=seen.append).examples == ROWS
    assert seen[0] == len(done)


def damaged(out: Path) -> None:
    path = out / "ledger" / "units" / "0000000008.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (out / "ledger" / "units" / "0000000012.safetensors").unlink()


def test_units_whose_files_are_damaged_are_done_anew(tmp_path: Path, whole_ledger: Path) -> None:
    out, seen = copied(whole_ledger, tmp_path), list[int]()
    damaged(out)
    found = begun(out, resume=True, progress=seen.append)
    assert seen[0] == ROWS - 2 * UNIT
    assert digest(found) == digest(begun(copied(whole_ledger, tmp_path / "whole"), resume=True))


# Written by an enemy.


def run(out: Path, *texts: str) -> None:
    table = sqlite3.connect(out / "ledger" / "ledger.sqlite")
    for text in texts:
        table.execute(text)
    table.commit()
    table.close()


def forged(change: Callable[[dict[str, Tensor]], None]) -> Callable[[Path], None]:
    """A unit's file with other contents, and its digest in the ledger."""

    def forge(out: Path) -> None:
        path = out / "ledger" / "units" / "0000000004.safetensors"
        parts = load_file(path)
        change(parts)
        save_file(parts, path)
        digest_ = sha256(path.read_bytes())
        run(out, f"UPDATE units SET sha256 = '{digest_}' WHERE start = 4")

    return forge


def text(new: bytes) -> Callable[[dict[str, Tensor]], None]:
    def change(parts: dict[str, Tensor]) -> None:
        old = parts["record"].numpy().tobytes()
        parts["record"] = torch.frombuffer(bytearray(new or old.replace(b"[4,8,1]", b"[0,4,1]")), dtype=torch.uint8)

    return change


def ledger_of(out: Path) -> Path:
    return out / "ledger" / "ledger.sqlite"


def linked(out: Path) -> None:
    ledger_of(out).rename(out / "moved")
    ledger_of(out).symlink_to(out / "moved")


def away(name: str) -> Callable[[Path], None]:
    """A folder of the ledger, elsewhere and linked to."""

    def lead(out: Path) -> None:
        path = out / "ledger" / name
        path.rename(out / "elsewhere")
        path.symlink_to(out / "elsewhere")

    return lead


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no table": (lambda out: ledger_of(out).write_bytes(b"0" * 5000), "file is not a database"),
    "another program's": (lambda out: run(out, "PRAGMA application_id = 7"), "is no ledger of an audit"),
    "another version": (
        lambda out: run(out, "PRAGMA user_version = 2"),
        "has version 2, this version of signstep reads",
    ),
    "a trigger": (
        lambda out: run(out, "CREATE TRIGGER t AFTER INSERT ON units BEGIN DELETE FROM units; END"),
        "has other tables than a ledger",
    ),
    "a view": (
        lambda out: run(out, "DROP TABLE units", "CREATE VIEW units AS SELECT 1 AS start"),
        "has other tables than a ledger",
    ),
    "a row of text": (
        lambda out: run(out, "UPDATE units SET points = 'many' WHERE start = 4"),
        "has a row that is none",
    ),
    "a row elsewhere": (lambda out: run(out, "UPDATE units SET start = 5 WHERE start = 4"), "has a row that is none"),
    "a machine too long": (
        lambda out: run(out, "UPDATE units SET machine = '" + "[" * 5000 + "' WHERE start = 4"),
        "over 4096",
    ),
    "no terms": (lambda out: run(out, "DELETE FROM audit"), "does not say of which audit it is"),
    "terms that nest": (
        lambda out: run(out, "UPDATE audit SET value = '" + "[" * 100 + "]" * 100 + "' WHERE name = 'terms'"),
        "nest",
    ),
    "batches of none": (
        lambda out: run(out, "UPDATE audit SET value = '0' WHERE name = 'batch'"),
        "has batches of 0 rows",
    ),
    "a link": (
        linked,
        "is no plain file",
    ),
    "a folder of units that leads away": (away("units"), "units is a link, and no folder of a ledger"),
    "a ledger that leads away": (away(""), "ledger is a link, and no folder of a ledger"),
    "a record that is none": (forged(text(b"{}")), "is no file of a unit"),
    "a record of another unit": (forged(text(b"")), "is not of the unit that the ledger has it for"),
    "no record": (forged(lambda parts: parts.pop("record")), "is no file of a unit"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_what_an_enemy_wrote_is_refused_in_a_sentence(name: str, whole_ledger: Path, tmp_path: Path) -> None:
    write, said = HOSTILE[name]
    out = copied(whole_ledger, tmp_path)
    write(out)
    with pytest.raises(SignstepError, match=said) as raised:
        begun(out, resume=True)
    assert "\n" not in str(raised.value)


# What makes no sense.


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"out": "somewhere"}, "out='somewhere' is about an audit in units, and there is no executor"),
        ({"resume": True}, "resume=True is about an audit in units"),
        ({"unit": 9}, "unit=9 is about an audit in units"),
        ({"executor": Pool(0), "resume": True}, "resume=True needs the folder of the ledger"),
        ({"executor": Pool(0), "shard": (0, 2)}, r"shard=\(0, 2\) and executor each cut the data"),
        ({"executor": Pool(0), "unit": 0}, "unit=0; pass a number of examples"),
        ({"shard": range(3, 3)}, r"shard=range\(3, 3\); pass range"),
        ({"shard": range(0, 9, 2)}, r"shard=range\(0, 9, 2\); pass range"),
        ({"shard": range(40, 50)}, "examples 40 to 49 has no examples: the data has too few"),
    ],
)
def test_what_makes_no_sense_is_said(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        audited(FEW, **more)


@pytest.mark.parametrize(
    "wrong", [{"workers": -1}, {"workers": 1.5}, {"threads": 0}, {"start": "fork"}, {"seconds": 0}]
)
def test_a_pool_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Pool(**wrong)


def test_ranges_are_merged_like_shards() -> None:
    whole = audited(FEW)
    parts = [audited(FEW, shard=range(start, min(start + 9, ROWS))) for start in (18, 0, 9)]
    assert plain(ss.merge(parts)) == plain(whole)
    with pytest.raises(InputError, match="examples 0 to 8 are missing"):
        ss.merge([parts[0], parts[2]])
    with pytest.raises(InputError, match="example 0 is in two of the results"):
        ss.merge([parts[1], parts[1]])
    with pytest.raises(InputError, match="is of examples 0 to 8, others are not"):
        ss.merge([audited(FEW, shard=(0, 2)), parts[1]])


class Noted(Alone):
    """Two places, of which one is asked; the units of each task are written down."""

    places = 2

    def __init__(self, bench: Any, sizes: list[int]) -> None:
        super().__init__(bench)
        self.sizes = sizes

    def submit(self, task: Task) -> int:
        self.sizes.append(len(task.pieces))
        return super().submit(task)


class Patient(Pool):
    """Gives tasks that last for ever, as far as there is work."""

    goal = 1e9
    sizes: list[int]

    def begun(self, make: Any, bench: Any) -> Any:  # noqa: ARG002
        return nullcontext(Noted(bench(), self.sizes))


def halves(data: Any, units: int, limit: int | None = None) -> list[int]:
    staff = Patient(0)
    object.__setattr__(staff, "sizes", [])
    audited(FEW, data, executor=staff, unit=1, limit=limit)
    assert sum(staff.sizes) == units
    return staff.sizes


def test_tasks_grow_smaller_towards_the_end_of_data_of_known_length() -> None:
    """So that no worker is left with several units while another has none."""
    x, y = data()
    for given, units, limit in (((x, y), ROWS, None), ([x.numpy(), y.numpy()], ROWS, None), ((x, y), 9, 9)):
        sizes, left = halves(given, units, limit), units
        for size in sizes:
            assert size <= -(-left // 4)
            left -= size
    assert halves([(x, y)], ROWS) == [1, ROWS - 1], "where nobody knows how much there is"
