"""Training rows in a file beside the checkpoints, for data that is larger than memory."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from signstep.errors import LoadError

_NAME = "rows"


class Source(Protocol):
    """What is read once, in order."""

    @property
    def labels(self) -> Tensor:
        """All labels (N,)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""

    def __iter__(self) -> Any: ...

    def fingerprint(self) -> str:
        """SHA-256 of the files behind it."""


def spooled(source: Source, folder: Path) -> tuple["np.ndarray[Any, Any]", Tensor]:
    """All rows as a memory-mapped array (N, ...) in ``folder``, and the labels (N,).

    Rows that are whole 8-bit levels are kept as bytes, which training divides by 255 as the readers of images do: a
    quarter of the space, and the same floats. A file of an earlier run with the same data is used again.

    Raises:
        LoadError: the disk is full, or the folder cannot be written.
    """
    shape = (len(source.labels), *source.shape)
    print_ = source.fingerprint()[:12]
    for kind in ("bytes", "floats"):
        path = folder / f"{_NAME}-{print_}-{len(source.labels)}-{kind}.npy"
        if path.is_file():
            return np.load(path, mmap_mode="r"), source.labels
    try:
        kind = "bytes" if _write(source, folder / "rows.part", shape, np.dtype(np.uint8)) else "floats"
        if kind == "floats":
            _write(source, folder / "rows.part", shape, np.dtype(np.float32))
        path = folder / f"{_NAME}-{print_}-{len(source.labels)}-{kind}.npy"
        (folder / "rows.part").replace(path)
    except OSError as error:
        (folder / "rows.part").unlink(missing_ok=True)
        raise LoadError(
            f"{folder} cannot take the training rows ({error.strerror or error}); pass another folder, or leave "
            "--on-disk out"
        ) from error
    return np.load(path, mmap_mode="r"), source.labels


def unspool(folder: Path) -> None:
    """Remove what `spooled` left."""
    for path in folder.glob(f"{_NAME}-*.npy"):
        path.unlink(missing_ok=True)


def _write(source: Iterable[tuple[Tensor, Tensor]], path: Path, shape: tuple[int, ...], dtype: Any) -> bool:
    """Write all rows; False as soon as some are no whole levels and bytes are asked for."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        for x, _ in source:
            if dtype == np.uint8:
                levels = (x * 255).round().clamp(0, 255).to(torch.uint8)
                if not torch.equal(levels.float().div_(255), x):
                    return False
                file.write(levels.numpy().tobytes())
            else:
                file.write(x.float().contiguous().numpy().tobytes())
        file.flush()
        os.fsync(file.fileno())
    return True
