"""What one input of a model looks like, where that is known, and the sentence for those that look otherwise."""

from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor

from signstep.engine.tree import Tree
from signstep.errors import InputError
from signstep.messages import Arg

Shape: TypeAlias = Sequence[int | None] | None


def checked_shape(shape: Shape) -> tuple[int | None, ...] | None:
    """A declared shape as a tuple.

    Raises:
        InputError: it is no shape.
    """
    if shape is None:
        return None
    if not isinstance(shape, (tuple, list)) or not all(map(_is_size, shape)):
        raise InputError(
            Arg("shape", shape), remedy="pass that of one input, such as (3, 224, 224), with None for any size"
        )
    return tuple(shape)


def fits(shape: Shape, given: Sequence[int | None]) -> bool:
    """Whether inputs of a shape can be what a model takes.

    >>> fits((3, None, None), (3, 32, 32)), fits((3, 224, 224), (3, 32, 32)), fits(None, (5,))
    (True, False, True)
    """
    if shape is None:
        return True
    return len(shape) == len(given) and all(
        None in pair or pair[0] == pair[1] for pair in zip(shape, given, strict=True)
    )


def refuse_other(shape: Shape, inputs: Tree) -> None:
    """See that a batch (R, ...) has the shape that a model takes.

    Raises:
        InputError: it has not; the message says what would help.
    """
    if shape is not None and isinstance(inputs, Tensor):
        refuse_shape(shape, tuple(inputs.shape[1:]))


def refuse_shape(shape: Shape, given: Sequence[int | None]) -> None:
    """The same of the shape of one input.

    Raises:
        InputError: it does not fit.
    """
    if fits(shape, given) or shape is None:
        return
    said = f"the model takes examples of shape {shown(shape)}, these have {shown(given)}"
    sizes = shape[1:]
    if len(shape) == len(given) == 3 and fits(shape[:1], given[:1]) and None not in sizes:
        raise InputError(said, remedy=("bring images there with", Arg("resize", tuple(sizes))))
    if len(shape) == len(given) == 3 and shape[0] != given[0]:
        colours = {1: "grey images", 3: "colour images"}.get(shape[0] or 0, f"inputs of {shape[0]} channels")
        raise InputError(said, remedy=f"pass {colours}")
    raise InputError(said, remedy="pass data of that shape")


def shown(shape: Sequence[int | None]) -> str:
    """A shape in words, with "any" for sizes that are free."""
    return f"({', '.join('any' if size is None else str(size) for size in shape)}{',' if len(shape) == 1 else ''})"


def _is_size(size: object) -> bool:
    return size is None or (isinstance(size, int) and not isinstance(size, bool) and size > 0)
