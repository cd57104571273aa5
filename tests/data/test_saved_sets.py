import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from signstep.data import DataSource, open_data
from signstep.errors import InputError, LoadError, MissingExtraError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
LABELS = [1, 0, 1, 1, 0, 0]


@pytest.fixture
def hf() -> Any:
    pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")
    return pytest.importorskip("datasets", reason="needs Hugging Face datasets (signstep[datasets])")


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def pictures(hf: Any, images: list[Any] | None = None, labels: list[Any] | None = None) -> Any:
    cells = images or [{"bytes": png(pixels), "path": None} for pixels in PIXELS]
    features = hf.Features({"img": hf.Image(), "label": hf.ClassLabel(names=["fox", "emu"]), "id": hf.Value("string")})
    rows = {"img": cells, "label": labels or LABELS, "id": [str(row) for row in range(len(cells))]}
    return hf.Dataset.from_dict(rows, features=features)


def inputs(source: DataSource) -> torch.Tensor:
    return torch.cat([x for x, _ in source])


def save(data: Any, folder: Path, **options: Any) -> Path:
    data.save_to_disk(str(folder), **options)
    return folder


def test_images_with_named_classes(hf: Any, tmp_path: Path) -> None:
    source = open_data(save(pictures(hf), tmp_path / "set"), batch_size=4)
    for _ in range(2):
        batches = list(source)
        assert [len(x) for x, _ in batches] == [4, 2]
        expected = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255
        assert torch.equal(torch.cat([x for x, _ in batches]), expected)
        assert torch.cat([y for _, y in batches]).tolist() == LABELS
    assert (source.classes, source.bounds, source.shape) == (("fox", "emu"), (0.0, 1.0), (3, 5, 4))
    assert source.notes[0] == "images from column 'img', labels from 'label'"


def test_resize_limit_and_another_order(hf: Any, tmp_path: Path) -> None:
    folder = save(pictures(hf), tmp_path / "set")
    source = open_data(folder, resize=(2, 2), limit=3, classes=["emu", "fox", "gnu"])
    assert inputs(source).shape == (3, 3, 2, 2)
    assert (source.labels.tolist(), source.total) == ([0, 1, 0], 6)
    with pytest.raises(LoadError, match="row 1, column 'label' is 'fox', which is not among the 1 classes given"):
        open_data(folder, classes=["emu"])


def test_bad_images_and_labels_are_named_or_skipped(hf: Any, tmp_path: Path) -> None:
    cells: list[Any] = [{"bytes": png(pixels), "path": None} for pixels in PIXELS]
    cells[2] = {"bytes": cells[2]["bytes"][:60], "path": None}
    folder = save(pictures(hf, cells, [1, -1, 1, 1, 0, None]), tmp_path / "set")
    with pytest.raises(LoadError, match=r"row 1, column 'label' holds no label: .*\(skip_bad\)"):
        open_data(folder)
    source = open_data(folder, skip_bad=True)
    assert (source.labels.tolist(), source.skipped, source.total) == ([1, 1, 0], 3, 3)
    assert torch.equal(inputs(source), torch.from_numpy(PIXELS[[0, 3, 4]]).permute(0, 3, 1, 2).float() / 255)
    assert any("1 images skipped" in note and "row 2" in note for note in source.notes)
    assert any("2 rows skipped because they have no label" in note and "row 1" in note for note in source.notes)
    folder = save(pictures(hf, cells), tmp_path / "other")
    with pytest.raises(LoadError, match=r"the image .*other, row 2 cannot be read"):
        list(open_data(folder))
    folder = save(pictures(hf, labels=[-1] * 6), tmp_path / "none")
    with pytest.raises(LoadError, match="row 0, column 'label' holds no label, nor does any other row"):
        open_data(folder, skip_bad=True)


def test_images_outside_the_saved_files_are_not_opened(hf: Any, tmp_path: Path) -> None:
    file = tmp_path / "1.png"
    file.write_bytes(png(PIXELS[0]))
    raw = hf.Dataset.from_dict({"img": [{"bytes": None, "path": str(file)}], "label": [0]})
    features = hf.Features(
        {"img": {"bytes": hf.Value("binary"), "path": hf.Value("string")}, "label": hf.Value("int64")}
    )
    folder = save(raw.cast(features), tmp_path / "set")
    info = folder / "dataset_info.json"
    saved = save(pictures(hf), tmp_path / "images")
    assert '"Image"' in (saved / "dataset_info.json").read_text()
    described = json.loads(info.read_text())
    described["features"]["img"] = {"_type": "Image"}
    info.write_text(json.dumps(described))
    with pytest.raises(LoadError, match=r"row 0 points to .*1.png instead of holding it: save the data set with its"):
        open_data(folder, label_column="label")


def test_columns_of_numbers(hf: Any, tmp_path: Path) -> None:
    rows = {"a": [1, 2, 3], "y": ["no", "yes", "no"], "b": [0.5, None, 2.5]}
    folder = save(hf.Dataset.from_dict(rows), tmp_path / "set")
    with pytest.raises(InputError, match="has the columns a, y, b: pass label_column="):
        open_data(folder)
    with pytest.raises(InputError, match="has no column 'z': pass label_column= with one of a, y, b"):
        open_data(folder, label_column="z")
    with pytest.raises(LoadError, match="set, row 1, column 'b' is missing or NaN"):
        open_data(folder, label_column="y")
    source = open_data(folder, label_column="y", skip_bad=True)
    assert inputs(source).tolist() == [[1, 0.5], [3, 2.5]]
    assert (source.classes, source.labels.tolist(), source.skipped) == (("no",), [0, 0], 1)
    with pytest.raises(InputError, match=r"resize=\(2, 2\) works for images only"):
        open_data(folder, label_column="y", resize=(2, 2))


def test_numbers_keep_the_order_of_their_class_names(hf: Any, tmp_path: Path) -> None:
    features = hf.Features({"a": hf.Value("float32"), "y": hf.ClassLabel(names=["z", "b", "a"])})
    data = hf.Dataset.from_dict({"a": [1.0, 2.0, 3.0], "y": [0, 2, 2]}, features=features)
    source = open_data(save(data, tmp_path / "set"))
    assert (source.labels.tolist(), source.classes) == ([0, 2, 2], ("z", "b", "a"))


def test_splits(hf: Any, tmp_path: Path) -> None:
    parts = hf.DatasetDict({"train": pictures(hf), "test": pictures(hf).select(range(2))})
    folder = save(parts, tmp_path / "both")
    default = open_data(folder)
    assert (default.len_hint, default.notes[0]) == (2, "split not given: test is used")
    assert open_data(folder, split="train").len_hint == 6
    folder = save(hf.DatasetDict({"validation": pictures(hf)}), tmp_path / "one")
    with pytest.raises(LoadError, match="holds neither a test nor a train split but validation: pass the path"):
        open_data(folder)
    with pytest.raises(LoadError, match="holds no split 'test' but validation"):
        open_data(folder, split="test")
    assert open_data(folder / "validation").len_hint == 6
    with pytest.raises(InputError, match="split='test' has no meaning"):
        open_data(folder / "validation", split="test")


def test_a_selection_reads_its_own_rows_and_the_fingerprint_covers_all_shards(hf: Any, tmp_path: Path) -> None:
    folder = save(pictures(hf).select([5, 0, 2]), tmp_path / "set", num_shards=2)
    source = open_data(folder)
    assert torch.equal(inputs(source), torch.from_numpy(PIXELS[[5, 0, 2]]).permute(0, 3, 1, 2).float() / 255)
    assert len(source.files) == 4
    before = source.fingerprint()
    save(pictures(hf).select([5, 0, 3]), tmp_path / "more", num_shards=2)
    last = sorted(source.files)[1]
    (folder / last).write_bytes((tmp_path / "more" / last).read_bytes())
    assert open_data(folder).fingerprint() != before


def test_several_image_columns_empty_sets_and_damage(hf: Any, tmp_path: Path) -> None:
    data = pictures(hf)
    folder = save(
        hf.concatenate_datasets([data, data.select_columns("img").rename_column("img", "more")], axis=1),
        tmp_path / "two",
    )
    with pytest.raises(LoadError, match="has the image columns img, more: keep one"):
        open_data(folder)
    with pytest.raises(LoadError, match="holds no rows"):
        open_data(save(data.select([]), tmp_path / "empty"))
    folder = save(data, tmp_path / "set")
    next(folder.glob("*.arrow")).write_bytes(b"nothing")
    with pytest.raises(LoadError, match=r"set cannot be read as a saved data set \(.*\): save it again"):
        open_data(folder)


def test_without_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for name in ("dataset_info.json", "state.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(MissingExtraError, match=r"datasets; run pip install 'signstep\[datasets\]'"):
        open_data(tmp_path)
