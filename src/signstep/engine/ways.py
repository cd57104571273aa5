"""How a transform that stands in an attacker's way is passed just now: for real, through stand-ins, or left out.

What it computes never depends on that, but for "straight", on which it is not there at all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from signstep.engine.keys import RowDraws

Way: TypeAlias = Literal["soft", "identity", "straight"]
GradientPath: TypeAlias = Literal["aware", "straight"]
PATHS: tuple[GradientPath, ...] = ("aware", "straight")

_WAY: ContextVar[Way] = ContextVar("way", default="soft")


_ORDER: tuple[Way, ...] = ("straight", "soft", "identity")


def way_code(chosen: Way, draws: int = 1) -> int:
    """A number for a way with so many draws, a power of two, behind each gradient."""
    return len(_ORDER) * (draws.bit_length() - 1) + _ORDER.index(chosen)


def way_name(code: int) -> str:
    """The way in words.

    >>> way_name(way_code("straight")), way_name(way_code("soft", 4))
    ('straight', 'soft over 4 draws')
    """
    doubled, place = divmod(code, len(_ORDER))
    return _ORDER[place] if doubled == 0 else f"{_ORDER[place]} over {2**doubled} draws"


def way() -> Way:
    """How a defence is to be passed just now: "soft" and "identity" compute it and differ backwards alone."""
    return _WAY.get()


@contextmanager
def taking(chosen: Way) -> Iterator[None]:
    """Within the block, defences are passed that way; "straight" leaves them out."""
    token = _WAY.set(chosen)
    try:
        yield
    finally:
        _WAY.reset(token)


@runtime_checkable
class Detoured(Protocol):
    """A transform that stands in an attacker's way, and the ways past it."""

    @property
    def ways(self) -> tuple[Way, ...]:
        """Those that differ, "straight" the first."""

    def terms(self) -> dict[str, Any]:
        """What a record says of it: "chain", "box" and "versions"."""

    def __call__(self, u: Tensor, draws: RowDraws) -> Tensor:
        """The changed inputs (R, ...), computed for real unless the way is "straight"."""
