"""Training rows in a file beside the checkpoints, for data that is larger than memory."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from signstep.errors import LoadError
from signstep.io.files import WriteError, written
from signstep.messages import Arg

_NAME = "rows"


class _NotLevelsError(Exception):
    """Rows that are no whole 8-bit levels."""


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


def rows_on_disk(source: Source, folder: Path) -> tuple["np.ndarray[Any, Any]", Tensor]:
    """All rows as a memory-mapped array (N, ...) in ``folder``, and the labels (N,).

    Rows that are whole 8-bit levels are kept as bytes, which training divides by 255 as the readers of images do: a
    quarter of the space, and the same floats. A file of an earlier run with the same data is used again.

    Raises:
        LoadError: the disk is full, or the folder cannot be written.
    """
    for kind in ("bytes", "floats"):
        path = _place(source, folder, kind)
        if path.is_file():
            return np.load(path, mmap_mode="r"), source.labels
    try:
        try:
            path = _kept(source, folder, "bytes", np.uint8)
        except _NotLevelsError:
            path = _kept(source, folder, "floats", np.float32)
    except WriteError as error:
        raise LoadError(
            f"{folder} cannot take the training rows ({error.reason})",
            remedy=("pass another folder, or leave out", Arg("on_disk")),
        ) from error
    return np.load(path, mmap_mode="r"), source.labels


def _kept(source: Source, folder: Path, kind: str, dtype: Any) -> Path:
    path = _place(source, folder, kind)
    with written(path) as temporary:
        _write(source, temporary, (len(source.labels), *source.shape), np.dtype(dtype))
    return path


def _place(source: Source, folder: Path, kind: str) -> Path:
    return folder / f"{_NAME}-{source.fingerprint()[:12]}-{len(source.labels)}-{kind}.npy"


def remove_rows(folder: Path) -> None:
    """Remove what `spooled` left."""
    for path in folder.glob(f"{_NAME}-*.npy"):
        path.unlink(missing_ok=True)


def _write(source: Iterable[tuple[Tensor, Tensor]], path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    """Write all rows.

    Raises:
        _NotLevelsError: bytes are asked for, and some rows are no whole levels.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        for x, _ in source:
            if dtype == np.uint8:
                levels = (x * 255).round().clamp(0, 255).to(torch.uint8)
                if not torch.equal(levels.float().div_(255), x):
                    raise _NotLevelsError
                file.write(levels.numpy().tobytes())
            else:
                file.write(x.float().contiguous().numpy().tobytes())
