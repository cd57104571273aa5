"""A data source: batches that are read from disk as they are asked for, with their input space and provenance."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from signstep.errors import LoadError

Reader: TypeAlias = Callable[[Sequence[int]], Iterator[Tensor]]
"""Starts at the first example and yields one float32 block per entry, with so many rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSource:
    """Batches ``(x, y)``: x float32 (B, C, H, W) or (B, F), y int64 (B,), in the same order at each iteration.

    Attributes:
        name: What the examples come from, for people.
        labels: All labels, int64 (N,). Inputs are read anew at each iteration, so memory does not grow with N.
        shape: Shape of one input.
        read: Opens the input stream.
        files: The files behind the data, by a name that does not depend on where the folder lies.
        batch_size: Rows per batch; the last one may have fewer.
        total: Examples in the files, of which N may be the first few.
        bounds: Smallest and largest possible input value, where the format fixes them.
        classes: Class names in the order of the labels, where the format has them.
        notes: What was decided or converted on the way, one sentence each.
        treatment: What is done to every stored value, the same words for the same arithmetic; says nothing of this
            data's own files, so that it can be compared between data sets.
        skipped: Examples left out because they cannot be used (``skip_bad``), among those looked at for the N that
            are. It is known before the first batch, is in the notes too, and counts neither in N nor in ``total``.
        unread: What else there is that is not among the examples, and how much of it; the notes name it.
        digest: SHA-256 of the numbers, where there are no files behind them.
    """

    name: str
    labels: Tensor = field(repr=False)
    shape: tuple[int, ...]
    read: Reader = field(repr=False)
    files: Mapping[str, Path] = field(repr=False)
    batch_size: int
    total: int
    bounds: tuple[float, float] | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    treatment: tuple[str, ...] = ("float32",)
    skipped: int = 0
    unread: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        starts = range(0, self.len_hint, self.batch_size)
        labels = [self.labels[start : start + self.batch_size] for start in starts]
        for x, y in zip(self.read([len(part) for part in labels]), labels, strict=True):
            yield x, y.clone()

    @property
    def left_out(self) -> dict[str, int]:
        """Counts of all that is not among the examples, by what it is; audits keep them in their records."""
        unusable = {"examples that cannot be used": self.skipped} if self.skipped else {}
        return {**unusable, **self.unread}

    def unlabelled(self) -> "Unlabelled":
        """The same examples without their labels."""
        return Unlabelled(self)

    @property
    def len_hint(self) -> int:
        """Number of examples that one iteration gives."""
        return len(self.labels)

    @property
    def description(self) -> str:
        """One line: name, number of examples, shape of one."""
        count = str(self.len_hint) if self.len_hint == self.total else f"the first {self.len_hint} of {self.total}"
        return f"{self.name}: {count} examples of shape {'x'.join(map(str, self.shape))}"

    def fingerprint(self) -> str:
        """SHA-256 of the file, as ``sha256sum`` prints it; of that listing, sorted by name, if there are several.

        Of data without files it is that of the numbers.
        """
        if not self.files:
            return self.digest or self._digested()
        digests = {name: _sha256(path) for name, path in sorted(self.files.items())}
        if len(digests) == 1:
            return next(iter(digests.values()))
        return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()).hexdigest()

    def _digested(self) -> str:
        found = hashlib.sha256(f"{self.shape} {self.labels.dtype}".encode())
        for x, y in self:
            for part in (x, y):
                found.update(part.contiguous().numpy().tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Unlabelled:
    """Batches ``(x, None)`` of a source."""

    source: DataSource

    def __iter__(self) -> Iterator[tuple[Tensor, None]]:
        return ((x, None) for x, _ in self.source)

    @property
    def left_out(self) -> dict[str, int]:
        """See `DataSource`."""
        return self.source.left_out


def without_label(source: DataSource, label: int) -> DataSource:
    """The examples of a source that have another label, anywhere where labels are maps of positions."""
    kept = source.labels.reshape(len(source.labels), -1).ne(label).any(1)
    dropped = int((~kept).sum())
    if not dropped:
        return source
    if not bool(kept.any()):
        raise LoadError(
            f"{source.name}: all {dropped} labels are {label}, which is to be ignored", remedy="give another label"
        )

    def blocks() -> Iterator[Tensor]:
        starts = range(0, len(kept), source.batch_size)
        parts = [kept[start : start + source.batch_size] for start in starts]
        for block, part in zip(source.read([len(part) for part in parts]), parts, strict=True):
            yield block[part]

    return replace(
        source,
        labels=source.labels[kept],
        read=lambda sizes: regroup(blocks(), sizes),
        total=source.total - dropped,
        unread={**source.unread, f"with the label {label}, which is to be ignored": dropped},
        notes=(*source.notes, f"{dropped} examples with the label {label} are left out"),
    )


def regroup(blocks: Iterable[Tensor], sizes: Sequence[int]) -> Iterator[Tensor]:
    """The rows of blocks, cut anew to the sizes wanted; blocks are asked for as they are needed.

    Raises:
        LoadError: If there are fewer rows than wanted.
    """
    rest = iter(blocks)
    held: list[Tensor] = []
    count = 0
    for size in sizes:
        while count < size:
            block = next(rest, None)
            if block is None:
                raise LoadError(
                    f"{size - count} rows are missing: the data changed while it was read", remedy="open it again"
                )
            held.append(block)
            count += len(block)
        rows = held[0] if len(held) == 1 else torch.cat(held)
        yield rows[:size]
        held, count = [rows[size:]], count - size


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
