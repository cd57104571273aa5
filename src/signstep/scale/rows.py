"""Rows of the data in units: runs of so many, whatever the sizes of the batches they come in."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.engine.tree import Tree, rows, tree_map
from signstep.errors import LoadError


@dataclass(frozen=True)
class Piece:
    """The rows of a unit.

    Attributes:
        start: the place of the first one among all.
        stop: behind the last one.
        x: inputs; None where whoever works reads them itself.
        y: labels, if there are any.
        digest: SHA-256 of both; "" where they are not here.
    """

    start: int
    stop: int
    x: Tree | None = None
    y: Tensor | None = None
    digest: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the inputs that travel with it."""
        if self.x is None:
            return 0
        return sum(part.nbytes for part in _tensors(self.x).values())

    def within(self, start: int, stop: int) -> "Piece":
        """A part of it, which has its rows here."""
        assert self.x is not None
        kept = slice(start - self.start, stop - self.start)
        y = None if self.y is None else self.y[kept]
        return Piece(start, stop, tree_map(lambda part: part[kept], self.x), y)

    def batches(self, size: int) -> list[tuple[Tree, Tensor | None]]:
        """The rows in batches of at most so many."""
        parts = (self.within(at, min(at + size, self.stop)) for at in range(self.start, self.stop, size))
        return [(part.x, part.y) for part in parts if part.x is not None]


def digest_of(x: Tree, y: Tensor | None) -> str:
    """SHA-256 of rows: names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name, part in {**_tensors(x), **({} if y is None else {"y": y})}.items():
        plain = part.detach().cpu().contiguous()
        found.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    if isinstance(x, dict):
        found.update(repr([(name, part) for name, part in x.items() if not isinstance(part, Tensor)]).encode())
    return found.hexdigest()


def pieces_of(
    batches: Iterable[tuple[Tree, Tensor | None]], size: int, limit: int | None = None, *, digests: bool = True
) -> Iterator[Piece]:
    """Units of ``size`` rows, the last one of what is left, of at most ``limit`` rows in all."""
    held: list[tuple[Tree, Tensor | None]] = []
    start = count = seen = 0
    for x, y in batches:
        here = rows(x) if limit is None else min(rows(x), limit - seen)
        if here <= 0:
            break
        held.append((tree_map(lambda part, here=here: part[:here], x), None if y is None else y[:here]))
        count, seen = count + here, seen + here
        while count >= size:
            whole, held = _split(held, size)
            yield _piece(start, whole, digests=digests)
            start, count = start + size, count - size
    if count:
        yield _piece(start, held, digests=digests)


class Cursor:
    """Reads units of data that is read from its beginning, forwards; what lies behind is read anew.

    Args:
        begin: gives the units from the first one on.
    """

    def __init__(self, begin: Callable[[], Iterator[Piece]]) -> None:
        self._begin = begin
        self._rest: Iterator[Piece] | None = None
        self._at = 0

    def read(self, piece: Piece) -> Piece:
        """The unit with its rows.

        Raises:
            LoadError: the data has no such rows.
        """
        if piece.x is not None:
            return piece
        if self._rest is None or piece.start < self._at:
            self._rest, self._at = self._begin(), 0
        for found in self._rest:
            self._at = found.stop
            if found.start == piece.start:
                if found.stop != piece.stop or found.x is None:
                    break
                return Piece(found.start, found.stop, found.x, found.y, digest_of(found.x, found.y))
        raise LoadError(
            f"the data that a worker reads has no examples {piece.start} to {piece.stop - 1}",
            remedy="give every worker the same data",
        )


def _piece(start: int, parts: list[tuple[Tree, Tensor | None]], *, digests: bool) -> Piece:
    x = parts[0][0] if len(parts) == 1 else tree_map(lambda *same: torch.cat(same), *(x for x, _ in parts))
    labels = [y for _, y in parts if y is not None]
    y = None if not labels else labels[0] if len(labels) == 1 else torch.cat(labels)
    return Piece(start, start + rows(x), x, y, digest_of(x, y) if digests else "")


def _split(
    parts: list[tuple[Tree, Tensor | None]], size: int
) -> tuple[list[tuple[Tree, Tensor | None]], list[tuple[Tree, Tensor | None]]]:
    """The first ``size`` rows, and the rest."""
    first: list[tuple[Tree, Tensor | None]] = []
    left = size
    for number, (x, y) in enumerate(parts):
        count = rows(x)
        if count > left:
            one, two = slice(0, left), slice(left, None)
            cut = [
                (tree_map(lambda part, kept=kept: part[kept], x), None if y is None else y[kept]) for kept in (one, two)
            ]
            return [*first, *cut[:1]] if left else first, [*cut[1:], *parts[number + 1 :]]
        first.append((x, y))
        left -= count
    return first, []


def _tensors(x: Tree) -> dict[str, Tensor]:
    if isinstance(x, Tensor):
        return {"x": x}
    return {f"x:{name}": part for name, part in x.items() if isinstance(part, Tensor)}
