"""Recorded series: readers, bad rows, the small classifiers, and the real data where they are present."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from signstep.domains.control.records import read_csv
from signstep.domains.control.series import Series, read_ts
from signstep.domains.control.series_net import trained_alarm, trained_net
from signstep.domains.control.tennessee import TENNESSEE, read_tennessee
from signstep.errors import InputError, LoadError

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data" / "timeseries"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/timeseries beside the checkout")

TS = """# a comment
@problemName waves
@dimensions 2
@classLabel true up down
@data
1,2,3:4,5,6:up
3,2,1:6,5,4:down
"""


def ts(folder: Path, text: str, name: str = "waves_TEST.ts") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_ts_files(tmp_path: Path) -> None:
    data = read_ts(ts(tmp_path, TS))
    assert data.x.tolist() == [[[1, 4], [2, 5], [3, 6]], [[3, 6], [2, 5], [1, 4]]]
    assert data.y.tolist() == [0, 1]
    assert (data.classes, data.names) == (("up", "down"), ("channel 1", "channel 2"))


BAD_LINES = {
    "1,2,?:4,5,6:up": "line 8, channel 1, sample 3: '?' is not a finite number",
    "1,2,3:4,NaN,6:up": "line 8, channel 2, sample 2: 'NaN' is not a finite number",
    "1,2,3:4,5:up": "line 8, channel 2: 2 samples instead of 3",
    "1,2:4,5:up": "line 8, channel 1: 2 samples instead of 3",
    "1,2,3:up": "line 8 has 1 channels instead of 2",
    "1,2,3:4,5,6:left": "line 8: the label 'left' is not one of up, down",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_lines_are_named_or_skipped_and_counted(tmp_path: Path, line: str) -> None:
    path = ts(tmp_path, TS + line + "\n")
    with pytest.raises(InputError) as caught:
        read_ts(path)
    assert str(caught.value) == f"waves_TEST.ts, {BAD_LINES[line]}; correct it, or pass skip_bad=True to leave it out"
    data = read_ts(path, skip_bad=True)
    assert len(data.x) == 2
    assert data.skipped[0].startswith("1 series left out (--skip-bad); the first: ")


def test_files_that_are_no_ts(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="has no line @data"):
        read_ts(ts(tmp_path, "1,2,3"))
    with pytest.raises(LoadError, match="names no class labels"):
        read_ts(ts(tmp_path, "@classLabel false\n@data\n1,2"))
    with pytest.raises(InputError, match="no usable series is left: 1 series left out"):
        read_ts(ts(tmp_path, TS[: TS.index("1,2")] + "1:up\n"), skip_bad=True)


def plant(folder: Path, *, bad: str | None = None) -> None:
    """Records in the form of Tennessee Eastman: the fault shifts three sensors; d00 is transposed, as it is there."""
    generator = np.random.default_rng(0)
    for name, rows, fault in (("d00", 100, 0), ("d01", 90, 1), ("d00_te", 200, 0), ("d01_te", 300, 1)):
        values = generator.normal(size=(rows, 52)) + 5
        values[160 if name.endswith("te") else 0 :, :3] += 4 * fault
        part = values.T if name == "d00" else values
        lines = ["  ".join(f"{value:.6e}" for value in row) for row in part]
        if bad is not None and name == "d01_te":
            lines[20] = bad
        (folder / f"{name}.dat.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def test_records_become_windows(tmp_path: Path) -> None:
    plant(tmp_path)
    train = read_tennessee(tmp_path, test=False, samples=10, stride=10)
    assert tuple(train.x.shape) == (19, 10, 52)
    assert torch.bincount(train.y).tolist() == [10, 9]
    assert train.names == TENNESSEE
    test = read_tennessee(tmp_path, test=True, samples=10, stride=10)
    # 20 windows of d00_te; of d01_te 16 before the fault begins at row 160 and 14 after
    assert torch.bincount(test.y).tolist() == [36, 14]
    net = trained_alarm(train)
    assert float((net(test.x).argmax(1) == test.y).float().mean()) == 1.0


ROW = "  ".join(["5.0"] * 52)
BAD_ROWS = {
    ROW.replace("5.0", "nan", 1): "d01_te.dat.gz, row 21, column 1 (XMEAS(1)): 'nan' is not a finite number",
    ROW[: ROW.rindex("5.0")]: "d01_te.dat.gz, row 21 has 51 columns instead of 52",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_bad_rows_of_records(tmp_path: Path, row: str) -> None:
    plant(tmp_path, bad=row)
    with pytest.raises(InputError) as caught:
        read_tennessee(tmp_path, test=True, samples=10, stride=10)
    assert str(caught.value) == f"{BAD_ROWS[row]}; correct it, or pass skip_bad=True to leave it out"
    kept = read_tennessee(tmp_path, test=True, samples=10, stride=10, skip_bad=True)
    assert torch.bincount(kept.y).tolist() == [35, 14]
    assert kept.skipped[0].startswith("1 rows left out")
    assert kept.skipped[1] == "1 windows with such rows left out"


def test_folders_without_records(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"no Tennessee Eastman records such as d00_te\.dat"):
        read_tennessee(tmp_path, test=True, samples=10, stride=10)


CSV = "flow,level,state\n1,2,ok\n2,3,ok\n3,4,bad\n4,5,bad\n"


def test_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV)
    data = read_csv(path, label="state", samples=2, stride=1)
    assert data.x.tolist() == [[[1, 2], [2, 3]], [[3, 4], [4, 5]]]
    assert [data.classes[int(label)] for label in data.y] == ["ok", "bad"]
    assert data.names == ("flow", "level")
    with pytest.raises(InputError, match="no column 'label' of labels, it has flow, level, state"):
        read_csv(path, label="label", samples=1, stride=1)
    with pytest.raises(InputError, match="no window of 9 samples fits"):
        read_csv(path, label="state", samples=9, stride=1)
    path.write_text(CSV.replace("2,3,ok", "2,,ok"))
    with pytest.raises(InputError, match=r"a.csv, line 3, column 'level' is empty"):
        read_csv(path, label="state", samples=1, stride=1)
    kept = read_csv(path, label="state", samples=1, stride=1, skip_bad=True)
    assert len(kept.x) == 3
    assert len(kept.skipped) == 2
    path.write_text(CSV.replace("2,3,ok", "2,3"))
    with pytest.raises(InputError, match="line 3 has 2 cells instead of 3"):
        read_csv(path, label="state", samples=1, stride=1)


def test_the_network_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(40) % 2
    wave = torch.sin(torch.arange(30)[None] * torch.where(y == 1, 0.9, 0.3)[:, None])
    x = (wave + 0.1 * torch.randn(40, 30, generator=generator))[..., None] * 7 + 100
    net = trained_net(Series(x[:20], y[:20], ("slow", "fast"), ("a",)), steps=100)
    assert float((net(x[20:]).argmax(1) == y[20:]).float().mean()) == 1.0


@needs_shared
def test_the_real_files() -> None:
    motions = read_ts(SHARED / "ucr" / "BasicMotions_TEST.ts")
    assert tuple(motions.x.shape) == (40, 100, 6)
    assert torch.bincount(motions.y).tolist() == [10] * 4
    folder = SHARED / "tennessee_eastman"
    train, test = (read_tennessee(folder, test=half, samples=10, stride=10) for half in (False, True))
    answer = trained_alarm(train)(test.x).argmax(1)
    assert float((answer == test.y).float().mean()) > 0.97
