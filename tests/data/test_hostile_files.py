"""Files of data that lie about their size, and names that no record can hold: one sentence, and no memory."""

import gzip
import io
import os
import resource
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from signstep.data import open_data
from signstep.errors import LoadError


def _npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def _plain(array: Any) -> bytes:
    kept = io.BytesIO()
    np.save(kept, array)
    return kept.getvalue()


X = np.zeros((4, 3), np.float32)
Y = np.zeros(4, np.int64)
HUGE = "{{'descr': '{}', 'fortran_order': {}, 'shape': {}, }}"


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (_plain(X), _npy(HUGE.format("<i8", False, (2**33,)))),
        (_plain(X), _npy(HUGE.format("<i8", True, (2**33, 1)))),
        (_npy(HUGE.format("<f4", True, (4, 2**40))), _plain(Y)),
        (_npy(HUGE.format("<f4", False, (4, 2**62, 2**62))), _plain(Y)),
        (_npy(HUGE.format("<f4", False, (-4, -3))), _plain(Y)),
        (_npy(HUGE.format("<f4", False, "(4, 'a')")), _plain(Y)),
        (_npy("{'descr': [('a', '<f4')] * 9, 'fortran_order': False, 'shape': (4,)}"), _plain(Y)),
        (_npy("(" * 60), _plain(Y)),
        (_npy("{}"), _plain(Y)),
        (b"\x93NUMPY\x09\x00" + bytes(60), _plain(Y)),
        (b"", _plain(Y)),
        (_plain(X)[:-1], _plain(Y)),
        (_plain(X) + b"more", _plain(Y)),
    ],
)
def test_headers_of_arrays_that_lie(tmp_path: Path, x: bytes, y: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x.npy", x)
        archive.writestr("y.npy", y)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LoadError) as caught:
        list(open_data(tmp_path / "data.npz"))
    assert "\n" not in str(caught.value)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 512 * 2**20


def test_an_archive_with_two_arrays_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        for name, content in (("x", X), ("y", Y)):
            archive.writestr(f"{name}.npy", _plain(content))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("y.npy", _plain(Y + 1))
    with pytest.raises(LoadError, match=r"two entries named 'y\.npy'"):
        open_data(tmp_path / "data.npz")


def test_a_directory_that_claims_more_than_deflate_can_hold(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "data.npz", x=X, y=Y)
    whole = bytearray((tmp_path / "data.npz").read_bytes())
    at = whole.index(b"PK\x01\x02")
    whole[at + 24 : at + 28] = struct.pack("<I", 2**31)
    (tmp_path / "data.npz").write_bytes(whole)
    with pytest.raises(LoadError, match="claims 2147483648 bytes"):
        open_data(tmp_path / "data.npz")


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        ((2**31, 2, 2), (2**31,), "header asks for"),
        ((2, 2**16, 2**16), (2,), "over 25000000 pixels"),
        ((2, 2, 2), (2**32 - 1,), "put two files that belong together"),
    ],
)
def test_packed_idx_files_that_lie(tmp_path: Path, images: tuple[int, ...], labels: tuple[int, ...], said: str) -> None:
    for name, sizes in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)
        (tmp_path / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(head + bytes(8)))
    with pytest.raises(LoadError, match=said):
        open_data(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no such names")
@pytest.mark.parametrize("where", ["class", "image", "folder", "other", "shard"])
def test_names_that_are_not_utf8(tmp_path: Path, where: str) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")
    odd = os.fsdecode(b"\xff\xfe")
    root = tmp_path / (odd if where == "folder" else "data")
    inside = root / (odd if where == "class" else "a")
    inside.mkdir(parents=True)
    image.new("L", (4, 4)).save(inside / (f"{odd}.png" if where == "image" else "1.png"))
    if where == "shard":
        root = tmp_path / "shards"
        root.mkdir()
        np.savez(root / f"{odd}.npz", x=X, y=Y)
    if where == "other":
        (inside / f"{odd}.{odd}").write_bytes(b"x")
        source = open_data(root)
        text = "".join((*source.notes, *source.left_out))
        assert text.encode()
        assert sum(source.left_out.values()) == 1
        return
    with pytest.raises(LoadError, match=r"is not UTF-8.*rename it") as caught:
        open_data(root)
    assert str(caught.value).encode() or where
