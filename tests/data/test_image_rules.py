"""One test per rule in the docstring of signstep.data.images."""

import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from signstep.data import DataSource, open_data
from signstep.data.images import Picture, read_images
from signstep.errors import LoadError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")
RNG = np.random.default_rng(0)
RED, WHITE = (255, 0, 0), (255, 255, 255)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    return tmp_path / "a"


def gather(folder: Path, **options: object) -> tuple[DataSource, Tensor]:
    source = open_data(folder.parent, **options)  # type: ignore[arg-type]
    return source, torch.cat([x for x, _ in source])


def bytes_of(pixels: tuple[int, ...]) -> Tensor:
    """A colour as (C, 1, 1) in [0, 1]."""
    return (torch.tensor(pixels).float() / 255).view(-1, 1, 1)


def noise(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def test_sixteen_bit_greyscale_is_divided_by_65535(folder: Path) -> None:
    values = np.array([[0, 1, 255], [256, 40000, 65535]], np.uint16)
    Image.fromarray(values).save(folder / "1.png")
    source, x = gather(folder)
    assert torch.equal(x[0, 0], torch.from_numpy(values.astype(np.float32)) / 65535)
    assert (source.shape, source.bounds) == ((1, 2, 3), (0.0, 1.0))
    assert "1 of 1 images in 16-bit greyscale, divided by 65535" in source.notes
    assert not any("divided by 255" in note for note in source.notes)
    Image.fromarray(np.full((4, 6), 40001, np.uint16)).save(folder / "1.png")
    _, small = gather(folder, resize=(3, 2))
    assert small.flatten().tolist() == pytest.approx([40001 / 65535] * 6, rel=1e-6)


def test_sixteen_bits_and_eight_bits_share_one_scale(folder: Path) -> None:
    Image.new("L", (2, 2), 128).save(folder / "1.png")
    Image.fromarray(np.full((2, 2), 128 * 257, np.uint16)).save(folder / "2.png")
    _, x = gather(folder)
    assert torch.allclose(x[0], x[1])
    Image.new("RGB", (2, 2), (128, 128, 128)).save(folder / "0.png")
    source, x = gather(folder)
    assert x.shape == (3, 3, 2, 2)
    assert torch.allclose(x[0], x[2])
    assert "2 of 3 images in grey, repeated in three channels as the first image has colour" in source.notes


def test_the_transparent_value_of_sixteen_bits_is_white(folder: Path) -> None:
    Image.fromarray(np.array([[7, 9]], np.uint16)).save(folder / "1.png")
    path = folder / "1.png"
    whole = path.read_bytes()
    body = b"tRNS" + struct.pack(">H", 7)
    at = whole.index(b"IDAT") - 4
    path.write_bytes(whole[:at] + struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body)) + whole[at:])
    source, x = gather(folder)
    assert x.flatten().tolist() == pytest.approx([1, 9 / 65535])
    assert "1 of 1 images with transparency, composited onto white" in source.notes


def test_sixteen_bits_per_colour_keep_the_upper_eight(folder: Path) -> None:
    pixel = struct.pack(">3H", 0x12FF, 0x8000, 0xFFFF)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">2I5B", 1, 1, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + pixel)) + chunk(b"IEND", b"")
    (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    source, x = gather(folder)
    assert torch.equal(x[0], bytes_of((0x12, 0x80, 0xFF)))
    assert "1 of 1 images with 16 bits per colour channel, of which the upper 8 are used" in source.notes


@pytest.mark.parametrize(("opacity", "expected"), [(255, RED), (0, WHITE), (51, (255, 204, 204))])
def test_transparency_is_composited_onto_white(folder: Path, opacity: int, expected: tuple[int, ...]) -> None:
    Image.new("RGBA", (1, 1), (*RED, opacity)).save(folder / "1.png")
    source, x = gather(folder)
    assert torch.equal(x[0], bytes_of(expected))
    assert "1 of 1 images with transparency, composited onto white" in source.notes


def test_grey_with_transparency_stays_grey(folder: Path) -> None:
    Image.new("LA", (1, 1), (0, 0)).save(folder / "1.png")
    _, x = gather(folder)
    assert x.tolist() == [[[[1.0]]]]


def test_palettes_become_their_colours_and_keep_transparency(folder: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(folder / "1.png")
    image.save(folder / "2.png", transparency=1)
    source, x = gather(folder)
    assert torch.equal(x[0], torch.cat([bytes_of(RED), bytes_of((0, 0, 255))], 2))
    assert torch.equal(x[1], torch.cat([bytes_of(RED), bytes_of(WHITE)], 2))
    assert "2 of 2 images with a palette, replaced by its colours" in source.notes
    assert "1 of 2 images with transparency, composited onto white" in source.notes


def test_cmyk_becomes_rgb(folder: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(folder / "1.jpg", quality=100)
    source, x = gather(folder)
    assert source.shape == (3, 8, 8)
    assert (x[0] - bytes_of(RED)).abs().max() < 0.02
    assert "1 of 1 images in CMYK, converted to RGB without a colour profile" in source.notes


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_exif_orientation_is_noted_and_decides_the_size(folder: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(4, 6, 3)).save(folder / f"1.{suffix}", exif=exif)
    source, x = gather(folder)
    assert tuple(x.shape[1:]) == source.shape == (3, 6, 4)
    assert "1 of 1 images turned upright by the EXIF orientation" in source.notes


def test_colour_becomes_grey_where_the_first_is_grey(folder: Path) -> None:
    Image.new("L", (1, 1)).save(folder / "1.png")
    Image.new("RGB", (1, 1), (10, 100, 200)).save(folder / "2.png")
    source, x = gather(folder)
    assert x[1].item() * 255 == pytest.approx(0.299 * 10 + 0.587 * 100 + 0.114 * 200, abs=0.51)
    assert "1 of 2 images in colour, turned grey as the first image is grey" in source.notes


def test_plain_images_need_one_note_on_their_scale(folder: Path) -> None:
    Image.fromarray(noise(2, 2, 3)).save(folder / "1.png")
    source, _ = gather(folder)
    assert source.notes == ("images are read in turn from each class", "bytes 0..255 divided by 255")
    assert source.skipped == 0


def test_the_first_frame_of_an_animation(folder: Path) -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in (RED, (0, 0, 255))]
    frames[0].save(folder / "1.png", save_all=True, append_images=frames[1:])
    _, x = gather(folder)
    assert torch.equal(x[0], bytes_of(RED).expand(3, 2, 2))


class Counted(BytesIO):
    """Bytes that count how often they are read."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)


@pytest.mark.filterwarnings("error")
def test_damaged_tags_write_no_line() -> None:
    """Pillow warns of each, as often as somebody sends one."""
    held = BytesIO()
    Image.fromarray(noise(6, 6)).save(held, "TIFF", description="x" * 50)
    whole = bytearray(held.getvalue())
    at = whole.index(struct.pack("<HHI", 270, 2, 51))
    whole[at + 4 : at + 12] = struct.pack("<II", 2**20, 2**20)
    (block,) = read_images([Picture("it", lambda: BytesIO(bytes(whole)))], (1, 6, 6), None, [1])
    assert block.shape == (1, 1, 6, 6)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_pages_behind_the_first_cost_nothing(kind: str) -> None:
    """A file of 8 MB may have a million of them, and to walk along those of a TIFF takes the square of their number."""
    frames = [Image.fromarray(noise(6, 6)) for _ in range(60)]
    reads = []
    for more in (3, 60):
        held = Counted()
        frames[0].save(held, kind, save_all=True, append_images=frames[1:more])
        held.seek(0)
        held.reads = 0
        (block,) = read_images([Picture("it", lambda held=held: held)], (1, 6, 6), None, [1])  # type: ignore[misc]
        reads.append(held.reads)
        assert kind == "WEBP" or np.array_equal(block[0, 0] * 255, np.asarray(frames[0]))
    assert reads[0] == reads[1]


@pytest.mark.parametrize("factor", [1.5, 3])  # Pillow warns of the first and refuses the second
def test_a_decompression_bomb_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    Image.fromarray(noise(10, 10, 3)).save(folder / "1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(100 / factor))
    with pytest.raises(LoadError, match=r"1.png cannot be read \(Image size .*decompression bomb.*; replace it"):
        gather(folder)


def bad(folder: Path) -> Path:
    """Two good images between a text and a truncated one."""
    for name in ("1.png", "3.png"):
        Image.fromarray(noise(9, 9, 3)).save(folder / name)
    (folder / "0.png").write_text("this is a text")
    truncated = folder / "2.jpg"
    Image.fromarray(noise(9, 9, 3)).save(truncated)
    truncated.write_bytes(truncated.read_bytes()[:-60])
    return folder


def test_a_text_and_a_truncated_file_are_named(folder: Path) -> None:
    bad(folder)
    with pytest.raises(LoadError, match=r"0.png cannot be read \(cannot identify image file\); .*\(skip_bad=True\)"):
        gather(folder)
    (folder / "0.png").unlink()
    with pytest.raises(LoadError, match=r"2.jpg cannot be read \(.*truncated"):
        gather(folder)


def test_bad_images_are_skipped_and_counted_before_the_first_batch(folder: Path) -> None:
    bad(folder)
    source = open_data(folder.parent, skip_bad=True, batch_size=1)
    assert (source.skipped, source.len_hint, source.total) == (2, 2, 2)
    assert any(
        note.startswith("2 images skipped because they cannot be read; the first: the image") and "0.png" in note
        for note in source.notes
    )
    for _ in range(2):
        x = torch.cat([x for x, _ in source])
        stored = np.stack([np.asarray(Image.open(folder / name)) for name in ("1.png", "3.png")])
        assert torch.equal(x, torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255)
    assert list(source.files) == ["a/1.png", "a/3.png"]


def test_labels_stay_with_their_images_when_some_are_skipped(folder: Path) -> None:
    bad(folder)
    (folder.parent / "b").mkdir()
    Image.new("RGB", (9, 9), RED).save(folder.parent / "b" / "1.png")
    source = open_data(folder.parent, skip_bad=True)
    ((x, y),) = source
    assert [bool(torch.equal(image, bytes_of(RED).expand(3, 9, 9))) for image in x] == (y == 1).tolist()
    assert y.tolist() == [1, 0, 0]


def test_the_limit_counts_images_that_can_be_used(folder: Path) -> None:
    bad(folder)
    source = open_data(folder.parent, skip_bad=True, limit=1)
    assert (source.len_hint, source.skipped, source.total) == (1, 1, 3)
    assert [len(x) for x, _ in source] == [1]


def test_no_image_that_can_be_used(folder: Path) -> None:
    (folder / "1.png").write_text("text")
    with pytest.raises(LoadError, match=r"none of 1 images can be used; the first: the image .*1.png cannot be read"):
        open_data(folder.parent, skip_bad=True)


def test_a_size_that_differs_is_a_choice_to_make_and_not_skipped(folder: Path) -> None:
    Image.new("RGB", (2, 2)).save(folder / "1.png")
    Image.new("RGB", (3, 2)).save(folder / "2.png")
    with pytest.raises(LoadError, match=r"2.png is 2x3 but .*1.png is 2x2"):
        gather(folder, skip_bad=True)


def test_the_digest_is_over_all_images_whatever_the_limit(folder: Path) -> None:
    for number in range(3):
        Image.fromarray(noise(4, 4, 3)).save(folder / f"{number}.png")
    whole, part = open_data(folder.parent), open_data(folder.parent, limit=1)
    assert part.len_hint == 1 < whole.len_hint
    before = whole.fingerprint()
    assert part.fingerprint() == before
    Image.fromarray(noise(4, 4, 3)).save(folder / "2.png")
    assert open_data(folder.parent, limit=1).fingerprint() != before


def test_the_first_that_reads_images_in_a_process_can(tmp_path: Path) -> None:
    """Pillow knows no format by itself: whoever comes first has to make it learn them."""
    Image.new("RGB", (3, 3), (255, 0, 0)).save(tmp_path / "a.png")
    code = (
        "from pathlib import Path\n"
        "from signstep.data.images import Picture, read_images\n"
        "print(next(read_images([Picture('a', lambda: Path('a.png'))], (3, 3, 3), None, [1])).amax().item())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "1.0", ended.stderr
