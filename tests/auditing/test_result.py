"""The record survives JSON both ways and is written whole or not at all; the table says what it must."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import signstep as ss
from signstep.auditing.sections import Section
from signstep.engine.statistics import quantile, wilson
from signstep.errors import LoadError
from signstep.io.files import write_whole


@pytest.fixture(scope="module")
def result() -> ss.Result:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 3)).eval()
        x = torch.rand(30, 5)
    return ss.audit(model, (x, model(x).argmax(1)), threat=ss.linf("8/255"))


def test_json_gives_an_equal_record_back(result: ss.Result, tmp_path: Path) -> None:
    assert ss.Result.from_json(result.to_json()) == result
    assert ss.Result.load(result.save(tmp_path / "deep" / "result.json")) == result
    json.loads(result.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_the_table_states_its_terms(result: ss.Result) -> None:
    text = " ".join(str(result).split())
    assert max(map(len, str(result).splitlines())) <= 120
    assert text.startswith("At eps = 8/255 (linf) an attacker changes")
    for phrase in ("8/255", "upper bound", "no claim of robustness", "95 % interval", "worst case", "seed 0"):
        assert phrase in text


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "not a signstep result"), ("[]", "not a signstep result"), ("{}", "schema"), ('{"schema": 99}', "schema 99")],
)
def test_other_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        ss.Result.from_json(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"none\.json cannot be read"):
        ss.Result.load(tmp_path / "none.json")


def test_a_folder_that_cannot_be_written_is_named(result: ss.Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(LoadError, match="cannot be written"):
        result.save(tmp_path / "file" / "result.json")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_whole(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(LoadError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_wilson_against_published_values() -> None:
    """Brown, Cai & DasGupta 2001, and the rule that 0 of n has the upper end z^2 / (n + z^2)."""
    assert wilson(0, 10) == pytest.approx((0.0, 1.96**2 / (10 + 1.96**2)), abs=1e-3)
    assert wilson(50, 100) == pytest.approx((0.404, 0.596), abs=1e-3)
    assert wilson(10, 10)[1] == pytest.approx(1.0)
    assert wilson(0, 0) == (0.0, 1.0)


def test_quantile_of_sizes_some_of_which_are_infinite() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, float("inf")], 1.0) == float("inf")


def test_a_sections_table_that_is_too_wide_has_a_paragraph_for_each_row(result: ss.Result) -> None:
    long = "granted if the balance falls by 1,240 " * 4
    narrow = Section("Flips", ("Two.",), ("record", "cost"), (("a", "1"), ("b", "2")))
    wide = Section("Flips", ("Two.",), ("record", "what", "cost"), (("a", long, "1"), ("b", "none found", "-")))
    shown = str(replace(result, sections=(narrow, wide)))
    assert all(len(line) <= 100 for line in shown.partition("Flips:")[2].splitlines())
    assert "b          2" in shown
    assert "a: granted if the balance" in shown
    assert "cost 1" in shown


def test_records_of_the_schema_before_are_read(result: ss.Result) -> None:
    plain = json.loads(result.to_json())
    for name in ("date", "gates", "knob", "detection", "diagnosis"):
        with pytest.raises(LoadError, match="and schema 3 has none"):
            ss.Result.from_json(json.dumps({**plain, "schema": 3}))
        del plain[name]
    with pytest.raises(LoadError, match="bounds, and schema 3 has none"):
        ss.Result.from_json(json.dumps({**plain, "schema": 3}))
    del plain["per_example"]["bounds"], plain["per_example"]["proved_eps"]
    assert ss.Result.from_json(json.dumps({**plain, "schema": 3})) == replace(result, gates=(), knob=None)
    del plain["sections"]
    assert ss.Result.from_json(json.dumps({**plain, "schema": 2})) == replace(result, gates=(), knob=None)
    with pytest.raises(LoadError, match="schema 1"):
        ss.Result.from_json(json.dumps({**plain, "schema": 1}))
