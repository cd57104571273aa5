"""CIFAR-10 from wherever it lies: the official python or binary files, a .npz, or the subset beside the checkout.

Images come as bytes (N, 3, 32, 32), labels as int64 (N,); training and audits divide the bytes by 255.
"""

import importlib
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from signstep.errors import LoadError, MissingExtraError

_PIXELS = 3 * 32 * 32
# Where NumPy 1 and NumPy 2 keep what rebuilds an array.
_MULTIARRAY = "numpy._core.multiarray" if int(np.__version__.partition(".")[0]) > 1 else "numpy.core.multiarray"


class Cifar10(NamedTuple):
    """Both splits, and how they were found."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    source: str


def load_cifar10(folder: Path) -> Cifar10:
    """Both splits of CIFAR-10.

    Args:
        folder: ``cifar-10-batches-py``, ``cifar-10-batches-bin`` or a folder that holds one of them; a .npz with
            x_train, y_train, x_test and y_test in bytes; or a folder with the subset (``train_10k_webp``,
            ``train_10k_labels.npy``, ``test_first1000.npz``).

    Raises:
        LoadError: nothing of the kind is there.
        MissingExtraError: the subset's sheets need Pillow.
    """
    if folder.suffix == ".npz" and folder.is_file():
        with np.load(folder, allow_pickle=False) as archive:
            parts = [archive[name] for name in ("x_train", "y_train", "x_test", "y_test")]
        return _made(parts, str(folder))
    for place in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        for suffix, read in ((".bin", _binary), ("", _pickled)):
            files = [place / f"data_batch_{number}{suffix}" for number in range(1, 6)]
            test = place / f"test_batch{suffix}"
            if test.is_file() and all(file.is_file() for file in files):
                train = [read(file) for file in files]
                found = [np.concatenate([part[side] for part in train]) for side in (0, 1)]
                return _made([*found, *read(test)], str(place))
    if (folder / "train_10k_webp").is_dir():
        return _made([*_sheets(folder), *_first(folder / "test_first1000.npz")], f"{folder} (a subset)")
    raise LoadError(
        f"{folder} holds no CIFAR-10: pass the folder cifar-10-batches-py or cifar-10-batches-bin of the official "
        "archives, or a .npz with x_train, y_train, x_test and y_test"
    )


def _made(parts: Sequence[Any], source: str) -> Cifar10:
    images = [_images(np.asarray(x), source) for x in (parts[0], parts[2])]
    labels = [torch.from_numpy(np.asarray(y).reshape(-1).astype(np.int64)) for y in (parts[1], parts[3])]
    return Cifar10(images[0], labels[0], images[1], labels[1], source)


def _images(x: Any, source: str) -> Tensor:
    if x.dtype != np.uint8 or x.size != len(x) * _PIXELS:
        raise LoadError(f"{source}: images are {x.dtype} {x.shape}; CIFAR-10 has bytes (N, 32, 32, 3)")
    last = x.ndim == 4 and x.shape[-1] == 3
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2) if last else x.reshape(-1, 3, 32, 32)))


def _binary(path: Path) -> tuple[Any, Any]:
    """Records of a label and 3,072 bytes, colour by colour."""
    records = np.fromfile(path, np.uint8)
    if records.size % (1 + _PIXELS):
        raise LoadError(f"{path} has {records.size} bytes, no multiple of {1 + _PIXELS}: download it again")
    records = records.reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0]


class _Arrays(pickle.Unpickler):
    """Only what the official pickles hold: containers and NumPy arrays. Anything else could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return super().find_class(_MULTIARRAY, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return super().find_class(module, name)
        raise LoadError(f"the pickle asks for {module}.{name}, which CIFAR-10 does not need: download it again")


def _pickled(path: Path) -> tuple[Any, Any]:
    """The python version: a dict with b"data" (N, 3072) and b"labels"."""
    try:
        found = _Arrays(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        return found[b"data"], found[b"labels"]
    except (pickle.UnpicklingError, KeyError, EOFError, TypeError) as error:
        raise LoadError(f"{path} is no batch of CIFAR-10 ({error}): download it again") from error


def _sheets(folder: Path) -> tuple[Any, Any]:
    """Sheets of 25 x 40 tiles, row by row."""
    try:
        image = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise MissingExtraError("pillow", "images") from error
    tiles = []
    for path in sorted((folder / "train_10k_webp").glob("*.webp")):
        with image.open(path) as sheet:
            pixels = np.asarray(sheet.convert("RGB"))
        rows, columns = pixels.shape[0] // 32, pixels.shape[1] // 32
        tiles.append(pixels.reshape(rows, 32, columns, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3))
    return np.concatenate(tiles), np.load(folder / "train_10k_labels.npy")


def _first(path: Path) -> tuple[Any, Any]:
    with np.load(path, allow_pickle=False) as archive:
        return archive["x"], archive["y"]
