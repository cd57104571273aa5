import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from signstep.data import open_data
from signstep.errors import InputError, LoadError

SHARED = Path(__file__).parents[2] / ".." / "shared"
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)
LABELS = np.arange(7, dtype=np.uint8)


def images_file(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = PIXELS, magic: int = 0x803) -> bytes:
    return struct.pack(">4I", magic, *pixels.shape) + pixels.tobytes()


def labels_file(labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = LABELS, magic: int = 0x801) -> bytes:
    return struct.pack(">2I", magic, len(labels)) + labels.tobytes()


def write_pair(folder: Path, prefix: str = "t10k-", *, packed: bool = False, count: int = 7, dot: str = "-") -> Path:
    suffix, pack = (".gz", gzip.compress) if packed else ("", bytes)
    folder.joinpath(f"{prefix}labels{dot}idx1-ubyte{suffix}").write_bytes(pack(labels_file(LABELS[:count])))
    images = folder / f"{prefix}images{dot}idx3-ubyte{suffix}"
    images.write_bytes(pack(images_file(PIXELS[:count])))
    return images


@pytest.mark.parametrize("packed", [False, True])
def test_a_pair_is_read_twice_in_ragged_batches(tmp_path: Path, packed: bool) -> None:
    source = open_data(write_pair(tmp_path, packed=packed), batch_size=3)
    for _ in range(2):
        batches = list(source)
        assert [len(x) for x, _ in batches] == [3, 3, 1]
        assert torch.equal(torch.cat([x for x, _ in batches]), torch.from_numpy(PIXELS).unsqueeze(1).float() / 255)
        assert torch.cat([y for _, y in batches]).tolist() == LABELS.tolist()
    assert (source.len_hint, source.shape, source.bounds) == (7, (1, 5, 4), (0.0, 1.0))


def test_limit_and_fingerprint(tmp_path: Path) -> None:
    images = write_pair(tmp_path)
    short = open_data(images, limit=2)
    assert [y.tolist() for _, y in short] == [[0, 1]]
    before = short.fingerprint()
    assert open_data(images).fingerprint() == before
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels_file(LABELS[::-1].copy()))
    assert open_data(images).fingerprint() != before


def test_a_folder_gives_its_test_pair_unless_told_otherwise(tmp_path: Path) -> None:
    write_pair(tmp_path, "train-", count=5)
    only = open_data(tmp_path)
    assert (only.len_hint, only.notes[0]) == (5, "split not given: the train images are used")
    write_pair(tmp_path, packed=True)
    default = open_data(tmp_path)
    assert (default.len_hint, default.notes[0]) == (7, "split not given: the test images are used")
    assert open_data(tmp_path, split="train").len_hint == 5
    assert "split not given: the test images are used" not in open_data(tmp_path, split="test").notes


def test_other_spellings_of_the_name_and_unpacked_gz(tmp_path: Path) -> None:
    assert open_data(write_pair(tmp_path, "", dot=".")).len_hint == 7
    images = write_pair(tmp_path)
    renamed = images.rename(tmp_path / f"{images.name}.gz")  # some browsers unpack and keep the name
    assert open_data(renamed).len_hint == 7


def test_wrong_splits(tmp_path: Path) -> None:
    images = write_pair(tmp_path)
    with pytest.raises(LoadError, match=r"holds no train-images-idx3-ubyte\[.gz\]; put it there, or pass split='test'"):
        open_data(tmp_path, split="train")
    with pytest.raises(InputError, match="split='train' has no meaning for"):
        open_data(images, split="train")


def test_missing_labels(tmp_path: Path) -> None:
    images = write_pair(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(LoadError, match=r"has no labels beside it; put t10k-labels-idx1-ubyte\[.gz\]"):
        open_data(images)


def test_bad_magic(tmp_path: Path) -> None:
    images = write_pair(tmp_path)
    images.write_bytes(images_file(magic=0x803).replace(b"\x08\x03", b"\x0d\x03", 1))
    with pytest.raises(LoadError, match="starts with 00 00 0d 03 instead of 00 00 08 03"):
        open_data(images)
    images.write_bytes(images_file())
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels_file(magic=0x803))
    with pytest.raises(LoadError, match="starts with 00 00 08 03 instead of 00 00 08 01"):
        open_data(images)


def test_counts_that_differ(tmp_path: Path) -> None:
    images = write_pair(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels_file(LABELS[:6]))
    with pytest.raises(LoadError, match="holds 7 images but t10k-labels-idx1-ubyte 6 labels"):
        open_data(images)


def test_truncated_plain_files_show_when_they_are_opened(tmp_path: Path) -> None:
    images = write_pair(tmp_path)
    images.write_bytes(images_file()[:-1])
    with pytest.raises(LoadError, match="has 155 bytes but its header asks for 156"):
        open_data(images)
    images.write_bytes(images_file()[:10])
    with pytest.raises(LoadError, match="is truncated: 12 bytes wanted, 6 left"):
        open_data(images)
    images.write_bytes(images_file())
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels_file()[:-2])
    with pytest.raises(LoadError, match="is truncated: 7 bytes wanted, 5 left"):
        open_data(images)


def test_truncated_packed_files_show_when_they_are_read(tmp_path: Path) -> None:
    images = write_pair(tmp_path, packed=True)
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) - 60])
    with pytest.raises(LoadError, match="is damaged"):
        list(open_data(images))
    images.write_bytes(gzip.compress(images_file()[:-4]))
    with pytest.raises(LoadError, match="is truncated: 20 bytes wanted, 16 left"):
        list(open_data(images, batch_size=1))


def test_no_images(tmp_path: Path) -> None:
    images = write_pair(tmp_path, count=0)
    with pytest.raises(LoadError, match="holds no pixels: its header says 0 images of 5x4"):
        open_data(images)


@pytest.mark.skipif(not (SHARED / "data" / "mnist").is_dir(), reason="needs ../shared/data/mnist beside the checkout")
def test_the_real_mnist() -> None:
    source = open_data(SHARED / "data" / "mnist", limit=1000, batch_size=300)
    assert source.description.endswith("the first 1000 of 10000 examples of shape 1x28x28")
    x, y = next(iter(source))
    assert y[:5].tolist() == [7, 2, 1, 0, 4]
    assert x.mean().item() == pytest.approx(0.13, abs=0.02)
