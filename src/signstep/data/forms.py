"""From what people call data to batches (x, y): the one place that knows the forms in which examples come.

- two arrays, also as a list or with a dict of inputs;
- batches (x, y), from a DataLoader, a list or a generator;
- single examples (x, y), from a torch Dataset, a list or a generator, where y is one number: they are put together;
- dicts with labels among their entries, as Hugging Face's loaders give them, for either (`signstep.data.entries`).
"""

import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from signstep.data.entries import class_names, is_picture, order_of, pair, raw_pixels
from signstep.engine import arrays
from signstep.engine.tree import Tree, rows, tree_map
from signstep.errors import InputError, LabelError, SignstepError
from signstep.messages import Arg

Data: TypeAlias = Iterable[tuple[Any, Any] | Mapping[str, Any]] | tuple[Any, Any] | Dataset[Any]

Batch: TypeAlias = tuple[Tree, Tensor | None]

ROWS = 256  # of a batch when the data does not come in batches


@dataclass(frozen=True)
class Later:
    """Batches that do not begin with the first example of the data: what a worker has of it.

    Attributes:
        batches: ``(x, y)``.
        first_row: the place of their first example among all.
    """

    batches: Iterable[Batch]
    first_row: int

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class Batches:
    """Batches (x, y) of plain tensors, read anew at each iteration where the data can be.

    Attributes:
        notes: what a reader must know of how the data is read; complete after an iteration.
        left_out: what of the data is not among the batches, and how many examples it is; complete after an iteration.
        first_row: the place of the first example, where the data is a later part of some (`Later`).
    """

    def __init__(
        self,
        data: Data,
        size: int = ROWS,
        *,
        home: arrays.Home | None = None,
        ignore: int | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        """See `Batches`.

        Args:
            data: examples.
            size: of a batch where the data does not come in batches.
            home: of the model; arrays that are no tensors take its precision.
            ignore: the label of examples to leave out.
            classes: of the model, by whose order labels are numbered where the data names classes too; () for none.

        Raises:
            InputError: this is no data, or it has classes that are none of the model's.
        """
        self.notes: list[str] = []
        self.left_out: dict[str, int] = {}
        self.first_row = data.first_row if isinstance(data, Later) else 0
        self._size, self._home, self._ignore = size, home or arrays.Home(), ignore
        self._data = data
        self._whole = _pair_of_arrays(data)
        self._refuse()
        self._order = None if self._whole is not None else order_of(class_names(data), classes, self._note)

    def __iter__(self) -> Iterator[Batch]:
        self.left_out = _already_left_out(self._data)
        for batch in self._batches():
            x, y = batch if self._ignore is None else self._without(*batch, self._ignore)
            if rows(x):
                yield x, y if self._order is None else self._order.numbered(y)

    @property
    def most(self) -> int | None:
        """Examples at most, where the data is whole arrays; None where the end alone tells."""
        if self._whole is None:
            return None
        first = self._whole[0]
        parts = first.values() if isinstance(first, Mapping) else [first]
        return next((len(part) for part in parts if arrays.is_array(part)), None)

    @property
    def said(self) -> tuple[str, ...]:
        """Notes and counts in words, for records."""
        counts = (f"left out of the data: {count} {reason}" for reason, count in self.left_out.items())
        return (*self.notes, *counts)

    def _batches(self) -> Iterator[Batch]:
        if self._whole is not None:
            x, y = self._plain(*self._whole, "data")
            for start in range(0, rows(x), self._size):
                part = slice(start, start + self._size)
                yield tree_map(lambda whole, part=part: whole[part], x), None if y is None else y[part]
            return
        one_by_one = isinstance(self._data, Dataset)
        single: list[tuple[Any, Any]] = []
        for number, entry in enumerate(self._entries()):
            x, y = pair(entry, number, "example" if one_by_one else "batch", self._note)
            if one_by_one or _is_number(y):
                single.append((x, y))
                if len(single) == self._size:
                    yield self._together(single)
                    single = []
            elif single:
                raise InputError(
                    Arg("data"), f"gave a batch as entry {number} after single examples", remedy="pass one of the two"
                )
            else:
                yield self._plain(x, y, f"batch {number} of data")
        if single:
            yield self._together(single)

    def _entries(self) -> Iterator[Any]:
        """What the data gives, one by one.

        Raises:
            InputError: the data raises; with its own error, and the line that did.
        """
        try:
            iterator = iter(self._source())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() in a loader too
            raise _own(error) from error
        while True:
            try:
                entry = next(iterator)
            except StopIteration:
                return
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise _own(error) from error
            yield entry

    def _source(self) -> Iterable[Any]:
        data: Any = self._data
        if isinstance(data, DataLoader):
            return self._loader(data)
        if isinstance(data, IterableDataset):
            return data
        return _by_number(data) if isinstance(data, Dataset) else data

    def _loader(self, loader: "DataLoader[Any]") -> "DataLoader[Any]":
        """The loader, or one that gives each example once; what it drops is counted."""
        if loader.drop_last and loader.batch_size is not None:
            try:
                dropped = len(loader.sampler) % loader.batch_size  # type: ignore[arg-type]
            except TypeError:  # no length
                dropped = 0
                self._note("data is a DataLoader with drop_last=True: its last examples may be left out")
            if dropped:
                self.left_out["dropped by the DataLoader with drop_last=True"] = dropped
        own = type(loader).__iter__ is not DataLoader.__iter__
        if not isinstance(loader.dataset, IterableDataset) or loader.num_workers < 2 or own:
            return loader
        self._note(
            f"data is an IterableDataset with {loader.num_workers} workers, each of which may go through all of it: "
            "it is read by one worker, so that each example counts once"
        )
        return DataLoader(
            loader.dataset,
            batch_size=loader.batch_size,
            num_workers=1,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            drop_last=loader.drop_last,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            prefetch_factor=loader.prefetch_factor,
        )

    def _plain(self, x: object, y: object, name: str) -> Batch:
        """A batch as tensors, with a label for each row."""
        plain = arrays.inputs(x, self.notes, name=f"x of {name}", home=self._home)
        self.notes = list(dict.fromkeys(self.notes))
        for part in (plain,) if isinstance(plain, Tensor) else plain.values():
            if isinstance(part, Tensor) and part.ndim == 0:
                raise InputError(f"x of {name} has no dimensions", remedy="pass batches, one row for each example")
        labels = arrays.labels(y, name=f"y of {name}")
        if labels is not None and (labels.ndim == 0 or len(labels) != rows(plain)):
            count = len(labels) if labels.ndim else "no"
            raise LabelError(
                Arg(name),
                f"has {rows(plain)} inputs and {count} labels",
                remedy="pass one label for each input, and single examples as (x, number)",
            )
        return plain, labels

    def _together(self, single: Sequence[tuple[Any, Any]]) -> Batch:
        """Single examples as a batch."""
        xs, ys = [x for x, _ in single], [y for _, y in single]
        unlabelled = [y is None for y in ys]
        if any(unlabelled) and not all(unlabelled):
            raise LabelError(
                "some examples of data have labels and others None", remedy="pass labels for all or for none"
            )
        y = None if all(unlabelled) else [arrays.label(y, name="y of an example of data") for y in ys]
        if is_picture(xs[0]):
            return self._plain(raw_pixels(xs, self._note), y, "data")
        if not isinstance(xs[0], Mapping):
            return self._plain(self._rows(xs, "x"), y, "data")
        names = list(xs[0])
        if any(not isinstance(x, Mapping) or list(x) != names for x in xs):
            raise InputError(
                Arg("data"), f"has examples with the inputs {names} and others", remedy="give all the same"
            )
        joined: dict[str, Any] = {}
        for name in names:
            parts = [x[name] for x in xs]
            same = all(arrays.is_constant(part) for part in parts)
            if same and any(part != parts[0] for part in parts):
                joined[name] = parts  # a number for each example is an input; text is refused there
            else:
                joined[name] = parts[0] if same else self._rows(parts, f"x[{name!r}]")
        return self._plain(joined, y, "data")

    def _rows(self, parts: Sequence[Any], name: str) -> Tensor:
        made = [arrays.inputs(part, self.notes, name=f"{name} of an example", home=self._home) for part in parts]
        shapes = {tuple(part.shape) if isinstance(part, Tensor) else () for part in made}
        if len(shapes) > 1:
            raise InputError(
                Arg("data"),
                f"has examples of the shapes {sorted(shapes)[:3]}",
                remedy="bring them to one shape, or pass batches",
            )
        return torch.stack(made)  # type: ignore[arg-type]

    def _without(self, x: Tree, y: Tensor | None, ignore: int) -> Batch:
        """The rows that have another label than the one to ignore, anywhere."""
        if y is None:
            return x, y
        kept = y.reshape(len(y), -1).ne(ignore).any(1)
        dropped = int((~kept).sum())
        if dropped:
            name = f"with the label {ignore}, which is to be ignored"
            self.left_out[name] = self.left_out.get(name, 0) + dropped
        index = kept.nonzero().squeeze(1)
        return tree_map(lambda part: part[index.to(part.device)], x), y[index]

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _refuse(self) -> None:
        """See that it is data at all.

        Raises:
            InputError: it is not.
        """
        data: Any = self._data
        asked = "pass batches (x, y), such as a DataLoader, two tensors (x, y), or a Dataset"
        if arrays.is_array(data):
            kind = "tensor" if isinstance(data, Tensor) else type(data).__name__
            raise InputError(
                Arg("data"),
                f"is one {kind}",
                remedy=("pass (x, y), with", Arg("y", None), "to take the model's own predictions for labels"),
            )
        if isinstance(data, (str, bytes)):
            raise InputError(
                Arg("data"), f"is text ({data[:40]!r})", remedy=f"pass signstep.data.open_data({data[:40]!r})"
            )
        if isinstance(data, Mapping):
            raise InputError(
                Arg("data"), f"is a dict with the keys {list(data)[:4]}", remedy=f"{asked}, or (inputs, labels) of it"
            )
        if not isinstance(data, (Iterable, Dataset)) and not hasattr(data, "__getitem__"):
            raise InputError(Arg("data"), f"is a {type(data).__name__}", remedy=asked)


def is_once(data: object) -> bool:
    """Whether data can be read a single time."""
    return isinstance(data, Iterator)


def _pair_of_arrays(data: Data) -> tuple[Any, Any] | None:
    """(x, y) where the data is all of it, in two arrays."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return None
    x, y = data
    if isinstance(x, Mapping) or arrays.is_array(x):
        # A list of two tensors may be two batches without labels, and is not: those have no place in data.
        return (x, y) if y is None or not isinstance(y, Mapping) else None
    return None


def _is_number(value: object) -> bool:
    """Whether a label is that of one example."""
    if isinstance(value, Tensor):
        return value.ndim == 0
    return isinstance(value, (int, float, np.number, np.bool_)) or (isinstance(value, np.ndarray) and value.ndim == 0)


def _by_number(data: "Dataset[Any]") -> Iterator[Any]:
    """The examples of a map-style Dataset, in order."""
    try:
        count = len(data)  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(
            Arg("data"), f"is a {type(data).__name__} without a length", remedy="pass a DataLoader"
        ) from error
    for number in range(count):
        yield data[number]


def _already_left_out(data: object) -> dict[str, int]:
    """What whoever opened the data left out, where they say so (`signstep.data.DataSource`)."""
    found = getattr(data, "left_out", None)
    return dict(found) if isinstance(found, Mapping) and not isinstance(data, Mapping) else {}


def _own(error: BaseException) -> Exception:
    """An error of the data's own code in one sentence, with the line that raised it; ours as they are."""
    if isinstance(error, (SignstepError, MemoryError)):
        return error
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    outside = [frame for frame in frames if "/torch/" not in frame.filename.replace("\\", "/")] or frames
    where = f" ({outside[-1].filename}:{outside[-1].lineno})" if outside else ""
    said = str(error).strip().splitlines()
    return InputError(
        Arg("data"),
        f"raised {type(error).__name__}{where}: {said[-1] if said else 'no message'}",
        remedy="correct it there",
    )
