"""From anybody's batches (x, y) to a data source: what can be known of them is found out by going through them once."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from signstep.data.batches import DataSource, regroup
from signstep.data.forms import Batches, is_once
from signstep.engine.origin import foreign
from signstep.errors import InputError, LabelError, LoadError
from signstep.importing import current_folder_importable
from signstep.messages import Arg


def loaded(
    make: Callable[[], object], name: str, batch_size: int, limit: int | None, *, real: bool = False, made: bool = True
) -> DataSource:
    """A source of what somebody's code gives.

    It is gone through once, for its labels, its shape and the SHA-256 of its numbers; and again whenever it is read, so
    it has to give the same each time. What an object has as ``bounds``, ``classes`` and ``total`` is believed.

    Args:
        make: gives a `DataSource`, an iterable of batches or examples (x, y), or two arrays; called once, or each time
            where what it gives can be read once alone.
        name: for people.
        batch_size: rows per batch.
        limit: the first so many examples alone; no more are read.
        real: labels are real numbers.
        made: whether ``make`` makes something new each time.

    Raises:
        InputError: it is no data, or no data that a command can use.
        LoadError: it gives something else when it is read again.
    """
    given = _given(make, name)
    if isinstance(given, DataSource):
        return replace(given, batch_size=batch_size)
    if is_once(given) and not made:
        raise InputError(
            Arg(name), f"is a {type(given).__name__}, which can be read once alone", remedy="name a function of it"
        )
    again: Callable[[], Any] = partial(_given, make, name) if is_once(given) else lambda: given
    seen = _seen(_pieces(given, name, limit, real=real))
    bounds, classes = _bounds(given, name), _classes(given, name)
    total, notes = _total(given, seen, limit)
    if not seen.count:
        raise InputError(f"{name} gives no examples", remedy="let it give batches (x, y)")

    def read(sizes: Sequence[int]) -> Iterator[Tensor]:
        return regroup(_checked(_pieces(again(), name, limit, real=real), seen.labels, name), sizes)

    return DataSource(
        name=name,
        labels=seen.labels,
        shape=seen.shape,
        read=read,
        files={},
        batch_size=batch_size,
        total=total,
        bounds=bounds,
        classes=classes,
        notes=(
            f"{name} is code of somebody's own: what is said of the data is what it gave",
            "SHA-256 of the data is that of the numbers that it gave, in their order, not of a file",
            *notes,
            *(f"x is {kind}, taken as the numbers that it holds" for kind in seen.kinds),
        ),
        digest=seen.digest,
    )


def _given(make: Callable[[], object], name: str) -> Any:
    with foreign(f"the data {name}"), current_folder_importable():
        return make()


def _pieces(given: Any, name: str, limit: int | None, *, real: bool) -> Iterator[tuple[Tensor, Tensor, str]]:
    """Batches of one float32 tensor with labels, at most ``limit`` examples, and what kind of numbers x was."""
    left = limit
    for x, y in Batches(given):
        if not isinstance(x, Tensor):
            raise InputError(
                f"{name} gives several inputs {list(x)}, and a command takes one tensor",
                remedy=("give one, or pass", Arg("domain")),
            )
        if y is None:
            raise LabelError(f"{name} gives no labels, and commands need them", remedy="let it give batches (x, y)")
        kept = len(x) if left is None else min(len(x), left)
        kind = "" if x.is_floating_point() else str(x.dtype).removeprefix("torch.")
        labels = y[:kept].float() if real else y[:kept]
        if kept:
            yield x[:kept].detach().cpu().float(), labels.detach().cpu(), kind
        if left is not None:
            left -= kept
            if not left:
                return


@dataclass(frozen=True)
class _Seen:
    """What one reading showed."""

    labels: Tensor
    shape: tuple[int, ...]
    digest: str
    kinds: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.labels)


def _seen(pieces: Iterator[tuple[Tensor, Tensor, str]]) -> _Seen:
    """Labels, shape and digest; the digest does not depend on how the examples are cut into batches."""
    labels: list[Tensor] = []
    shapes: dict[tuple[int, ...], None] = {}
    kinds: dict[str, None] = {}
    numbers, answers = hashlib.sha256(), hashlib.sha256()
    for x, y, kind in pieces:
        shapes[tuple(x.shape[1:])] = None
        if len(shapes) > 1:
            raise InputError(f"the data has examples of the shapes {list(shapes)}", remedy="bring them to one shape")
        labels.append(y)
        kinds |= {kind: None} if kind else {}
        numbers.update(x.contiguous().numpy().tobytes())
        answers.update(y.contiguous().numpy().tobytes())
    whole = torch.cat(labels) if labels else torch.empty(0, dtype=torch.int64, device="cpu")
    shape = next(iter(shapes), ())
    said = f"{list(shape)} {whole.dtype} {numbers.hexdigest()} {answers.hexdigest()}"
    return _Seen(whole, shape, hashlib.sha256(said.encode()).hexdigest(), tuple(kinds))


def _checked(pieces: Iterator[tuple[Tensor, Tensor, str]], labels: Tensor, name: str) -> Iterator[Tensor]:
    """Inputs alone, as long as their labels are those of the first reading.

    Raises:
        LoadError: they are others.
    """
    start = 0
    for x, y, _ in pieces:
        if not torch.equal(y, labels[start : start + len(y)]):
            raise LoadError(
                f"{name} gives other labels when it is read again", remedy="let it give one order, without shuffling"
            )
        start += len(y)
        yield x


def _bounds(given: object, name: str) -> tuple[float, float] | None:
    said = getattr(given, "bounds", None)
    if said is None:
        return None
    try:
        low, high = map(float, said)
    except (TypeError, ValueError) as error:
        raise InputError(Arg("bounds", said), "are not two numbers", remedy="write (0.0, 1.0)", where=name) from error
    return low, high


def _classes(given: object, name: str) -> tuple[str, ...] | None:
    said = getattr(given, "classes", None)
    if said is None:
        return None
    if isinstance(said, str) or not all(isinstance(one, str) for one in said):
        raise InputError(Arg("classes", said), "are no names", remedy="write a tuple of text", where=name)
    return tuple(said)


def _total(given: object, seen: _Seen, limit: int | None) -> tuple[int, tuple[str, ...]]:
    """How many examples there are in all, and what is to be said where that is not known."""
    said = getattr(given, "total", None)
    if isinstance(said, int) and said >= seen.count:
        return said, ()
    if limit is not None and seen.count == limit:
        return seen.count, (f"how many examples lie beyond the first {limit} is not known",)
    return seen.count, ()
