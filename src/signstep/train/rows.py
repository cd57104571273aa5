"""Where training rows come from: tensors in memory, arrays that may lie in a file, or a torch Dataset.

A step asks for the rows it needs; nothing else of a file or a Dataset is read.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from signstep.errors import InputError
from signstep.train.arriving import sent

Inputs: TypeAlias = "Tensor | np.ndarray[Any, Any] | Dataset[Any]"

_BLOCK, _SAMPLED = 1024, 1024


class Rows(Protocol):
    """Examples by number."""

    @property
    def classes(self) -> int | None:
        """How many the labels say there are; None where labels are not known beforehand."""

    def __len__(self) -> int: ...

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (R, ...) floating point and labels (R,) int64 of the rows (R,) int64."""

    def blocks(self) -> Iterator[Tensor]:
        """All inputs in pieces, to be looked at before training; nothing where that would cost a pass over files."""

    def digest(self) -> bytes:
        """Of the content: all of it in memory, about a thousand rows of what is not."""


def rows_of(x: Inputs, y: Tensor | None) -> Rows:
    """Rows from what people have.

    Args:
        x: a floating point tensor (N, ...); a NumPy array, perhaps memory-mapped, of floats or of bytes that are
            divided by 255; or a Dataset of single examples (x, y).
        y: labels (N,) int64; None with a Dataset.

    Raises:
        InputError: neither, or labels that do not fit.
    """
    if isinstance(x, Dataset):
        if y is not None:
            raise InputError("x is a Dataset, which has labels of its own; leave y out")
        return FromDataset(x)
    if isinstance(x, np.ndarray):
        if x.dtype.kind != "f" and x.dtype != np.uint8:
            raise InputError(
                f"x is an array of {x.dtype}; pass bytes, which are divided by 255, or floats in raw units"
            )
        _check(x, y)
        assert y is not None
        return Stored(x, y)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise InputError(
            f"x is {_said(x)}; pass a floating point tensor (N, ...) in raw input units, a NumPy array or a Dataset"
        )
    _check(x, y)
    assert y is not None
    return InMemory(x, y)


@dataclass(frozen=True)
class InMemory:
    """Two tensors.

    Attributes:
        x: inputs (N, ...).
        y: labels (N,).
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @property
    def classes(self) -> int | None:
        """The largest label and one."""
        return int(self.y.max()) + 1

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Rows`."""
        rows = sent(rows, self.x.device)
        return self.x[rows], self.y[rows]

    def blocks(self) -> Iterator[Tensor]:
        """See `Rows`."""
        yield self.x

    def digest(self) -> bytes:
        """See `Rows`."""
        digest = hashlib.sha256()
        for part in (self.x, self.y):
            digest.update(part.cpu().numpy().tobytes())
        return digest.digest()

    def on(self, device: torch.device, rows: Tensor) -> "InMemory":
        """These rows, on a device."""
        return InMemory(self.x[rows].to(device), self.y[rows].to(device))


@dataclass(frozen=True)
class Stored:
    """An array that may be larger than memory, such as ``numpy.load(path, mmap_mode="r")``, and its labels.

    Attributes:
        x: inputs (N, ...), floats in raw units, or bytes that are divided by 255.
        y: labels (N,).
        kept: the rows that there are (M,), or None for all.
    """

    x: "np.ndarray[Any, Any]"
    y: Tensor
    kept: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def classes(self) -> int | None:
        """The largest label and one."""
        return int(self.y.max()) + 1

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Rows`."""
        places = (rows if self.kept is None else self.kept[rows]).numpy()
        part = torch.from_numpy(np.ascontiguousarray(self.x[places]))
        # The same arithmetic as the readers of data: bytes as float32, then divided.
        x = part.float().div_(255) if part.dtype == torch.uint8 else part
        return (x if x.dtype in (torch.float32, torch.float64) else x.float()), self.y[rows]

    def blocks(self) -> Iterator[Tensor]:
        """See `Rows`."""
        if not isinstance(self.x, np.memmap):
            for start in range(0, len(self), _BLOCK):
                yield self.take(torch.arange(start, min(start + _BLOCK, len(self)), dtype=torch.int64, device="cpu"))[0]

    def digest(self) -> bytes:
        """See `Rows`."""
        return hashlib.sha256(_some(self) + self.y.numpy().tobytes()).digest()

    def only(self, rows: Tensor) -> "Stored":
        """These rows."""
        return Stored(self.x, self.y[rows], rows)


@dataclass(frozen=True)
class FromDataset:
    """A map-style Dataset of single examples (x, y): x a floating point tensor, y a class number.

    Attributes:
        data: the Dataset.
        kept: the rows that there are (M,), or None for all.
    """

    data: Dataset[Any]
    kept: Tensor | None = None

    @property
    def classes(self) -> int | None:
        """Not known before all examples were asked for."""
        return None

    def __len__(self) -> int:
        if self.kept is not None:
            return len(self.kept)
        try:
            return len(self.data)  # type: ignore[arg-type]
        except TypeError as error:
            raise InputError(
                f"x is a {type(self.data).__name__} without a length; pass a Dataset with examples by number"
            ) from error

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Rows`."""
        places = (rows if self.kept is None else self.kept[rows]).tolist()
        pairs = [self.data[place] for place in places]
        for place, pair in zip(places, pairs, strict=True):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise InputError(f"example {place} of x is a {type(pair).__name__}; each must be a pair (x, y)")
            if not isinstance(pair[0], Tensor) or not pair[0].is_floating_point():
                raise InputError(
                    f"example {place} of x has {_said(pair[0])}; make it a floating point tensor in raw input units"
                )
        return torch.stack([x for x, _ in pairs]), torch.tensor(
            [int(y) for _, y in pairs], dtype=torch.int64, device="cpu"
        )

    def blocks(self) -> Iterator[Tensor]:
        """See `Rows`."""
        return iter(())

    def digest(self) -> bytes:
        """See `Rows`; of a few rows, since a Dataset may draw its examples anew each time."""
        return hashlib.sha256(f"{type(self.data).__name__} {len(self)}".encode()).digest()

    def only(self, rows: Tensor) -> "FromDataset":
        """These rows."""
        return FromDataset(self.data, rows)


def chosen(rows: Rows, numbers: Tensor, device: torch.device) -> Rows:
    """The rows with these numbers; what is in memory moves to the device."""
    if isinstance(rows, InMemory):
        return rows.on(device, numbers)
    assert isinstance(rows, (Stored, FromDataset))
    return rows.only(numbers)


def _some(rows: Stored) -> bytes:
    sampled = torch.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED), dtype=torch.float32, device="cpu").long()
    return str((len(rows), rows.x.shape, rows.x.dtype)).encode() + rows.take(sampled)[0].numpy().tobytes()


def _check(x: "Tensor | np.ndarray[Any, Any]", y: Tensor | None) -> None:
    if x.ndim < 2:
        raise InputError(f"x has shape {tuple(x.shape)}; pass inputs (N, ...)")
    if not isinstance(y, Tensor) or y.shape != (len(x),) or y.is_floating_point():
        raise InputError(f"y is {_said(y)} for {len(x)} rows; pass class numbers, int64 ({len(x)},)")


def _said(part: object) -> str:
    return f"a tensor of shape {tuple(part.shape)}, {part.dtype}" if isinstance(part, Tensor) else type(part).__name__
