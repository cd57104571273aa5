"""A transformation of one's own, with what stands in for its gradient."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from signstep.defences.step import Ends, Step
from signstep.engine.defaults import plain_tensor
from signstep.engine.keys import RowDraws
from signstep.errors import InputError
from signstep.messages import Arg


@dataclass(frozen=True, repr=False)
class Custom(Step):
    """See `custom`."""

    called: ClassVar[str] = "custom"
    own: ClassVar[bool] = False
    hides: ClassVar[bool] = True

    there: Callable[..., Any]
    stand_in: Callable[[Tensor], Tensor] | None = None
    title: str = "custom"

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """What the function gives; arrays and whole numbers are taken in the dtype of the input."""
        return plain_tensor(self.there(u.clone())).to(device=u.device, dtype=u.dtype)

    def soft(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """The stand-in; the identity without one."""
        return u if self.stand_in is None else self.stand_in(u)

    def __str__(self) -> str:
        return self.title


class CustomDraws(Custom):
    """The same of a function that draws."""

    random: ClassVar[bool] = True

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """What the function gives for inputs and draws."""
        return plain_tensor(self.there(u.clone(), draws)).to(device=u.device, dtype=u.dtype)


def custom(
    forward: Callable[..., Any],
    stand_in: Callable[[Tensor], Tensor] | None = None,
    *,
    name: str | None = None,
    random: bool = False,
) -> Step:
    """A defence of one's own for `ss.defend`: it may round, call NumPy or another program.

    Backwards an attacker takes the gradient of ``stand_in`` at the same input, and tries the identity beside it; the
    better of the two counts for each example. What is computed, and what verdicts are about, is ``forward``.

    Args:
        forward: from inputs (R, ...) in raw units to such of the same shape and range.
        stand_in: a differentiable function near it; None is the identity alone.
        name: what records call it; None for the name of the function.
        random: whether ``forward`` draws; it is then called with the inputs and `RowDraws`, from which every random
            number has to come.

    Raises:
        InputError: one of them cannot be called.

    Example:
        >>> import torch, signstep as ss
        >>> coarse = ss.defences.custom(lambda x: (x * 7).round() / 7, name="eight levels")
        >>> guarded = ss.defend(torch.nn.Linear(4, 3), [coarse])
        >>> guarded.defences
        ('eight levels',)
    """
    for argument, function in (("forward", forward), ("stand_in", stand_in)):
        if function is not None and not callable(function):
            raise InputError(Arg(argument, function), remedy="pass a function of the inputs (R, ...)")
    if name is None:
        name = getattr(forward, "__name__", type(forward).__name__)
    if random and not _takes_two(forward):
        raise InputError(
            Arg("forward", forward), "does not take inputs and draws", remedy="pass a function of (x, draws)"
        )
    kind = CustomDraws if random else Custom
    return kind(forward, stand_in, f"custom({name})" if name in ("<lambda>", "forward") else name)


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True
