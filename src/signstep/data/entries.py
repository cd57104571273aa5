"""What data of other libraries gives: pairs, dicts with labels among them, images of Pillow, names of classes.

Data sets of torchvision give ``(image, number)`` and have ``classes``; those of Hugging Face give dicts. They are told
by what they give, not by their types: nothing of these libraries is imported.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from signstep.data.images import levels
from signstep.engine import arrays
from signstep.errors import InputError, LabelError
from signstep.messages import Arg, Blank

LABELS = ("labels", "label", "y", "target", "targets")
"""What labels are called in a dict."""

INPUTS = ("pixel_values", "image", "images", "img", "x")
"""What pictures are called in a dict: they are passed to the model by their place."""

_DEEP = 8  # wrappers of a data set that are looked through

Note = Callable[[str], None]


def pair(entry: object, number: int, word: str, note: Note) -> tuple[Any, Any]:
    """Inputs and labels of an entry.

    Args:
        entry: what the data gave.
        number: its place.
        word: what it is: an example or a batch.
        note: takes what a reader must know.

    Raises:
        InputError: it is neither a pair nor a dict with one entry of labels.
    """
    if isinstance(entry, (tuple, list)) and len(entry) == 2:
        return entry[0], entry[1]
    if not isinstance(entry, Mapping):
        kind = type(entry).__name__ + (f" of length {len(entry)}" if isinstance(entry, (tuple, list)) else "")
        raise InputError(
            Arg("data"), f"gave a {kind} as {word} {number}", remedy=f"make each {word} a pair (x, y), y may be None"
        )
    named = [name for name in LABELS if name in entry]
    rest = {name: part for name, part in entry.items() if name not in named}
    if len(named) != 1 or not rest:
        has = "several labels" if len(named) > 1 else "no labels" if rest else "nothing but labels"
        raise InputError(
            Arg("data"),
            f"gave a dict with the keys {list(entry)[:6]} as {word} {number}, which has {has}",
            remedy=f"make each {word} a pair (x, y), or call its labels {LABELS[0]!r}",
        )
    pictures = [name for name in INPUTS if name in rest]
    beside = [name for name, part in rest.items() if name not in pictures and arrays.is_array(part)]
    if len(pictures) != 1 or beside:
        return rest, entry[named[0]]
    aside = sorted(name for name in map(str, rest) if name != pictures[0])
    note(
        f"of each entry {pictures[0]!r} is the input and {named[0]!r} the label"
        + (f"; {', '.join(aside)} are left aside" if aside else "")
    )
    return rest[pictures[0]], entry[named[0]]


def is_picture(value: object) -> bool:
    """Whether something is an image of Pillow."""
    return any(kind.__module__.startswith("PIL.") and kind.__name__ == "Image" for kind in type(value).__mro__)


def raw_pixels(pictures: Sequence[Any], note: Note) -> Tensor:
    """Images of Pillow as (N, C, H, W) in [0, 1]; the first decides whether all become grey or RGB.

    Raises:
        InputError: they are not equally large, or no images.
    """
    strange = next((type(one).__name__ for one in pictures if not is_picture(one)), None)
    if strange is not None:
        raise InputError(Arg("data"), f"has images of Pillow and a {strange}", remedy="give one kind")
    sizes = {(one.height, one.width): None for one in pictures}
    if len(sizes) > 1:
        first, other = list(sizes)[:2]
        raise InputError(
            Arg("data"),
            f"has images of {first[0]}x{first[1]} and of {other[0]}x{other[1]} (height x width)",
            remedy="bring them to one size in the data set's transform (Resize and CenterCrop)",
        )
    channels = 1 if pictures[0].mode in ("1", "L", "LA", "I;16", "I;16B") else 3
    note("images of Pillow are read in raw pixels: bytes 0..255 divided by 255")
    height, width = pictures[0].height, pictures[0].width
    return torch.stack([torch.from_numpy(levels(one, channels)).expand(channels, height, width) for one in pictures])


def class_names(data: object) -> tuple[str, ...]:
    """The names of its classes that a data set has, also behind a loader or a part of it; () for none."""
    for _ in range(_DEEP):
        names = getattr(data, "classes", None)
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
        inner = getattr(data, "dataset", None)
        if inner is None or inner is data:
            return ()
        data = inner
    return ()


@dataclass(frozen=True)
class Order:
    """The numbers that a model gives to the classes of a data set.

    Attributes:
        numbers: (K,), one for each class of the data, in its order.
    """

    numbers: tuple[int, ...]

    def numbered(self, y: Tensor | None) -> Tensor | None:
        """Labels as the model numbers them; negative ones stand for none, and stay.

        Raises:
            LabelError: one is no class of the data.
        """
        if y is None or y.is_floating_point():
            return y
        if bool((y >= len(self.numbers)).any()):
            raise LabelError(
                Arg("data"), f"has the label {int(y.max())} and {len(self.numbers)} classes", remedy="mend its labels"
            )
        table = torch.tensor(self.numbers, dtype=torch.int64, device=y.device)
        return torch.where(y < 0, y.long(), table[y.clamp_min(0).long()])


def order_of(there: Sequence[str], known: Sequence[str], note: Note) -> Order | None:
    """How labels of a data set are to be numbered for a model, by the names of the classes of both; None: as they are.

    Args:
        there: the names that the data has, in its order; () for none.
        known: those of the model.
        note: takes what a reader must know.

    Raises:
        InputError: some of the data's classes are the model's and others are not, or there are more or fewer of them
            and none has a name of the model's.
    """
    if not there or not known or tuple(there) == tuple(known):
        return None
    strange = [name for name in there if name not in known]
    if not strange:
        twice = next((name for name, count in Counter(known).items() if count > 1 and name in there), None)
        if twice is not None:
            raise InputError(
                Arg("data"), f"has the class {twice!r}, and the model has two of that name", remedy="number the labels"
            )
        note("labels are numbered as the model numbers the classes of the same names")
        return Order(tuple(list(known).index(name) for name in there))
    if len(strange) < len(there):
        raise InputError(
            Arg("data"),
            f"has the class {strange[0]!r}, which is none of the model's {len(known)} ({known[0]!r}, ...), and "
            f"{len(there) - len(strange)} that are",
            remedy="name it as the model does",
        )
    if len(there) != len(known):
        raise InputError(
            Arg("data"),
            f"has {len(there)} classes, and none of them has a name of the model's {len(known)} ({there[0]!r} beside "
            f"{known[0]!r})",
            remedy=("pass a model with", Arg("classes", Blank("names")), "in the order of its outputs"),
        )
    note(
        f"no class of the data ({there[0]!r}, ...) has a name of the model's ({known[0]!r}, ...): the data's are "
        "numbered in their own order"
    )
    return None
