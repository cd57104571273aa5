import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from signstep.data import DataSource, open_data
from signstep.errors import LoadError

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (10, 3, 5, 4), dtype=np.uint8)
LABELS = np.arange(10) % 3


def save(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez_compressed(path, **arrays)
    return path


def gather(source: DataSource) -> tuple[Tensor, Tensor]:
    batches = list(source)
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def test_bytes_become_floats_in_the_unit_box(tmp_path: Path) -> None:
    source = open_data(save(tmp_path, x=BYTES, y=LABELS), batch_size=4)
    x, y = gather(source)
    assert torch.equal(x, torch.from_numpy(BYTES).float() / 255)
    assert (x.dtype, y.dtype, y.tolist()) == (torch.float32, torch.int64, LABELS.tolist())
    assert (source.bounds, source.len_hint, source.shape, source.classes) == ((0.0, 1.0), 10, (3, 5, 4), None)
    assert source.description == f"{tmp_path / 'data.npz'}: 10 examples of shape 3x5x4"
    assert any("divided by 255" in note for note in source.notes)


def test_batches_are_ragged_at_the_end_and_equal_the_second_time(tmp_path: Path) -> None:
    source = open_data(save(tmp_path, x=BYTES, y=LABELS), batch_size=4)
    assert [len(x) for x, _ in source] == [4, 4, 2]
    first = next(iter(source))
    first[0].zero_()  # a consumer may write into its batch
    first[1].zero_()
    for one, two in zip(source, source, strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])
    assert torch.equal(gather(source)[1], torch.from_numpy(LABELS))


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (4, 4), (7, 7), (99, 10)])
def test_limit_takes_the_first(tmp_path: Path, limit: int, count: int) -> None:
    source = open_data(save(tmp_path, x=BYTES, y=LABELS), batch_size=4, limit=limit)
    x, y = gather(source)
    assert torch.equal(x, torch.from_numpy(BYTES[:count]).float() / 255)
    assert (len(y), source.len_hint) == (count, count)
    assert ("the first" in source.description) == (limit < 10)


@pytest.mark.parametrize("names", [("X", "Y"), ("X", "y"), ("images", "labels"), ("x_test", "y_test")])
def test_usual_names_are_found(tmp_path: Path, names: tuple[str, str]) -> None:
    source = open_data(save(tmp_path, **{names[0]: BYTES, names[1]: LABELS}))
    assert source.len_hint == 10


def test_the_split_chooses_among_pairs(tmp_path: Path) -> None:
    path = save(tmp_path, x_train=BYTES, y_train=LABELS, x_test=BYTES[:4], y_test=LABELS[:4])
    default = open_data(path)
    assert default.len_hint == 4
    assert default.notes[0] == "split not given: x_test and y_test are used"
    assert open_data(path, split="train").len_hint == 10


def test_channels_last_is_turned_and_noted(tmp_path: Path) -> None:
    for channels in (1, 3):
        images = RNG.random((6, 5, 4, channels), dtype=np.float32)
        source = open_data(save(tmp_path, x=images, y=LABELS[:6]))
        assert torch.equal(gather(source)[0], torch.from_numpy(images).permute(0, 3, 1, 2))
        assert any(f"(6, 5, 4, {channels}) read as (N, H, W, C)" in note for note in source.notes)


def test_three_dimensions_of_bytes_are_grey_images(tmp_path: Path) -> None:
    source = open_data(save(tmp_path, x=BYTES[:, 0], y=LABELS))
    assert source.shape == (1, 5, 4)
    assert torch.equal(gather(source)[0][:, 0], torch.from_numpy(BYTES[:, 0]).float() / 255)


def test_floats_keep_their_values_and_have_no_known_bounds(tmp_path: Path) -> None:
    features = RNG.normal(size=(10, 7))
    source = open_data(save(tmp_path, x=features, y=LABELS))
    assert torch.equal(gather(source)[0], torch.from_numpy(features).float())
    assert source.bounds is None
    assert "x: float64 converted to float32" in source.notes


def test_fortran_order_big_endian_and_uncompressed_files_read_the_same(tmp_path: Path) -> None:
    features = RNG.random((10, 7), dtype=np.float32)
    path = tmp_path / "plain.npz"
    for stored in (np.asfortranarray(features), features.astype(">f4"), features):
        np.savez(path, x=stored, y=LABELS.astype(">i2"))
        x, y = gather(open_data(path, batch_size=3))
        assert torch.equal(x, torch.from_numpy(features))
        assert y.tolist() == LABELS.tolist()


def test_labels_as_whole_floats_bytes_or_columns(tmp_path: Path) -> None:
    for labels in (LABELS.astype(np.float64), LABELS.astype(np.uint8), LABELS.reshape(-1, 1)):
        assert open_data(save(tmp_path, x=BYTES, y=labels)).labels.tolist() == LABELS.tolist()


def test_the_fingerprint_is_that_of_the_file(tmp_path: Path) -> None:
    path = save(tmp_path, x=BYTES, y=LABELS)
    before = open_data(path).fingerprint()
    assert len(before) == 64
    assert open_data(path, limit=2).fingerprint() == before
    save(tmp_path, x=BYTES, y=LABELS + 1)
    assert open_data(path).fingerprint() != before


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, x=np.zeros((5000, 100), np.uint8), y=np.zeros(5000, np.uint8))
    wanted: list[int] = []
    read = zipfile.ZipExtFile.read

    def spy(self: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        wanted.append(-1 if n is None else n)
        return read(self, n)

    source = open_data(path, batch_size=50)
    monkeypatch.setattr(zipfile.ZipExtFile, "read", spy)
    assert sum(len(x) for x, _ in source) == 5000
    assert min(wanted) >= 0
    assert max(wanted) <= 50 * 100


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": BYTES, "b": LABELS}, "holds a, b; save the inputs and labels as x and y"),
        ({"x": BYTES}, "holds x; save"),
        ({"x": BYTES, "y": LABELS[:9]}, "x has 10 rows but y has 9"),
        ({"x": BYTES, "y": LABELS + 0.5}, r"y\[0\] is 0.5, not a class number"),
        ({"x": BYTES, "y": np.full(10, np.nan)}, r"y\[0\] is nan, not a class number"),
        ({"x": BYTES, "y": LABELS - 1}, r"y\[0\] is -1; save labels as class numbers"),
        ({"x": BYTES, "y": np.eye(10)}, r"y has shape \(10, 10\); save one class number per row"),
        ({"x": BYTES, "y": np.array(list("abcdefghij"))}, "y has dtype <U1; save labels as class numbers"),
        ({"x": BYTES.astype(np.int64), "y": LABELS}, "x has dtype int64, whose scale is unknown"),
        ({"x": BYTES[:, 0, 0, 0], "y": LABELS}, r"x has shape \(10,\); save it as"),
        ({"x": BYTES[:0], "y": LABELS[:0]}, "nothing to read"),
    ],
)
def test_wrong_arrays_are_refused_when_the_file_is_opened(
    tmp_path: Path, arrays: dict[str, np.ndarray[Any, np.dtype[Any]]], message: str
) -> None:
    with pytest.raises(LoadError, match=message):
        open_data(save(tmp_path, **arrays))


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    for arrays in ({"x": np.array([{}] * 10), "y": LABELS}, {"x": BYTES, "y": np.array([None] * 10)}):
        with pytest.raises(LoadError, match="array of Python objects, and unpickling those can run code"):
            open_data(save(tmp_path, **arrays))


def test_a_missing_split_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, x_train=BYTES, y_train=LABELS)
    with pytest.raises(LoadError, match="holds x_train, y_train; save the inputs and labels as x_test and y_test"):
        open_data(path, split="test")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_named_by_row(tmp_path: Path, bad: float) -> None:
    features = np.zeros((10, 4))
    features[7, 2] = bad
    with pytest.raises(LoadError, match="row 7 of x holds NaN or infinity"):
        list(open_data(save(tmp_path, x=features, y=LABELS), batch_size=3))


def test_damaged_archives(tmp_path: Path) -> None:
    path = save(tmp_path, x=RNG.integers(0, 256, (50, 40), dtype=np.uint8), y=np.zeros(50, np.int64))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LoadError, match="cannot be read as a NumPy archive"):
        open_data(path)
    path.write_bytes(whole[:600] + bytes(200) + whole[800:])
    with pytest.raises(LoadError, match="cannot be read as a NumPy archive"):
        list(open_data(path))
