import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from signstep.data import open_data
from signstep.errors import InputError, LoadError, MissingExtraError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")
RNG = np.random.default_rng(0)


def paint(path: Path, *, height: int = 4, width: int = 6, mode: str = "RGB", **options: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = RNG.integers(0, 256, (height, width, *channels), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Two cats, three dogs."""
    for name in ("dog/1.png", "dog/2.PNG", "dog/3.png", "cat/1.png", "cat/2.bmp"):
        path = paint(tmp_path / name.lower())
        path.rename(tmp_path / name)
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_classes_are_numbered_by_name_and_read_in_turn(zoo: Path) -> None:
    source = open_data(zoo, batch_size=2)
    for _ in range(2):
        batches = list(source)
        assert [y.tolist() for _, y in batches] == [[0, 1], [0, 1], [1]]
        order = ["cat/1.png", "dog/1.png", "cat/2.bmp", "dog/2.PNG", "dog/3.png"]
        stored = np.stack([np.asarray(Image.open(zoo / name)) for name in order])
        expected = torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255
        assert torch.equal(torch.cat([x for x, _ in batches]), expected)
    assert (source.classes, source.bounds, source.shape) == (("cat", "dog"), (0.0, 1.0), (3, 4, 6))
    assert source.len_hint == 5


def test_limit_covers_the_classes(zoo: Path) -> None:
    source = open_data(zoo, limit=3)
    assert [y.tolist() for _, y in source] == [[0, 1, 0]]
    assert "the first 3 of 5 examples" in source.description


def test_the_fingerprint_sees_names_and_content_not_the_place(
    zoo: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = open_data(zoo).fingerprint()
    moved = zoo.rename(tmp_path_factory.mktemp("elsewhere") / "zoo")
    assert open_data(moved).fingerprint() == before
    (moved / "cat" / "1.png").rename(moved / "dog" / "0.png")
    assert open_data(moved).fingerprint() != before


def test_grey_images_keep_one_channel_and_the_first_one_decides(tmp_path: Path) -> None:
    paint(tmp_path / "a" / "1.png", mode="L")
    paint(tmp_path / "b" / "1.png", mode="RGB")
    ((x, _),) = open_data(tmp_path)
    assert x.shape == (2, 1, 4, 6)
    paint(tmp_path / "a" / "0.png", mode="RGB")
    ((x, _),) = open_data(tmp_path)
    assert x.shape == (3, 3, 4, 6)
    assert torch.equal(x[2, 0], x[2, 1])


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    path = paint(tmp_path / "a" / "1.png", exif=exif)
    ((x, _),) = open_data(tmp_path)
    stored = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255
    assert torch.equal(x[0], stored.rot90(-1, (1, 2)))


def test_resize_brings_all_to_one_size(zoo: Path) -> None:
    paint(zoo / "cat" / "3.jpg", height=9, width=5)
    source = open_data(zoo, resize=(3, 2))
    ((x, _),) = source
    assert x.shape == (6, 3, 3, 2)
    assert any("resized to 3x2" in note for note in source.notes)


def test_sizes_that_differ(zoo: Path) -> None:
    path = paint(zoo / "dog" / "4.png", height=9, width=5)
    with pytest.raises(LoadError, match=r"4.png is 9x5 but .*1.png is 4x6 \(height x width\); pass resize="):
        list(open_data(zoo))
    path.unlink()
    list(open_data(zoo))


def test_classes_named_by_numbers_are_sorted_as_text_and_noted(tmp_path: Path) -> None:
    for name in ("2", "10"):
        paint(tmp_path / name / "1.png")
    source = open_data(tmp_path)
    assert source.classes == ("10", "2")
    assert any("the folders 10, 2, ... are taken for the classes 0, 1, 2" in note for note in source.notes)
    (tmp_path / "2").rename(tmp_path / "0")
    (tmp_path / "10").rename(tmp_path / "1")
    assert not any("are taken for the classes" in note for note in open_data(tmp_path).notes)


def test_images_that_cannot_be_read_are_named(zoo: Path) -> None:
    path = zoo / "dog" / "2.PNG"
    whole = path.read_bytes()
    for content in (whole[:60], b"not an image", b""):
        path.write_bytes(content)
        with pytest.raises(LoadError, match=r"the image .*2.PNG cannot be read \(.*\); replace it or remove it"):
            list(open_data(zoo))


def test_a_class_without_images(zoo: Path) -> None:
    (zoo / "emu").mkdir()
    with pytest.raises(LoadError, match=r"the class folder .*emu holds no images .*; fill it or remove it"):
        open_data(zoo)
    (zoo / "emu" / "more").mkdir()
    with pytest.raises(LoadError, match=r"pass .*emu if its folders are the classes"):
        open_data(zoo)


def test_images_without_class_folders(tmp_path: Path) -> None:
    paint(tmp_path / "1.png")
    with pytest.raises(LoadError, match="holds images but no class folders"):
        open_data(tmp_path)


def test_split_means_nothing_here(zoo: Path) -> None:
    with pytest.raises(InputError, match="split='test' has no meaning for"):
        open_data(zoo, split="test")


def test_without_pillow(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"pillow; run pip install 'signstep\[images\]'"):
        open_data(zoo)
