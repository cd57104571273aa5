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

from signstep.engine import arrays
from signstep.engine.tasks import class_indices
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.train.async_copies import sent

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


def rows_of(x: Inputs, y: Tensor | arrays.Array | None, dtype: torch.dtype | None = None) -> Rows:
    """Rows from what people have.

    Args:
        x: a floating point tensor (N, ...); a NumPy array, perhaps memory-mapped, of floats or of bytes that are
            divided by 255; or a Dataset of single examples (x, y).
        y: labels (N,), class numbers from 0; None with a Dataset.
        dtype: of floats that come without a precision of their own, that is not in tensors; the model's.

    Raises:
        InputError: neither, or labels that do not fit.
    """
    if isinstance(x, Dataset):
        if y is not None:
            raise InputError(Arg("x"), "is a Dataset, which has labels of its own", remedy="leave y out")
        return FromDataset(x)
    if isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray):
        if x.dtype.kind != "f" and x.dtype != np.uint8:
            raise InputError(
                Arg("x"),
                f"is an array of {x.dtype}",
                remedy="pass bytes, which are divided by 255, or floats in raw units",
            )
        return Stored(x, _labels(x, y), dtype=dtype)
    if not arrays.is_array(x):
        raise InputError(
            Arg("x"),
            f"is {_said(x)}",
            remedy="pass a floating point tensor (N, ...) in raw input units, a NumPy array or a Dataset",
        )
    plain = arrays.one_tensor(x, arrays.Home(dtype=dtype)).detach()
    if not plain.is_floating_point():
        raise InputError(
            Arg("x"),
            f"is {_said(plain)}",
            remedy="pass a floating point tensor (N, ...) in raw input units, a NumPy array or a Dataset",
        )
    return InMemory(plain, _labels(plain, y))


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
        dtype: of the rows that are given; None leaves floats of 32 and 64 bits as they are.
    """

    x: "np.ndarray[Any, Any]"
    y: Tensor
    kept: Tensor | None = None
    dtype: torch.dtype | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def classes(self) -> int | None:
        """The largest label and one."""
        return int(self.y.max()) + 1

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Rows`."""
        places = (rows if self.kept is None else self.kept[rows]).numpy()
        part = torch.from_numpy(arrays.readable(self.x[places], "x", InputError))
        # The same arithmetic as the readers of data: bytes as float32, then divided.
        x = part.float().div_(255) if part.dtype == torch.uint8 else part
        return x.to(self.dtype or (x.dtype if x.dtype == torch.float64 else torch.float32)), self.y[rows]

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
        return Stored(self.x, self.y[rows], rows, self.dtype)


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
                Arg("x"),
                f"is a {type(self.data).__name__} without a length",
                remedy="pass a Dataset with examples by number",
            ) from error

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Rows`."""
        places = (rows if self.kept is None else self.kept[rows]).tolist()
        pairs = [self.data[place] for place in places]
        for place, pair in zip(places, pairs, strict=True):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise InputError(f"example {place} of x is a {type(pair).__name__}", remedy="make each a pair (x, y)")
        home = arrays.Home(dtype=torch.float32)
        xs, ys = [], []
        for place, (x, y) in zip(places, pairs, strict=True):
            plain = arrays.inputs(x, [], name=f"x of example {place}", home=home)
            if not isinstance(plain, Tensor) or not plain.is_floating_point():
                raise InputError(
                    f"example {place} of x has {_said(plain)}",
                    remedy="make it a floating point tensor in raw input units",
                )
            label = arrays.label(y, name=f"y of example {place}")
            xs.append(plain)
            ys.append(class_indices(label.reshape(-1), 1, None, f"y of example {place}"))
        shapes = {tuple(x.shape) for x in xs}
        if len(shapes) > 1:
            raise InputError(f"examples of x have the shapes {sorted(shapes)[:3]}", remedy="bring them to one shape")
        return torch.stack(xs), torch.cat(ys)

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


def _labels(x: "Tensor | np.ndarray[Any, Any]", y: "Tensor | arrays.Array | None") -> Tensor:
    """Class numbers (N,) int64, one for each row."""
    if x.ndim < 2:
        raise InputError(Arg("x", tuple(x.shape), of="shape"), remedy="pass inputs (N, ...)")
    labels = arrays.labels(y)
    if labels is None:
        raise InputError(
            Arg("y"), f"is missing for {len(x)} rows of x", remedy=f"pass class numbers, int64 ({len(x)},)"
        )
    if labels.ndim == 0 or len(labels) != len(x):
        raise InputError(
            Arg("y", tuple(labels.shape), of="shape"), f"for {len(x)} rows", remedy="pass one class number for each"
        )
    return class_indices(labels, len(x), None, "y")


def _said(part: object) -> str:
    return f"a tensor of shape {tuple(part.shape)}, {part.dtype}" if isinstance(part, Tensor) else type(part).__name__
