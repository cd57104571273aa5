"""Output that a command cannot lose its work by: closed, in an encoding that lacks a letter, with nobody at its end."""

import codecs
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

_ESCAPED = "signstep.escaped"


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""Letters that an encoding lacks as ``\uXXXX``: what JSON reads back, in pairs beyond the first 65,536."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    units = text.encode("utf-16-be", "surrogatepass")
    pairs = (units[place : place + 2].hex() for place in range(0, len(units), 2))
    return "".join(f"\\u{pair}" for pair in pairs), error.end


codecs.register_error(_ESCAPED, _escaped)


class _Optional:
    """Standard error: what is said there is worth less than the work, which goes on where nobody can hear it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failed = False

    def write(self, text: str) -> int:
        self._tried(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._tried(self._stream.flush)

    def _tried(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError:
            self.failed = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def steady() -> Iterator[None]:
    """Standard output and error that a command can rely on, for the ``with`` block.

    A closed one (``>&-``) is the null device, and its descriptor taken, so that no file of ours gets it and with it
    what others print. Letters that the encoding lacks are escaped. Errors of writing to standard error are ignored;
    those of standard output are raised, since what was found goes there.
    """
    before = sys.stdout, sys.stderr
    opened: list[TextIO] = []
    if None in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        _occupy()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            opened.append(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - closed below
            setattr(sys, name, opened[-1])
    changed = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr) if _escaping(stream)]
    said = _Optional(sys.stderr)
    sys.stderr = cast("TextIO", said)
    try:
        yield
    finally:
        if said.failed:
            discard(sys.stderr)
        sys.stdout, sys.stderr = before
        for stream, errors in changed:
            with suppress(OSError, ValueError):  # what it did not take, it will not take now
                cast("Any", stream).reconfigure(errors=errors)
        for stream in opened:
            stream.close()


def _escaping(stream: TextIO) -> bool:
    """Let a stream escape letters; whether it could."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is None:
        return False
    with suppress(OSError, ValueError):
        reconfigure(errors=_ESCAPED)
        return True
    return False


def _occupy() -> None:
    """Put the null device behind each of the three standard descriptors that is closed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def discard(stream: TextIO) -> None:
    """Send to the null device what a stream did not take, so that the interpreter's end tries it no more."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        stream.flush()
