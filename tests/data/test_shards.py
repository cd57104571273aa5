from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from signstep.data import open_data
from signstep.errors import InputError, LoadError

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (10, 3, 5, 4), dtype=np.uint8)
LABELS = np.arange(10)
CUTS = ((0, 3), (3, 4), (4, 10))


def write(folder: Path) -> Path:
    for number, (start, stop) in enumerate(CUTS):
        np.savez(folder / f"part-{number}.npz", x=BYTES[start:stop], y=LABELS[start:stop])
    return folder


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_shards_are_read_in_name_order_across_batches(tmp_path: Path, batch_size: int) -> None:
    source = open_data(write(tmp_path), batch_size=batch_size)
    for _ in range(2):
        batches = list(source)
        assert torch.equal(torch.cat([x for x, _ in batches]), torch.from_numpy(BYTES).float() / 255)
        assert torch.cat([y for _, y in batches]).tolist() == LABELS.tolist()
        assert [len(x) for x, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert (source.len_hint, source.shape, source.bounds) == (10, (3, 5, 4), (0.0, 1.0))
    assert source.name == f"{tmp_path} (3 shards)"
    assert source.notes[0].startswith("shards read in the order of their names, as text: ")


def test_the_limit_opens_no_more_shards_than_it_needs(tmp_path: Path) -> None:
    source = open_data(write(tmp_path), limit=3, batch_size=2)
    (tmp_path / "part-2.npz").write_bytes(b"gone")
    assert [y.tolist() for _, y in source] == [[0, 1], [2]]


def test_the_fingerprint_covers_all_shards(tmp_path: Path) -> None:
    before = open_data(write(tmp_path), limit=1).fingerprint()
    np.savez(tmp_path / "part-2.npz", x=BYTES[4:], y=LABELS[4:][::-1])
    assert open_data(tmp_path, limit=1).fingerprint() != before


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": BYTES[:, :, :4], "y": LABELS},
            r"part-1.npz has inputs of shape \(3, 4, 4\) but .*part-0.npz \(3, 5, 4\)",
        ),
        (
            {"x": BYTES / 255.0, "y": LABELS},
            r"part-1.npz has inputs with the bounds None but .*part-0.npz \(0.0, 1.0\)",
        ),
        ({"x": BYTES, "y": LABELS[:9]}, "part-1.npz: x has 10 rows but y has 9"),
        ({"x": BYTES, "y": LABELS + 0.5}, r"part-1.npz: y\[0\] is 0.5, not a class number"),
        ({"x": BYTES}, "part-1.npz holds x; save the inputs"),
    ],
)
def test_a_shard_that_does_not_agree_is_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(write(tmp_path) / "part-1.npz", **arrays)
    with pytest.raises(LoadError, match=message):
        open_data(tmp_path)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    (write(tmp_path) / "part-1.npz").write_bytes(b"PK")
    with pytest.raises(LoadError, match=r"part-1.npz cannot be read as a NumPy archive"):
        open_data(tmp_path)


def test_shards_have_splits(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, x_train=BYTES, y_train=LABELS, x_test=BYTES[:2], y_test=LABELS[:2])
    assert open_data(tmp_path, split="train").len_hint == 20
    default = open_data(tmp_path)
    assert default.len_hint == 4
    assert "split not given: x_test and y_test are used" in default.notes


def test_notes_of_other_shards_are_named_and_few(tmp_path: Path) -> None:
    for number in range(6):
        np.savez(tmp_path / f"{number}.npz", x=np.zeros((number + 1, 5, 4), np.uint8), y=LABELS[: number + 1])
    notes = open_data(tmp_path).notes
    assert any(note.endswith("1.npz: x: (2, 5, 4) read as one channel") for note in notes)
    assert notes[-1] == "2 more notes on single shards"


def test_options_that_mean_nothing_for_archives(tmp_path: Path) -> None:
    write(tmp_path)
    for options in ({"label_column": "y"}, {"classes": ["a"]}, {"skip_bad": True}):
        with pytest.raises(InputError, match=r"has no meaning for the .npz shards"):
            open_data(tmp_path, **options)


def test_shards_of_two_kinds(tmp_path: Path) -> None:
    (write(tmp_path) / "part-3.parquet").touch()
    with pytest.raises(LoadError, match=r"holds part-0.npz and part-3.parquet; keep shards of one kind"):
        open_data(tmp_path)


def test_other_folders_beside_the_shards(tmp_path: Path) -> None:
    (write(tmp_path) / "old").mkdir()
    assert open_data(tmp_path).len_hint == 10


def test_parquet_shards_share_their_columns_and_classes(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow (signstep[tables])")
    pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow (signstep[tables])")
    pq.write_table(pa.table({"a": [1.0, 2.0], "kind": ["z", "m"]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": [3, 4], "kind": ["a", "z"]}), tmp_path / "1.parquet")
    source = open_data(tmp_path, label_column="kind", batch_size=3)
    assert torch.cat([x for x, _ in source]).flatten().tolist() == [1, 2, 3, 4]
    assert (source.labels.tolist(), source.classes) == ([2, 1, 0, 2], ("a", "m", "z"))
    assert set(source.files) == {"0.parquet", "1.parquet"}
    with pytest.raises(InputError, match="split='test' has no meaning"):
        open_data(tmp_path, label_column="kind", split="test")
    pq.write_table(pa.table({"a": [3, None], "kind": ["a", "z"]}), tmp_path / "1.parquet")
    with pytest.raises(LoadError, match=r"1.parquet, row 1, column 'a' is missing"):
        open_data(tmp_path, label_column="kind")
    pq.write_table(pa.table({"a": [3, 4], "kind": [1, 2]}), tmp_path / "1.parquet")
    with pytest.raises(LoadError, match=r"0.parquet, row 0, column 'kind' is 'z' but .*1.parquet, row 0, .* is 1"):
        open_data(tmp_path, label_column="kind")
    pq.write_table(pa.table({"b": [3, 4], "kind": ["a", "z"]}), tmp_path / "1.parquet")
    with pytest.raises(LoadError, match=r"the shard .*1.parquet has the columns b, kind but .*0.parquet has a, kind"):
        open_data(tmp_path, label_column="kind")
