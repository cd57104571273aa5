"""NumPy archives with an array of inputs and an array of labels, read row by row even when they are compressed."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from signstep.data.batches import DataSource
from signstep.data.csv_text import INFLATED, INFLATED_LEAST
from signstep.data.targets import REAL
from signstep.errors import LoadError
from signstep.io.archives import bytes_of, check_held, check_names, check_unpacked
from signstep.messages import Arg

Array = np.ndarray[Any, np.dtype[Any]]

_PLAIN = (("x", "y"), ("X", "Y"), ("X", "y"), ("images", "labels"))
_SPLIT = (("x_{}", "y_{}"), ("X_{}", "y_{}"), ("X_{}", "Y_{}"), ("{}_images", "{}_labels"))


def open_npz(
    path: Path, *, split: str | None, batch_size: int, real: bool = False, ignore: int | None = None
) -> DataSource:
    """The arrays ``x`` and ``y`` of an archive; ``x_test`` and ``y_test`` or other usual names are found too.

    With ``real`` the targets are real numbers (regression) and stay as they are, float32. ``ignore`` is a label that
    stands for none, of any sign. Labels (N, ...) with the positions of images (N, C, ...) are maps of classes.

    uint8 is divided by 255, floats keep their values as float32, (N, H, W, C) with C = 1 or 3 becomes (N, C, H, W).

    Raises:
        LoadError: If the file cannot be read, names no such pair, or holds something that is not numbers with labels.
    """
    members = _members(path)
    x_name, y_name, pair_notes = _pair(path, members, split)
    x, layout = _layout(path, x_name, members[x_name])
    labels, label_notes = (
        _reals(path, y_name, members[y_name]) if real else _labels(path, y_name, members[y_name], layout.shape, ignore)
    )
    if len(labels) != x.shape[0]:
        raise LoadError(
            f"{path}: {x_name} has {x.shape[0]} rows but {y_name} has {len(labels)}", remedy="save as many of each"
        )

    def read(sizes: Sequence[int]) -> Iterator[Tensor]:
        row = 0
        for block in _blocks(path, x_name, x, sizes):
            tensor = layout.apply(block)
            if not torch.isfinite(tensor).all():
                bad = row + int((~torch.isfinite(tensor)).flatten(1).any(1).nonzero()[0])
                raise LoadError(
                    f"{path}: row {bad} of {x_name} holds NaN or infinity", remedy="remove or fill such rows"
                )
            row += len(tensor)
            yield tensor

    return DataSource(
        name=str(path),
        labels=labels,
        shape=layout.shape,
        read=read,
        files={path.name: path},
        batch_size=batch_size,
        total=len(labels),
        bounds=layout.bounds,
        notes=(*pair_notes, *layout.notes, *label_notes),
        treatment=layout.treatment,
    )


@dataclass(frozen=True)
class _Member:
    """The header of one array in the archive."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Layout:
    """How stored rows become inputs."""

    shape: tuple[int, ...]
    scale: float
    channels_last: bool
    bounds: tuple[float, float] | None
    notes: tuple[str, ...]

    @property
    def treatment(self) -> tuple[str, ...]:
        """What `apply` does, in words that do not name the file."""
        scaled = ("bytes / 255",) if self.scale != 1 else ()
        return (*scaled, *(("channels last to first",) if self.channels_last else ()), "float32")

    def apply(self, block: Array) -> Tensor:
        """Stored rows (B, ...) as a float32 tensor (B, *shape)."""
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, which the caller refuses
            x = torch.from_numpy(block.astype(np.float32))
        if self.channels_last:
            x = x.permute(0, 3, 1, 2)
        x = x.reshape(len(x), *self.shape)
        return x.div_(self.scale) if self.scale != 1 else x


def _members(path: Path) -> dict[str, _Member]:
    members = {}
    with _reading(path), zipfile.ZipFile(path) as archive:
        check_names(path, archive.infolist())
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                name = info.filename.removesuffix(".npy")
                check_unpacked(path, name, info.file_size, info.compress_size)
                with archive.open(info) as stream:
                    member = members[name] = _header(stream)
                    begun = stream.tell()
                claimed = begun + bytes_of(member.shape, member.dtype.itemsize, f"{path}: {name}")
                if not member.dtype.hasobject and claimed != info.file_size:
                    raise LoadError(
                        f"{path}: {name} has the shape {member.shape} by its header and should have {claimed} bytes, "
                        f"but has {info.file_size}",
                        remedy="write it again with numpy.savez",
                    )
    return members


def _header(stream: IO[bytes]) -> _Member:
    version = npy.read_magic(stream)
    parse = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        return _Member(*parse(stream))
    except Exception as error:  # it is Python source, and what parses it raises all that parsers raise
        raise ValueError(f"the header of an array cannot be read: {str(error).partition(chr(10))[0][:200]}") from error


def _pair(path: Path, members: dict[str, _Member], split: str | None) -> tuple[str, str, tuple[str, ...]]:
    splits = [(split or default, pair) for default in ("test", "train")[: 1 if split else 2] for pair in _SPLIT]
    by_split = [(x.format(name), y.format(name), name) for name, (x, y) in splits]
    plain = [(x, y, None) for x, y in _PLAIN]
    candidates = [*by_split, *plain] if split else [*plain, *by_split]
    for x, y, name in candidates:
        if x in members and y in members:
            return x, y, () if split or name is None else (f"split not given: {x} and {y} are used",)
    seen = ", ".join(sorted(members)) or "no arrays"
    wanted = f"x_{split} and y_{split}" if split else "x and y"
    raise LoadError(f"{path} holds {seen}", remedy=f"save the inputs and labels as {wanted} with numpy.savez")


def _layout(path: Path, name: str, x: _Member) -> tuple[_Member, _Layout]:
    _refuse_objects(path, name, x)
    if x.dtype.kind not in "fb" and x.dtype != np.uint8:
        raise LoadError(
            f"{path}: {name} has dtype {x.dtype}, whose scale is unknown",
            remedy="save it as uint8 (0..255) or as float in the units that the model expects",
        )
    if len(x.shape) < 2:
        raise LoadError(f"{path}: {name} has shape {x.shape}", remedy="save it as (N, F) or (N, C, H, W)")
    if 0 in x.shape:
        raise LoadError(
            f"{path}: {name} has shape {x.shape}, so there is nothing to read", remedy="save at least one example"
        )
    notes: list[str] = []
    shape = x.shape[1:]
    if x.dtype == np.uint8:
        notes.append(f"{name}: bytes 0..255 divided by 255")
    elif x.dtype != np.float32:
        notes.append(f"{name}: {x.dtype} converted to float32")
    if x.dtype == np.uint8 and len(shape) == 2:
        shape = (1, *shape)
        notes.append(f"{name}: {x.shape} read as one channel")
    channels_last = len(shape) == 3 and shape[2] in (1, 3) and shape[0] not in (1, 3)
    if channels_last:
        shape = (shape[2], shape[0], shape[1])
        notes.append(f"{name}: {x.shape} read as (N, H, W, C) and turned into (N, C, H, W)")
    if x.fortran:
        _refuse_large(path, name, x)
        notes.append(f"{name}: stored column by column (Fortran order), so it is held in memory as a whole")
    bounds = (0.0, 1.0) if x.dtype.kind != "f" else None
    scale = 255.0 if x.dtype == np.uint8 else 1.0
    return x, _Layout(shape, scale, channels_last, bounds, tuple(notes))


def _reals(path: Path, name: str, member: _Member) -> tuple[Tensor, list[str]]:
    """Targets of a regression, any shape."""
    _refuse_objects(path, name, member)
    _refuse_large(path, name, member)
    if member.dtype.kind not in "iufb":
        raise LoadError(f"{path}: {name} has dtype {member.dtype}", remedy="save the targets as numbers")
    with _reading(path), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        values = torch.from_numpy(npy.read_array(stream, allow_pickle=False).astype(np.float32))
    bad = (~torch.isfinite(values)).reshape(len(values), -1).any(1).nonzero()
    if len(bad):
        raise LoadError(f"{path}: {name}[{int(bad[0])}] holds NaN or infinity", remedy="remove or fill such rows")
    return values, []


def _labels(
    path: Path, name: str, member: _Member, one: tuple[int, ...], ignore: int | None
) -> tuple[Tensor, list[str]]:
    """Class numbers (N,), or (N, ...) for inputs of shape ``one`` (C, ...)."""
    _refuse_objects(path, name, member)
    _refuse_large(path, name, member)
    if member.dtype.kind not in "iufb":
        raise LoadError(f"{path}: {name} has dtype {member.dtype}", remedy="save labels as class numbers 0..K-1")
    shape, notes = member.shape, []
    if len(shape) == 2 and shape[1] == 1:
        notes.append(f"{name}: {shape} read as ({shape[0]},)")
    elif len(shape) > 2 and shape[1:] == one[1:]:
        notes.append(f"{name}: {shape} read as a class for each position")
    elif len(shape) != 1:
        raise LoadError(
            f"{path}: {name} has shape {shape}", remedy=f"save one class number per row, e.g. {name}.argmax(1)"
        )
    with _reading(path), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        stored: Array = npy.read_array(stream, allow_pickle=False)
    values = stored.reshape(-1)
    if values.dtype.kind == "f":
        fractional = np.flatnonzero(~(np.isfinite(values) & (values == np.round(values))))
        if fractional.size:
            row = int(fractional[0])
            raise LoadError(
                f"{path}: {name}[{row}] is {values[row]}, not a class number",
                remedy=("save labels as integers 0..K-1, or declare a regression (", REAL, ")"),
            )
        notes.append(f"{name}: {values.dtype} whole numbers converted to int64")
    labels = torch.from_numpy(values.astype(np.int64))
    bad = labels < 0 if ignore is None else (labels < 0) & (labels != ignore)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise LoadError(
            f"{path}: {name}[{row}] is {int(labels[row])}",
            remedy=(
                "save labels as class numbers 0..K-1, or leave out what stands for no label (",
                Arg("ignore_label", int(labels[row])),
                ")",
            ),
        )
    return (labels if len(shape) < 3 else labels.reshape(shape)), notes


def _blocks(path: Path, name: str, x: _Member, sizes: Sequence[int]) -> Iterator[Array]:
    row_bytes = math.prod(x.shape[1:]) * x.dtype.itemsize
    with _reading(path), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        if x.fortran:
            whole: Array = npy.read_array(stream, allow_pickle=False)
            for stop, size in zip(np.cumsum(sizes), sizes, strict=True):
                yield whole[stop - size : stop]
            return
        _header(stream)
        for size in sizes:
            data = stream.read(size * row_bytes)
            if len(data) != size * row_bytes:
                raise EOFError(f"{name} ends early")
            yield np.frombuffer(data, x.dtype).reshape(size, *x.shape[1:])


def _refuse_large(path: Path, name: str, member: _Member) -> None:
    """An array that is held whole; labels become eight bytes each."""
    check_held(math.prod(member.shape) * max(member.dtype.itemsize, 8), f"{path}: {name}")


def _refuse_objects(path: Path, name: str, member: _Member) -> None:
    if member.dtype.hasobject:
        raise LoadError(
            f"{path}: {name} is an array of Python objects, and unpickling those can run code",
            remedy="save it as a plain array of numbers",
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except LoadError:
        raise
    except MemoryError as error:
        raise LoadError(f"{path} does not fit into memory", remedy="save it in shards") from error
    except _UNREADABLE as error:
        raise LoadError(
            f"{path} cannot be read as a NumPy archive ({error})", remedy="write it again with numpy.savez"
        ) from error


_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError),
    *(NotImplementedError, RuntimeError, OverflowError, KeyError, TypeError),
)


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Those of the named arrays that an archive holds, whole.

    Raises:
        LoadError: The file cannot be read, one is an array of Python objects, or is not as large as its header says.
    """
    found = {}
    members = _members(path)
    for name in names:
        if name not in members:
            continue
        member = members[name]
        _refuse_objects(path, name, member)
        with _reading(path), zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{name}.npy")
            size = math.prod(member.shape) * member.dtype.itemsize
            if size > info.file_size or info.file_size > max(INFLATED_LEAST, INFLATED * info.compress_size):
                raise LoadError(
                    f"{path}: {name} says that it holds {size} bytes, of which {info.compress_size} are there",
                    remedy="write it again with numpy.savez",
                )
            with archive.open(info) as stream:
                found[name] = npy.read_array(stream, allow_pickle=False)
    return found


def array_names(path: Path) -> tuple[str, ...]:
    """The names of the arrays of an archive.

    Raises:
        LoadError: The file cannot be read.
    """
    return tuple(sorted(_members(path)))
