"""What people pass for inputs, labels and numbers, as plain tensors: the one place that knows its many spellings.

An *array* here is a tensor of any layout, a NumPy array or what NumPy can read (tables of pandas, sparse matrices of
SciPy). Lists of numbers do for it in labels, in parts of a threat, and in a dict of inputs, where tokenizers put them.
What is no array of numbers is refused in one sentence, never guessed.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from signstep.engine.tree import Tree
from signstep.errors import InputError, LabelError, SignstepError
from signstep.messages import Arg

Array: TypeAlias = Any
"""Tensor, NumPy array, or what NumPy reads; for labels and threats a list of numbers too."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_DENSE = "sparse inputs were made dense: their zeros may change as well, where no mask forbids it"


class Home:
    """Where a model's weights are, and their precision: what comes without either goes there.

    NumPy makes float64 of everything, and a list has no precision at all; a tensor has been given its own, and keeps
    both.
    """

    def __init__(
        self, model: object = None, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """See `Home`; ``device`` and ``dtype`` in the place of the model's."""
        parts = (*model.parameters(), *model.buffers()) if isinstance(model, nn.Module) else ()
        floating = (part.dtype for part in parts if part.dtype in _FLOATS)
        self.device = device or next((part.device for part in parts), torch.device("cpu"))
        self.dtype = dtype or next(floating, None)

    def take(self, array: "np.ndarray[Any, Any]") -> Tensor:
        """The array as a tensor there."""
        tensor = torch.from_numpy(array)
        dtype = self.dtype if self.dtype is not None and tensor.is_floating_point() else tensor.dtype
        return tensor.to(self.device, dtype)


def inputs(x: object, notes: list[str], *, name: str = "x", home: Home | None = None) -> Tree:
    """Inputs as a dense tensor (R, ...), or as a dict of them.

    In a dict a value that is no array (None, a number, text) is the same for every row and stays as it is.

    Args:
        x: an array, or a mapping of arrays.
        notes: grows by what was done that changes the meaning.
        name: of the argument, for messages.
        home: of the model.

    Raises:
        InputError: no array of numbers, or a tensor that holds no values that can be attacked.
    """
    home = home or Home()
    if not isinstance(x, Mapping):
        if not is_array(x):
            raise InputError(
                Arg(name),
                f"has inputs of type {type(x).__name__}",
                remedy="pass a tensor (torch.as_tensor), an array, or a dict",
            )
        return _checked(_tensor(x, name, home, InputError, notes), name)
    named = {}
    for key, part in x.items():
        if not isinstance(key, str):
            raise InputError(
                Arg(name), f"has the key {key!r}, a {type(key).__name__}", remedy="pass a dict from input names"
            )
        named[key] = part if is_constant(part) else _checked(_entry(part, name, key, home, notes), f"{name}[{key!r}]")
    if not any(isinstance(part, Tensor) for part in named.values()):
        raise InputError(
            Arg(name), f"has the inputs {list(named)}, none of them a tensor", remedy="pass one row for each example"
        )
    return named


def one_tensor(x: object, home: Home | None = None) -> Tensor:
    """Inputs that may not be a dict.

    Raises:
        InputError: a dict, or see `inputs`.
    """
    made = inputs(x, [], home=home)
    if not isinstance(made, Tensor):
        raise InputError(Arg("x"), f"is a dict of the inputs {list(made)}", remedy="pass a single input tensor")
    return made


def labels(y: object, *, name: str = "y") -> Tensor | None:
    """Labels as a dense tensor that no graph hangs on; None stays None.

    Raises:
        LabelError: no array of numbers.
    """
    if y is None:
        return None
    made = _tensor(y, name, Home(), LabelError, [])
    if made.is_complex():
        raise LabelError(Arg(name, made.dtype, of="dtype"), remedy="pass numbers without an imaginary part")
    return made.clone() if made.is_inference() else made.detach()


def label(y: object, *, name: str) -> Tensor:
    """The label of one example: a number alone counts as an array here.

    Raises:
        LabelError: see `labels`.
    """
    single = isinstance(y, (bool, int, float, np.number, np.bool_))
    made = labels(np.asarray(y) if single else y, name=name)
    if made is None:
        raise LabelError(Arg(name), "is None", remedy="pass a label for each example, or for none")
    return made


def number(value: object, name: str, kind: type[SignstepError]) -> Tensor:
    """A part of a threat that is no plain number: radii, ends of a box, a mask.

    Raises:
        SignstepError: of that kind, if it is no array of numbers.
    """
    return _tensor(value, name, Home(), kind, [])


def is_array(value: object) -> bool:
    """Whether something is an array on its own: lists are none, since they may hold anything."""
    return isinstance(value, Tensor) or (not _plain(value) and _readable(value))


def is_constant(value: object) -> bool:
    """Whether an entry of a dict of inputs is no array but one value for all rows."""
    return _plain(value) or not (isinstance(value, (list, tuple)) or is_array(value))


def _plain(value: object) -> bool:
    return value is None or isinstance(value, (str, bytes, bool, int, float, complex, np.generic))


def _readable(value: object) -> bool:
    reads = ("__array__", "__array_interface__", "toarray")
    return not isinstance(value, type) and any(hasattr(value, read) for read in reads)


def _entry(part: object, name: str, key: str, home: Home, notes: list[str]) -> Tensor:
    made = _tensor(part, f"{name}[{key!r}]", home, InputError, notes)
    if made.ndim == 0:
        raise InputError(
            Arg(f"{name}[{key!r}]"),
            "is a tensor without dimensions",
            remedy="pass one row for each example, or a plain number for all",
        )
    return made


def _tensor(value: object, name: str, home: Home, kind: type[SignstepError], notes: list[str]) -> Tensor:
    if isinstance(value, Tensor):
        return _dense(value, name, kind, notes)
    if isinstance(value, (list, tuple)) and value and all(isinstance(part, Tensor) for part in value):
        return _stacked([_dense(part, name, kind, notes) for part in value], name, kind)
    if _plain(value) or not (isinstance(value, (list, tuple)) or _readable(value)):
        raise kind(
            Arg(name),
            f"is {_said(value)}, which cannot be made a tensor",
            remedy="pass a tensor, or an array of numbers",
        )
    toarray: Callable[[], Any] | None = None if hasattr(value, "__array__") else getattr(value, "toarray", None)
    if toarray is not None:
        notes.append(_DENSE)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        masked = int(np.ma.getmaskarray(value).sum())
        raise kind(Arg(name), f"is a masked array with {masked} masked values", remedy="fill or drop them")
    try:
        array = np.asarray(value if toarray is None else toarray())
    except Exception as error:  # whatever reads them raises what it likes
        said = str(error).partition("\n")[0]
        raise kind(
            Arg(name), f"is a {type(value).__name__} that NumPy cannot read ({said})", remedy="pass a tensor"
        ) from error
    return home.take(readable(array, name, kind))


def readable(array: "np.ndarray[Any, Any]", name: str, kind: type[SignstepError]) -> "np.ndarray[Any, Any]":
    """The same numbers in a dtype and an order that torch has.

    Raises:
        SignstepError: of that kind, if they are no numbers.
    """
    if array.dtype.kind not in "biufc":
        first = array.flat[0] if array.size else None
        shown = f", such as {str(first)[:20]!r}" if isinstance(first, (str, bytes)) else ""
        remedy = "class numbers from 0" if kind is LabelError else "numbers, all rows of the same shape"
        raise kind(
            Arg(name),
            f"holds values of type {array.dtype}{shown}, which are no numbers and cannot be made a tensor",
            remedy=f"pass {remedy}",
        )
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    elif array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    elif array.dtype.kind == "c":
        array = array.astype(np.complex128)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    # torch shares memory, and knows neither negative strides nor arrays that must not be written.
    return array if array.flags.writeable and array.flags.c_contiguous else array.copy(order="C")


def _stacked(parts: list[Tensor], name: str, kind: type[SignstepError]) -> Tensor:
    shapes = {tuple(part.shape) for part in parts}
    if len(shapes) > 1:
        raise kind(
            Arg(name), f"is a list of tensors of the shapes {sorted(shapes)[:3]}", remedy="bring all to one shape"
        )
    return torch.stack(parts)


def _dense(value: Tensor, name: str, kind: type[SignstepError], notes: list[str]) -> Tensor:
    if value.is_nested:
        raise kind(
            Arg(name), "is a nested tensor", remedy="pad it (torch.nested.to_padded_tensor), or pass rows of one shape"
        )
    if value.is_meta:
        raise kind(Arg(name), "is on the meta device, where tensors have no values", remedy="pass one with values")
    if value.is_quantized:
        raise kind(Arg(name), f"is quantised ({value.dtype})", remedy="dequantize() it, for a model that takes floats")
    if any(part is not None for part in getattr(value, "names", ())):
        value = value.rename(None)  # type: ignore[attr-defined, unused-ignore]  # newer torch has no names
    if value.layout != torch.strided:
        notes.append(_DENSE)
        return value.to_dense()
    return value


def _checked(x: Tensor, name: str) -> Tensor:
    if x.is_complex():
        raise InputError(
            Arg(name, x.dtype, of="dtype"), remedy="pass real and imaginary parts apart (torch.view_as_real)"
        )
    if x.is_floating_point() and x.dtype not in _FLOATS:
        raise InputError(
            Arg(name, x.dtype, of="dtype"),
            ", in which nothing can be added",
            remedy="turn it into float32 first (.float())",
        )
    return x


def _said(value: object) -> str:
    if isinstance(value, (str, bytes)):
        return f"text ({value[:20]!r})"
    return f"a {type(value).__name__}" + (f" ({value!r})" if isinstance(value, (int, float, complex)) else "")
