"""Nothing that data holds vanishes without a count: what is not read is in the source, in the notes and in records."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import signstep as ss
from signstep.cli import app
from signstep.data import open_data
from signstep.data.folder import SUFFIXES
from signstep.errors import InputError, LoadError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")
VALUES = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(VALUES + number).save(tmp_path / name / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".gif"])
def test_endings_that_are_read_give_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(VALUES).save(tmp_path / "a" / f"1{suffix.upper()}")
    ((x, _),) = open_data(tmp_path)
    assert torch.equal(x[0, 0], torch.from_numpy(VALUES).float() / 255)
    assert suffix in SUFFIXES


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_in_each_format(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a").mkdir()
    values = np.array([[0, 1, 255], [256, 40000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a" / f"1{suffix}")
    source = open_data(tmp_path)
    ((x, _),) = source
    assert torch.equal(x[0, 0], torch.from_numpy(values.astype(np.float32)) / 65535)
    assert any("16-bit greyscale" in note for note in source.notes)


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp"])
def test_of_several_pages_the_first_is_used_and_noted(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a").mkdir()
    pages = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "a" / f"1{suffix}", save_all=True, append_images=pages[1:], **_lossless(suffix))
    source = open_data(tmp_path)
    ((x, _),) = source
    assert torch.equal(x[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.0]))
    assert "1 of 1 images with several frames or pages, of which the first is used" in source.notes


def _lossless(suffix: str) -> dict[str, Any]:
    return {"lossless": True} if suffix == ".webp" else {}


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA", "LA", "1", "YCbCr"])
def test_modes_of_tiff_follow_the_rules(tmp_path: Path, mode: str) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (4, 4), "white").convert(mode).save(tmp_path / "a" / "1.tif")
    ((x, _),) = open_data(tmp_path)
    assert torch.equal(x, torch.ones_like(x))


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_modes_without_a_known_scale_are_refused(tmp_path: Path, mode: str) -> None:
    (tmp_path / "a").mkdir()
    Image.new(mode, (4, 4)).save(tmp_path / "a" / "1.tif")
    with pytest.raises(LoadError, match=rf"1\.tif has mode {mode}"):
        open_data(tmp_path)


BESIDE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another ending": (lambda root: (root / "a" / "x.heic").write_bytes(b"x"), "files with the ending .heic"),
    "no ending": (lambda root: (root / "a" / "image").write_bytes(b"x"), "files without an ending"),
    "deeper": (lambda root: _image(root / "a" / "more" / "x" / "1.png"), "images in folders inside of class folders"),
    "beside": (lambda root: _image(root / "1.png"), "images beside the class folders"),
    "a link to nothing": (
        lambda root: (root / "a" / "x.png").symlink_to(root / "none.png"),
        "entries that are no files (links to nothing, pipes, devices)",
    ),
    "a pipe": (
        lambda root: os.mkfifo(root / "a" / "x.png"),
        "entries that are no files (links to nothing, pipes, devices)",
    ),
    "a link in a circle": (
        lambda root: (root / "a" / "x.png").symlink_to(root / "a" / "x.png"),
        "entries that are no files (links to nothing, pipes, devices)",
    ),
}


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(VALUES).save(path)


@pytest.mark.parametrize("kind", BESIDE)
def test_what_is_not_read_is_counted_and_named(root: Path, kind: str) -> None:
    make, said = BESIDE[kind]
    make(root)
    source = open_data(root)
    assert (len(source.labels), source.left_out) == (6, {said: 1})
    assert any(note.startswith(f"not read: 1 {said}, such as ") for note in source.notes)


@pytest.mark.parametrize("name", [".DS_Store", ".hidden.png", "Thumbs.db", "README", "readme.md", "a.txt", "meta.json"])
def test_texts_and_hidden_files_are_no_images(root: Path, name: str) -> None:
    (root / "a" / name).write_bytes(b"x")
    source = open_data(root)
    assert not source.left_out
    assert not any("not read" in note for note in source.notes)


def test_many_endings_are_counted_together(root: Path) -> None:
    for number in range(40):
        for copy in range(1 + (number == 0)):
            (root / "a" / f"{copy}.e{number}").write_bytes(b"x")
    source = open_data(root)
    assert len(source.left_out) == 5
    assert sum(source.left_out.values()) == 41
    assert source.left_out["files with the ending .e0"] == 2
    assert source.left_out["files with other endings"] == 36


def test_links_that_lead_out_of_the_folder_are_followed_and_noted(root: Path, tmp_path_factory: Any) -> None:
    away = tmp_path_factory.mktemp("away") / "1.png"
    _image(away)
    (root / "a" / "9.png").symlink_to(away)
    (root / "a" / "8.png").symlink_to(root / "a" / "0.png")
    source = open_data(root)
    assert len(source.labels) == 8
    assert "1 of 8 images are links to files outside of the folder" in source.notes
    (root / "c").symlink_to(away.parent)
    assert "2 of 9 images are links to files outside of the folder" in open_data(root).notes


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "cannot identify image file"),
    "text": (lambda path: path.write_text("hello"), "cannot identify image file"),
    "truncated": (lambda path: path.write_bytes(_png()[:50]), "cannot be read"),
    "postscript": (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"), "identify"),
    "a bomb": (lambda path: Image.new("1", (6000, 5000)).save(path), "5000x6000 is over 25000000 pixels.*max_pixels="),
}


def _png() -> bytes:
    from io import BytesIO

    kept = BytesIO()
    Image.fromarray(VALUES).save(kept, "png")
    return kept.getvalue()


@pytest.mark.parametrize("kind", BAD)
def test_images_that_cannot_be_used_are_named_or_counted(root: Path, kind: str) -> None:
    make, said = BAD[kind]
    make(root / "a" / "00.png")
    with pytest.raises(LoadError, match=said):
        list(open_data(root, batch_size=1))
    source = open_data(root, skip_bad=True)
    assert source.left_out == {"examples that cannot be used": 1}
    assert any("1 images skipped" in note and "00.png" in note for note in source.notes)


def test_the_cap_on_pixels_can_be_moved(root: Path) -> None:
    with pytest.raises(LoadError, match="8x8 is over 63 pixels"):
        open_data(root, max_pixels=63)
    assert len(open_data(root, max_pixels=64).labels) == 6
    with pytest.raises(InputError, match="max_pixels=0"):
        open_data(root, max_pixels=0)
    with pytest.raises(InputError, match="max_pixels=5 works for folders of images only"):
        open_data("digits", max_pixels=5)


def _tables(folder: Path, labels: Any) -> dict[str, tuple[Path, dict[str, Any]]]:
    x = np.linspace(0, 1, 4 * len(labels), dtype=np.float32).reshape(-1, 4)
    np.savez(folder / "data.npz", x=x, y=np.asarray(labels))
    rows = "".join(f"{','.join(map(str, row))},{label}\n" for row, label in zip(x.tolist(), labels, strict=True))
    (folder / "data.csv").write_text(f"a,b,c,d,y\n{rows}")
    (folder / "shards").mkdir()
    for part in range(2):
        np.savez(folder / "shards" / f"{part}.npz", x=x[part::2], y=np.asarray(labels)[part::2])
    return {
        "npz": (folder / "data.npz", {}),
        "csv": (folder / "data.csv", {"label_column": "y"}),
        "shards": (folder / "shards", {}),
    }


@pytest.mark.parametrize("kind", ["npz", "csv", "shards"])
@pytest.mark.parametrize("ignore", [-100, 255])
def test_a_label_to_ignore_is_left_out_wherever_it_is_read(tmp_path: Path, kind: str, ignore: int) -> None:
    labels = [0, ignore, 1, 2, ignore, 0, 1]
    path, options = _tables(tmp_path, labels)[kind]
    source = open_data(path, ignore_label=ignore, batch_size=2, **options)
    plain = open_data(path, **options) if ignore > 0 else None
    assert source.labels.tolist() == [label for label in _in_order(labels, kind) if label != ignore]
    assert source.left_out == {f"with the label {ignore}, which is to be ignored": 2}
    x = torch.cat([x for x, _ in source])
    assert [len(x) for x, _ in source] == [2, 2, 1]
    assert len(x) == 5
    if plain is not None:
        whole = torch.cat([x for x, _ in plain])
        assert torch.equal(x, whole[plain.labels != ignore])
    else:
        with pytest.raises(LoadError, match=r"-100.*ignore_label="):
            open_data(path, **options)
    few = open_data(path, ignore_label=ignore, limit=3, **options)
    assert few.labels.tolist() == source.labels.tolist()[:3]
    assert torch.equal(torch.cat([x for x, _ in few]), x[:3])


def _in_order(labels: list[int], kind: str) -> list[int]:
    return labels[::2] + labels[1::2] if kind == "shards" else labels


def test_nothing_but_the_label_to_ignore(tmp_path: Path) -> None:
    path, _ = _tables(tmp_path, [255] * 4)["npz"]
    with pytest.raises(LoadError, match="all 4 labels are 255"):
        open_data(path, ignore_label=255)


def test_a_named_label_and_a_number_to_ignore(tmp_path: Path) -> None:
    path, options = _tables(tmp_path, ["cat", -1, "dog", "cat"])["csv"]
    source = open_data(path, ignore_label=-1, **options)
    assert (source.classes, source.labels.tolist()) == (("cat", "dog"), [0, 1, 0])
    ordered = open_data(path, ignore_label=-1, classes=["dog", "cat"], **options)
    assert ordered.labels.tolist() == [1, 0, 1]


NETS = """
import torch
from torch import nn
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
def pixels():
    torch.manual_seed(0)
    return nn.Conv2d(1, 3, 1)
"""


def _run(*words: str) -> Any:
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code == 0, found.output
    return found


def test_the_command_line_leaves_out_counts_and_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leftnets.py").write_text(NETS)
    path, _ = _tables(tmp_path, [0, 255, 1, 2, 255, 0, 1])["npz"]
    common = ["audit", "--model", "leftnets:net", "--data", str(path), "--threat", "linf:0.1", "--attack", "fgsm"]
    common += ["--ignore-label", "255"]
    text = _run(*common, "--out", "whole").output
    whole = ss.Result.load(tmp_path / "whole" / "result.json")
    said = {"with the label 255, which is to be ignored": 2}
    assert (whole.examples, whole.terms["left_out"]) == (5, said)
    for page in ("index.html", "CHECKLIST.md"):
        if (tmp_path / "whole" / page).is_file() and page == "index.html":
            assert "with the label 255" in (tmp_path / "whole" / page).read_text(encoding="utf-8")
    assert "2 with the label 255" in text
    mine = ["--model", "leftnets:net", "--data", str(path), "--ignore-label", "255"]
    _run("verify", "whole", *mine)
    for part in range(2):
        _run(*common, "--out", f"part{part}", "--shard", f"{part}/2")
    _run("merge", "part0", "part1", "--out", "joined")
    assert ss.Result.load(tmp_path / "joined" / "result.json").terms["left_out"] == said
    predicted = _run(*common, "--out", "predicted", "--predicted-labels", "--json")
    assert "with the label 255" in predicted.output


def test_maps_of_classes_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mapnets.py").write_text(NETS)
    x = np.random.default_rng(0).random((4, 1, 4, 4)).astype(np.float32)
    y = np.random.default_rng(1).integers(0, 3, (4, 4, 4))
    y[0], y[1, 0] = 255, 255
    np.savez(tmp_path / "maps.npz", x=x, y=y)
    common = ["audit", "--model", "mapnets:pixels", "--data", "maps.npz", "--threat", "linf:0.1", "--attack", "fgsm"]
    _run(*common, "--task", "segmentation", "--ignore-label", "255", "--out", "maps")
    result = ss.Result.load(tmp_path / "maps" / "result.json")
    assert (result.examples, result.terms["left_out"]) == (3, {"with the label 255, which is to be ignored": 1})
    task = ss.Segmentation(ignore=255)
    torch.manual_seed(0)
    plain = ss.audit(ss.Model(nn.Conv2d(1, 3, 1), task=task), (x[1:], y[1:]), threat=ss.linf(0.1), attacks=["fgsm"])
    assert plain.per_example.verdicts == result.per_example.verdicts
