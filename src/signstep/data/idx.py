"""MNIST's IDX files, plain or compressed with gzip.

An images file is ``00 00 08 03``, three big-endian uint32 (count, height, width) and count * height * width bytes; a
labels file is ``00 00 08 01``, one uint32 (count) and count bytes (LeCun, Cortes and Burges, "The MNIST database").
"""

import gzip
import io
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from signstep.data.batches import DataSource
from signstep.errors import InputError, LoadError
from signstep.io.archives import MOST_RATIO, SLACK, check_unpacked
from signstep.io.caps import current, how
from signstep.messages import Arg

IMAGES_NAME = re.compile(r"(?P<prefix>.*)images(?P<dot>[-.])idx3-ubyte(?:\.gz)?")
_PREFIX = {"test": "t10k-", "train": "train-"}
_SHOWN = {"test": "t10k-images-idx3-ubyte[.gz]", "train": "train-images-idx3-ubyte[.gz]"}


def open_idx_folder(folder: Path, *, split: str | None, batch_size: int) -> DataSource:
    """The pair of a split in a folder: the test pair unless said otherwise, the train pair where it is the only one."""
    found = {name: path for name in _PREFIX if (path := _find_images(folder, name)) is not None}
    chosen = split or next(iter(found))
    if chosen not in found:
        raise LoadError(
            f"{folder} holds no {_SHOWN[chosen]}", remedy=("put it there, or pass", Arg("split", next(iter(found))))
        )
    notes = () if split else (f"split not given: the {chosen} images are used",)
    return open_idx(found[chosen], batch_size=batch_size, notes=notes)


def holds_idx(folder: Path) -> bool:
    """Whether a folder holds the images file of a split."""
    return any(_find_images(folder, split) is not None for split in _PREFIX)


def open_idx(images: Path, *, batch_size: int, notes: tuple[str, ...] = ()) -> DataSource:
    """The images in a file, with the labels that lie beside it.

    Raises:
        LoadError: If a file is missing, is not IDX, is shorter than its header says, or the counts differ.
    """
    labels_file = _find_labels(images)
    with _open(images) as stream:
        count, height, width = _header(stream, images, dimensions=3)
    if height * width > current().pixels:
        raise LoadError(
            f"{images} has images of {height}x{width}, over {current().pixels} pixels",
            remedy=f"cut them smaller, or {how('pixels')}",
        )
    if count * height * width == 0:
        raise LoadError(
            f"{images} holds no pixels: its header says {count} images of {height}x{width}", remedy="download it again"
        )
    _check_size(images, 16 + count * height * width)
    with _open(labels_file) as stream:
        (label_count,) = _header(stream, labels_file, dimensions=1)
        if label_count != count:
            raise LoadError(
                f"{images.name} holds {count} images but {labels_file.name} {label_count} labels",
                remedy="put two files that belong together there",
            )
        _check_claim(labels_file, 8 + count)
        labels = np.frombuffer(_exactly(stream, label_count, labels_file), np.uint8)

    def read(sizes: Sequence[int]) -> Iterator[Tensor]:
        with _open(images) as stream:
            _header(stream, images, dimensions=3)
            for size in sizes:
                block = np.frombuffer(_exactly(stream, size * height * width, images), np.uint8)
                yield torch.from_numpy(block.reshape(size, 1, height, width).astype(np.float32)) / 255

    return DataSource(
        name=str(images),
        labels=torch.from_numpy(labels.astype(np.int64)),
        shape=(1, height, width),
        read=read,
        files={images.name: images, labels_file.name: labels_file},
        batch_size=batch_size,
        total=count,
        bounds=(0.0, 1.0),
        notes=(*notes, "bytes 0..255 divided by 255"),
        treatment=("bytes / 255", "float32"),
    )


def _find_images(folder: Path, split: str) -> Path | None:
    names = (f"{_PREFIX[split]}images{dot}idx3-ubyte{packed}" for dot in "-." for packed in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _find_labels(images: Path) -> Path:
    match = IMAGES_NAME.fullmatch(images.name)
    if match is None:
        raise InputError(
            f"expected a file named *images-idx3-ubyte[.gz], got {images.name}", remedy="pass the images file"
        )
    name = f"{match['prefix']}labels{match['dot']}idx1-ubyte"
    for labels in (images.with_name(name), images.with_name(f"{name}.gz")):
        if labels.is_file():
            return labels
    raise LoadError(f"{images} has no labels beside it", remedy=f"put {name}[.gz] in the same folder")


def _open(path: Path) -> io.BufferedIOBase:
    """Decided by content: browsers unpack downloads and keep the name."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _header(stream: io.BufferedIOBase, path: Path, *, dimensions: int) -> tuple[int, ...]:
    magic = _exactly(stream, 4, path)
    expected = bytes([0, 0, 8, dimensions])
    if magic != expected:
        raise LoadError(
            f"{path} is no IDX file of unsigned bytes with {dimensions} dimension(s): it starts with "
            f"{magic.hex(' ')} instead of {expected.hex(' ')}",
            remedy="download it again",
        )
    return struct.unpack(f">{dimensions}I", _exactly(stream, 4 * dimensions, path))


def _check_size(path: Path, expected: int) -> None:
    """Tell a truncated plain file before the work starts; a packed one as far as its size can tell."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    size = path.stat().st_size
    if size != expected and not packed:
        raise LoadError(f"{path} has {size} bytes but its header asks for {expected}", remedy="download it again")
    _check_claim(path, expected)


def _check_claim(path: Path, expected: int) -> None:
    """No file unpacks to more than that."""
    size = path.stat().st_size
    if expected > MOST_RATIO * size + SLACK:
        raise LoadError(f"{path} has {size} bytes but its header asks for {expected}", remedy="download it again")
    if expected > size:
        check_unpacked(path, "the file", expected, size)


def _exactly(stream: io.BufferedIOBase, count: int, path: Path) -> bytes:
    try:
        data = stream.read(count)
    except (EOFError, OSError, zlib.error) as error:
        raise LoadError(f"{path} is damaged ({error})", remedy="download it again") from error
    if len(data) != count:
        raise LoadError(f"{path} is truncated: {count} bytes wanted, {len(data)} left", remedy="download it again")
    return data
