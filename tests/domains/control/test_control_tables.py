"""Series of one's own on the command line: tables with times and columns to ignore, archives, real labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from signstep.auditing.result import Result
from signstep.cli import main
from signstep.data.times import FORMS, breaks_of, interval_of, read_times
from signstep.domains import Request
from signstep.domains.control import case
from signstep.domains.control.arrays import read_npz
from signstep.domains.control.records import read_csv
from signstep.domains.control.series import Series, halves
from signstep.errors import InputError, LoadError, SignstepError

RNG = np.random.default_rng(0)


def waves(rows: int = 400) -> tuple[np.ndarray[Any, Any], list[str], np.ndarray[Any, Any]]:
    """Two channels whose speed changes every fifty rows: readings, the name of the speed, and the level at each row."""
    fast = (np.arange(rows) // 50) % 2
    phase = np.cumsum(np.where(fast, 0.9, 0.3))
    readings = np.stack([np.sin(phase), np.cos(phase)], 1) + 0.05 * RNG.normal(size=(rows, 2))
    return readings, ["fast" if one else "slow" for one in fast], readings.sum(1)


def table(path: Path, *, real: bool = False, rows: int = 400, times: str = "", extra: str = "") -> Path:
    readings, names, level = waves(rows)
    head = [*(["time"] if times else []), "flow", "pressure", *([extra] if extra else []), "y"]
    lines = [",".join(head)]
    for row in range(rows):
        clock = f"2024-03-0{1 + row // 200}T{row // 60 % 24:02d}:{row % 60:02d}:00{times}"
        cells = [*([clock] if times else []), *(f"{value:.5f}" for value in readings[row])]
        cells += [*(["pump A"] if extra else []), f"{level[row]:.5f}" if real else names[row]]
        lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n")
    return path


def audit(path: Path, out: Path, *words: str) -> int:
    return main(["audit", "--domain", "control", "--data", str(path), "--label-column", "y", *words, "--out", str(out)])


def test_a_table_gets_a_classifier_that_is_audited_on_other_rows(tmp_path: Path) -> None:
    assert audit(table(tmp_path / "a.csv"), tmp_path / "out", "--threat", "budget:2", "--curve", "none") == 0
    result = Result.load(tmp_path / "out" / "result.json")
    assert (result.examples, result.clean_accuracy) == (20, 1.0)
    assert result.attack("pgd:steps=20").fooled > result.attack("random-sign").fooled
    assert "a small convolutional network, trained on 20 series of the training half" in result.model
    assert any("the first half of each class (20 series), the audit is of the rest" in note for note in result.notes)


def test_halves_share_no_row_and_keep_the_share_of_classes() -> None:
    for stride in (1, 3, 10):
        places = tuple((record, first) for record in (0, 1) for first in range(0, 91, stride))
        count = len(places)
        data = Series(torch.zeros(count, 10, 1), torch.tensor([record for record, _ in places]), ("a", "b"), ("c",))
        data = Series(data.x, data.y, data.classes, data.names, places=places)
        train, test = halves(data)
        seen = {(record, first + step) for record, first in train.places for step in range(10)}
        later = {(record, first + step) for record, first in test.places for step in range(10)}
        assert not seen & later
        assert set(train.y.tolist()) == set(test.y.tolist()) == {0, 1}


def test_real_labels_have_a_way_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "a.csv", real=True)
    assert audit(path, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "not a class number" in said
    assert "--task regression --tolerance T" in said
    assert audit(path, tmp_path / "out", "--task", "regression") == 2
    assert "--task regression needs --tolerance" in capsys.readouterr().err
    words = ("--task", "regression", "--tolerance", "0.8", "--threat", "budget:1", "--curve", "none")
    assert audit(path, tmp_path / "out", *words) == 0
    result = Result.load(tmp_path / "out" / "result.json")
    assert result.examples == 20
    assert result.clean_accuracy > 0.8
    assert result.attack("pgd:steps=20").fooled >= result.attack("random-sign").fooled
    assert result.attack("pgd:steps=20").fooled > 0
    answers = result.sections[0]
    assert answers.title == "Answers"
    assert {row[0]: row[2] for row in answers.rows}["pgd:steps=20"] == str(result.attack("pgd:steps=20").fooled)
    capsys.readouterr()
    mine = ["--domain", "control", "--data", str(path), "--label-column", "y"]
    assert main(["verify", str(tmp_path / "out"), *mine]) == 0, capsys.readouterr().out
    assert main(["--config", str(tmp_path / "out" / "signstep.toml"), "audit", "--out", str(tmp_path / "again")]) == 0
    assert Result.load(tmp_path / "again" / "result.json").per_example == result.per_example
    assert main(["schema", "--domain", "control", "--data", str(path), "--label-column", "y", *words[:4]]) == 0
    assert 'name = "pressure"' in capsys.readouterr().out


def test_a_real_label_is_that_of_the_windows_last_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_sums.py").write_text(
        "from torch import nn\n"
        "class Sum(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x[:, -1].sum(1)\n"
        "def net():\n"
        "    return Sum()\n"
    )
    monkeypatch.chdir(tmp_path)
    path = table(tmp_path / "a.csv", real=True)
    request = Request(
        data=str(path), label_column="y", model="own_sums:net", task="regression", tolerance=1e-4, threat="budget:1"
    )
    x, y = next(iter(case(request).batches))
    assert isinstance(x, torch.Tensor)
    assert y is not None
    assert torch.allclose(x[:, -1].sum(1), y, atol=2e-5)
    assert audit(path, tmp_path / "out", "--model", "own_sums:net", "--task", "regression", "--tolerance", "1e-4") == 0
    result = Result.load(tmp_path / "out" / "result.json")
    assert (result.clean_accuracy, result.attack("fgsm").fooled) == (1.0, 40)


@pytest.mark.parametrize("zone", ["Z", "+02:00", ""])
def test_times_are_an_axis_and_no_sensor(tmp_path: Path, zone: str) -> None:
    path = table(tmp_path / "a.csv", times=zone or " ", rows=200)
    if not zone:
        path.write_text(path.read_text().replace("00 ,", "00,"))
    data = read_csv(path, label="y", samples=10, stride=10)
    assert (data.names, data.interval) == (("flow", "pressure"), 60.0)
    assert data.skipped[0] == "the column 'time' holds dates and times (ISO 8601) and is no sensor: rows lie 60 s apart"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:96], *lines[106:]]) + "\n")
    cut = read_csv(path, label="y", samples=10, stride=10)
    assert cut.skipped[1] == "time jumps at 1 rows, and no window crosses these"
    lines[20] = "soon" + lines[20][lines[20].index(",") :]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="line 21, column 'time' is 'soon', no date or time in the form of the others"):
        read_csv(path, label="y", samples=10, stride=10)


MOMENTS = {
    "2024-03-01 10:00": 60, "2024-03-01T10:00:00.500+01:00": 60, "20240301T100000Z": 60, "2024-03-01": 86400,
    "01.03.2024 10:00": 60, "1.3.2024": 86400, "03/25/2024 10:00:00": 60, "25/03/2024 10:00": 60, "2024/03/01": 86400,
    "01 Mar 2024 10:00": 60, "Mar 01 2024": 86400, "10:00:00": 60, "10:00": 60, "03/01/2024 09:15 PM": 60,
    "01.03.2024 10:00:00 +0100": 60,
}  # fmt: skip


@pytest.mark.parametrize("cell", MOMENTS)
def test_forms_of_times(cell: str) -> None:
    found = read_times([cell, "", cell])
    assert found is not None
    assert found.form in FORMS
    assert (found.seconds[0], found.seconds[1]) == (found.seconds[2], None)


def test_what_is_no_time_and_where_time_jumps() -> None:
    assert [read_times(cells) for cells in (["20240301"], ["1.5"], ["pump A"], ["", ""], ["x" * 9999])] == [None] * 5
    assert read_times(["03/25/2024", "13/01/2024"]) is not None
    assert read_times(["2024-03-01", "1.5", "2.5"]) is None  # a slip in a column of numbers
    assert read_times(["2024-03-01", "2024-03-02", "2.5"]) is not None
    day = read_times(["12/01/2024", "13/01/2024"])  # months go to twelve, so days stand first
    assert day is not None
    assert day.form == "%d/%m/%Y"
    assert interval_of(day.seconds) == 86400
    assert interval_of([0.0, 60.0, None, 120.0, 180.0]) == 60
    assert interval_of([5.0, 5.0]) is None
    assert breaks_of([0.0, 60.0, None, 180.0, 600.0, 540.0, 600.0], 60.0) == [4, 5]


def test_columns_can_be_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "a.csv", extra="machine")
    assert audit(path, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "column 'machine' is 'pump A', not a number, nor is any other of its cells" in said
    assert "--ignore-column machine" in said
    assert audit(path, tmp_path / "out", "--ignore-column", "machine", "--attack", "fgsm", "--curve", "none") == 0
    result = Result.load(tmp_path / "out" / "result.json")
    assert any(note == "columns left out as asked: machine" for note in result.notes)
    assert [sensor["name"] for sensor in result.terms["domain_terms"]["sensors"]] == ["flow", "pressure"]
    mine = ["--domain", "control", "--data", str(path), "--label-column", "y", "--ignore-column", "machine"]
    assert main(["verify", str(tmp_path / "out"), *mine]) == 0, capsys.readouterr().out
    assert audit(path, tmp_path / "no", "--ignore-column", "pump") == 2
    assert "there is no column 'pump' to ignore; the data has flow, pressure, machine" in capsys.readouterr().err
    schema = tmp_path / "s.toml"
    words = ("--label-column", "y", "--ignore-column", "machine", "--out", str(schema))
    assert main(["schema", "--domain", "control", "--data", str(path), *words]) == 0
    assert 'ignore = ["machine"]' in schema.read_text()
    assert audit(path, tmp_path / "by", "--schema", str(schema), "--attack", "fgsm", "--curve", "none") == 0
    assert Result.load(tmp_path / "by" / "result.json").attack("fgsm").fooled == result.attack("fgsm").fooled


def archive(path: Path, **more: Any) -> Path:
    y = np.arange(24) % 2
    t = np.arange(30)
    x = np.sin(t[None] * np.where(y, 0.9, 0.3)[:, None])[..., None] + 0.1 * RNG.normal(size=(24, 30, 2))
    np.savez(path, **{"x": x, "y": y, "names": np.array(["flow", "level"]), "classes": ["slow", "fast"], **more})
    return path


def test_archives_are_read_and_audited(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz")
    out = tmp_path / "out"
    words = ["--threat", "budget:3", "--curve", "none", "--out", str(out)]
    assert main(["audit", "--domain", "control", "--data", str(path), *words]) == 0
    result = Result.load(out / "result.json")
    assert (result.examples, result.clean_accuracy, tuple(result.classes)) == (12, 1.0, ("slow", "fast"))
    assert result.attack("pgd:steps=20").fooled > result.attack("random-sign").fooled
    assert main(["verify", str(out), "--domain", "control", "--data", str(path)]) == 0


def test_what_archives_may_hold(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", y=np.array(["no", "yes"] * 12))
    data, train = read_npz(path)
    assert (data.classes, data.names, train) == (("no", "yes"), ("flow", "level"), None)
    both: dict[str, Any] = {
        "x_train": np.ones((4, 5)),
        "y_train": [0, 1, 0, 2],
        "x_test": np.zeros((2, 5)),
        "y_test": [0.0, 1.0],
    }
    np.savez(path, **both)
    test, train = read_npz(path)
    assert train is not None
    assert (tuple(test.x.shape), tuple(train.x.shape), train.y.tolist()) == ((2, 5, 1), (4, 5, 1), [0, 1, 0, 2])
    assert (test.classes, train.classes, test.names) == (("0", "1"), ("0", "1", "2"), ("channel 1",))
    np.savez(path, x=np.ones((3, 5, 2)), level=[0.5, 1.5, np.nan])
    data, _ = read_npz(path, label="level", real=True, skip_bad=True)
    assert (data.y.tolist(), data.skipped[0].startswith("1 series left out")) == ([0.5, 1.5], True)
    left = data.without(["channel 1"])
    assert (tuple(left.x.shape), left.names) == ((2, 5, 1), ("channel 2",))


ONES = np.ones((4, 5, 2))
BAD: dict[str, dict[str, Any]] = {
    "has no array 'x', it has z": {"z": ONES},
    "has no array 'y', it has x": {"x": ONES},
    "x has shape (4, 5, 2, 1); save it as (examples, samples, channels)": {"x": ONES[..., None], "y": [0] * 4},
    "x has shape (0, 5, 2)": {"x": ONES[:0], "y": []},
    "x has dtype complex128; save the series as numbers": {"x": ONES * 1j, "y": [0] * 4},
    "y has shape (3,) for 4 series; save one label for each": {"x": ONES, "y": [0] * 3},
    "x[2], sample 4, channel 2 is nan, no finite number": {
        "x": np.where(np.arange(40).reshape(4, 5, 2) == 27, np.nan, 1.0), "y": [0] * 4,
    },
    "x[0], sample 1, channel 1 is 1e+300, no finite number that float32 can hold": {"x": ONES * 1e300, "y": [0] * 4},
    "y[1], column 'y' is 0.5, not a class number": {"x": ONES, "y": [0, 0.5, 1, 1]},
    "y[0], column 'y' is -1, not a class number": {"x": ONES, "y": [-1, 0, 1, 1]},
    "count classes up to 99999": {"x": ONES, "y": [99999, 0, 1, 1]},
    "y[1] holds no label": {"x": ONES, "y": ["a", "", "b", "b"]},
    "names has 1 different names for 2 channels": {"x": ONES, "y": [0] * 4, "names": ["a", "a"]},
    "y goes up to 1, and classes has 1 names": {"x": ONES, "y": [0, 1, 0, 1], "classes": ["a"]},
    "is an array of Python objects": {"x": np.array([[[None]]], dtype=object), "y": [0]},
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_archives_that_cannot_be_used_are_one_sentence(tmp_path: Path, message: str) -> None:
    np.savez(tmp_path / "a.npz", **BAD[message])
    with pytest.raises(SignstepError) as caught:
        read_npz(tmp_path / "a.npz")
    assert message in str(caught.value)
    assert "a.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"x,y\n1,2\n")
    with pytest.raises(LoadError, match="cannot be read as a NumPy archive"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--task", "segmentation"), "--task segmentation is none of series; pass multiclass or regression"),
        (("--tolerance", "1"), "--tolerance 1.0 is for --task regression, the task is 'auto'"),
        (("--attack", "causal-fgsm"), "causal-fgsm is played in a closed loop; recorded series have none"),
        (("--attack", "coordinate-search"), "coordinate-search is an attack of --domain tabular alone"),
    ],
)
def test_options_that_mean_nothing_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert audit(table(tmp_path / "a.csv"), tmp_path / "out", *words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()[-1:]) == 1
