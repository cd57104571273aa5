"""What a transformation of inputs is: computed as it is, and differentiated by itself or by a stand-in."""

from dataclasses import dataclass, fields
from typing import ClassVar, TypeAlias

from torch import Tensor

from signstep.engine.images import check_images
from signstep.engine.keys import RowDraws
from signstep.errors import InputError
from signstep.messages import Arg

Ends: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Step:
    """One transformation of inputs (R, ...) in raw units, with its options as fields.

    ``random`` says whether it draws; ``own`` whether ``forward`` is differentiated itself, else ``soft`` lends its
    gradient; ``hides`` whether the identity is one more way past it that an attacker should try.
    """

    called: ClassVar[str] = ""
    random: ClassVar[bool] = False
    own: ClassVar[bool] = True
    hides: ClassVar[bool] = False

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:
        """The real thing (R, ...), in the same shape and inside ``ends`` where the input is.

        Args:
            u: inputs, floating point.
            draws: where every random number comes from.
            ends: of valid inputs (low, high).
        """
        raise NotImplementedError

    def soft(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:
        """A differentiable function near it, for the backward pass of what has no gradient; else the thing itself."""
        return self.forward(u, draws, ends)

    @property
    def versions(self) -> dict[str, str]:
        """Of libraries that decide what comes out, by name."""
        return {}

    def __str__(self) -> str:
        options = ",".join(f"{part.name}={_plain(getattr(self, part.name))}" for part in fields(self))
        return f"{self.called}:{options}" if options else self.called

    def refuse(self, option: str, remedy: str) -> InputError:
        """What to raise where an option makes no sense."""
        return InputError(Arg(option, getattr(self, option)), remedy=remedy, where=self.called)

    def images(self, u: Tensor, channels: tuple[int, ...] = ()) -> None:
        """See that inputs are images (R, C, H, W), with one of these numbers of channels where it matters.

        Raises:
            InputError: they are none.
        """
        check_images(u, self.called)
        if channels and u.shape[1] not in channels:
            raise InputError(
                f"{self.called} needs {' or '.join(map(str, channels))} channels, x has shape {tuple(u.shape)}",
                remedy="leave it out for such inputs",
            )


def _plain(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def scaled(u: Tensor, ends: Ends) -> Tensor:
    """From raw units to [0, 1]."""
    return (u - ends[0]) / (ends[1] - ends[0])


def unscaled(v: Tensor, ends: Ends) -> Tensor:
    """From [0, 1] to raw units."""
    return v * (ends[1] - ends[0]) + ends[0]
