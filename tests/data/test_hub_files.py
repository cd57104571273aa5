"""Parquet files with images, as they lie on Hugging Face's hub, and folders of Hugging Face by that name."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import signstep as ss
from signstep.data import DataSource, open_data
from signstep.errors import InputError, LoadError

COUNT = 7
PIXELS = torch.randint(0, 256, (COUNT, 5, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = [1, 0, 1, 1, 0, 0, 1]
DEEP = b'{"info": {"features": {"label": {"names": 3}}}}'
UNIT = PIXELS.permute(0, 3, 1, 2).float() / 255


@pytest.fixture
def arrow() -> Any:
    pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")
    pytest.importorskip("pyarrow.parquet", reason="needs pyarrow (signstep[tables])")
    return pytest.importorskip("pyarrow")


def png(number: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(PIXELS[number].numpy()).save(stream, "png")
    return stream.getvalue()


def write(
    arrow: Any,
    path: Path,
    rows: range = range(COUNT),
    *,
    names: Any = ("fox", "emu"),
    group: int = 3,
    cells: dict[int, Any] | None = None,
    labels: list[Any] | None = None,
    column: str = "label",
    **more: list[Any],
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = [(cells or {}).get(row, {"bytes": png(row), "path": f"{row}.png"}) for row in rows]
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    numbers = [LABELS[row] for row in rows] if labels is None else labels
    table = arrow.table({"image": arrow.array(stored, kind), column: numbers, **more})
    if names is not None:
        feature = {"names": list(names), "_type": "ClassLabel"}
        info = {"info": {"features": {"image": {"_type": "Image"}, column: feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    arrow.parquet.write_table(table, path, row_group_size=group)
    return path


def inputs(source: DataSource) -> torch.Tensor:
    return torch.cat([x for x, _ in source])


def test_a_file_with_images_and_the_names_of_its_classes(arrow: Any, tmp_path: Path) -> None:
    source = open_data(write(arrow, tmp_path / "a.parquet"), batch_size=4)
    for _ in range(2):
        assert torch.equal(inputs(source), UNIT)
    assert source.labels.tolist() == LABELS
    assert (source.classes, source.shape, source.bounds) == (("fox", "emu"), (3, 5, 4), (0.0, 1.0))
    assert source.notes[0] == "images from column 'image', labels from 'label'"


@pytest.mark.parametrize("inner", ["", "data"])
@pytest.mark.parametrize("prefix", ["", "hf-dataset:"])
def test_a_folder_of_splits(arrow: Any, tmp_path: Path, inner: str, prefix: str) -> None:
    write(arrow, tmp_path / inner / "test-00000-of-00002.parquet", range(4))
    write(arrow, tmp_path / inner / "test-00001-of-00002.parquet", range(4, 6))
    write(arrow, tmp_path / inner / "train-00000-of-00001.parquet", range(6, 7))
    source = open_data(f"{prefix}{tmp_path}", batch_size=5)
    assert torch.equal(inputs(source), UNIT[:6])
    assert source.notes[0] == "split not given: test is used"
    assert list(source.files) == ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"]
    assert torch.equal(inputs(open_data(f"{prefix}{tmp_path}", split="train")), UNIT[6:])


def test_a_limit_and_an_order_of_the_classes(arrow: Any, tmp_path: Path) -> None:
    path = write(arrow, tmp_path / "a.parquet")
    source = open_data(path, limit=3, classes=("emu", "cat", "fox"))
    assert source.labels.tolist() == [0, 2, 0]
    assert source.total == COUNT


def test_bad_images_and_missing_labels_are_named_or_skipped(arrow: Any, tmp_path: Path) -> None:
    cells = {1: {"bytes": b"no image", "path": "x"}, 4: {"bytes": None, "path": "/etc/passwd"}}
    path = write(arrow, tmp_path / "a.parquet", cells=cells, labels=[1, 0, 1, -1, 0, 0, 1])
    with pytest.raises(LoadError, match="row 3, column 'label' holds no label; remove such rows"):
        open_data(path)
    source = open_data(path, skip_bad=True)
    assert torch.equal(inputs(source), UNIT[[0, 2, 5, 6]])
    assert source.skipped == 3
    write(arrow, path, cells={4: cells[4]})
    with pytest.raises(LoadError, match="row 4 points to /etc/passwd instead of holding it"):
        open_data(path)
    write(arrow, path, cells={1: cells[1]})
    with pytest.raises(LoadError, match=r"row 1 cannot be read \(cannot identify image file\); replace it"):
        inputs(open_data(path))


def test_the_label_is_the_one_called_so_or_the_one_named(arrow: Any, tmp_path: Path) -> None:
    path = write(arrow, tmp_path / "a.parquet", names=None, fine=list(range(COUNT)))
    assert open_data(path).labels.tolist() == LABELS
    assert open_data(path, label_column="fine").labels.tolist() == list(range(COUNT))
    other = write(arrow, tmp_path / "b.parquet", names=None, column="kind", fine=list(range(COUNT)))
    with pytest.raises(InputError, match=r"has the columns kind, fine; pass label_column="):
        open_data(other)
    with pytest.raises(InputError, match="has no column 'sort'"):
        open_data(path, label_column="sort")


@pytest.mark.parametrize(
    "stated", [b"no json", b"[1]", b'{"info": 3}', b'{"info": {"features": {"label": {"names": 3}}}}']
)
def test_what_a_file_says_of_itself_may_be_anything(arrow: Any, tmp_path: Path, stated: bytes) -> None:
    path = write(arrow, tmp_path / "a.parquet", names=None)
    table = arrow.parquet.read_table(path).replace_schema_metadata({"huggingface": stated})
    arrow.parquet.write_table(table, path)
    assert open_data(path).classes is None
    assert open_data(path).labels.tolist() == LABELS


def test_a_group_that_would_fill_the_memory_is_refused(arrow: Any, tmp_path: Path) -> None:
    cells = {1: {"bytes": b"\0" * 1_000_000, "path": "x"}}
    path = write(arrow, tmp_path / "a.parquet", cells=cells)
    with (
        ss.caps(inflated=10_000, ratio=1),
        pytest.raises(LoadError, match=r"has a group of rows of \d+ bytes, over the \d+ allowed"),
    ):
        open_data(path)


def test_files_that_differ_and_splits_that_are_not_there(arrow: Any, tmp_path: Path) -> None:
    write(arrow, tmp_path / "test-0.parquet", range(2))
    write(arrow, tmp_path / "test-1.parquet", range(2, 4), column="kind")
    with pytest.raises(LoadError, match=r"test-1\.parquet has other columns than test-0\.parquet"):
        open_data(tmp_path)
    with pytest.raises(LoadError, match=r"holds no split 'train' but test"):
        open_data(tmp_path, split="train")
    one = write(arrow, tmp_path / "apart" / "pictures.parquet")
    with pytest.raises(InputError, match="whose files name no split; leave it out"):
        open_data(one.parent, split="test")


def test_a_table_of_numbers_stays_one(arrow: Any, tmp_path: Path) -> None:
    table = arrow.table({"a": [0.5, 1.5], "label": [0, 1]})
    arrow.parquet.write_table(table, tmp_path / "numbers.parquet")
    assert open_data(tmp_path / "numbers.parquet", label_column="label").shape == (1,)


def test_what_is_no_folder_of_hugging_face_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"cifar10 is no folder \(names on the hub are not downloaded\); load the data"):
        open_data("hf-dataset:cifar10")
    (tmp_path / "dataset_info.json").write_text("{}", encoding="utf-8")
    with pytest.raises(LoadError, match=r"holds neither what save_to_disk wrote nor \.parquet files"):
        open_data(f"hf-dataset:{tmp_path}")
