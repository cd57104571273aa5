"""How large what a file claims may be before it is refused, and how a person who trusts the file raises that.

Every cap is looked at before the work and the memory that it bounds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace

from signstep.errors import InputError


@dataclass(frozen=True)
class Caps:
    """The most that a file may ask for.

    Attributes:
        pixels: of one image.
        inflated: bytes that a compressed file, or an entry of an archive, may unpack to whatever its size.
        ratio: how many times its packed size it may unpack to beyond that. Weights, which no tool packs, may unpack to
            a quarter of ``inflated``, or a fifth of ``ratio`` times their size.
        array: bytes of an array that has to be held in memory as a whole, by its shape and type.
        names: of tensors in a file of weights, or of entries in an archive.
        depth: of nesting in JSON and TOML.
        text: bytes of a JSON document; a TOML document may have a quarter.
    """

    pixels: int = 25_000_000
    inflated: int = 2**28
    ratio: int = 100
    array: int = 2**33
    names: int = 100_000
    depth: int = 64
    text: int = 2**22

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if type(value) is not int or value < 1:
                raise InputError(f"the cap {part.name}={value!r}", remedy="pass a whole number from 1 on")

    def unpacked(self, packed: int) -> int:
        """Bytes that so many packed ones may become."""
        return max(self.inflated, self.ratio * packed)

    def unpacked_weights(self, packed: int) -> int:
        """The same of an archive of weights."""
        return max(self.inflated // 4, self.ratio * packed // 5)


NAMES = tuple(part.name for part in fields(Caps))
_USUAL = Caps()
_now: ContextVar[Caps] = ContextVar("caps", default=_USUAL)


def current() -> Caps:
    """The caps that hold."""
    return _now.get()


@contextmanager
def caps(**changed: int) -> Iterator[Caps]:
    """Other caps for the ``with`` block, for files that you trust; those not named stay.

    A data source keeps the caps under which it was opened.

    Args:
        changed: by the name of an attribute of `Caps`.

    Raises:
        InputError: there is no such cap, or it is no whole number from 1 on.

    Example:
        >>> import signstep as ss
        >>> with ss.caps(pixels=100_000_000) as now:
        ...     now.pixels
        100000000
    """
    for name in changed:
        if name not in NAMES:
            raise InputError(f"there is no cap {name!r}", remedy=f"pass one of {', '.join(NAMES)}")
    token = _now.set(replace(current(), **changed))
    try:
        yield current()
    finally:
        _now.reset(token)


def how(*names: str) -> str:
    """How a cap is raised, for messages."""
    called = ", ".join(f"{name}=N" for name in names)
    typed = " ".join(f"--cap {name}=N" for name in names)
    return f"raise the cap if you trust the file (signstep.caps({called}), signstep {typed})"
