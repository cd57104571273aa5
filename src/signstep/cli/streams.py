"""Output that a command cannot lose its work by: closed, in an encoding that lacks a letter, with nobody at its end.

And output that is nobody else's (`answers_alone`).
"""

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


# Where answers go while everything else that prints is sent to standard error; and whether the process ends with the
# command, so that what prints at its end goes there too.
_ANSWERS: list[TextIO] = []
_WHOLE_PROCESS: list[bool] = []


def answers() -> TextIO:
    """Where what a command was asked for is printed: standard output, which nobody else writes to meanwhile."""
    return _ANSWERS[-1] if _ANSWERS else sys.stdout


@contextmanager
def whole_process(whole: bool) -> Iterator[None]:
    """For the ``with`` block, whether the process ends with the command."""
    _WHOLE_PROCESS.append(whole)
    try:
        yield
    finally:
        _WHOLE_PROCESS.pop()


@contextmanager
def answers_alone() -> Iterator[None]:
    """Within the block standard output is `answers` alone, so that one JSON document is one JSON document.

    What a model, a reader of data or a process of theirs prints goes to standard error.
    Where the stream is the descriptor of the process, that one is led away too: what is started from here inherits it.
    """
    before, own = sys.stdout, None
    with suppress(OSError, ValueError, AttributeError):
        if before.fileno() == 1 and sys.stderr.fileno() == 2:
            before.flush()
            own = open(  # noqa: SIM115, PTH123 - closed below
                os.dup(1), "w", encoding=before.encoding, errors=_ESCAPED, newline=None if os.linesep == "\n" else ""
            )
            os.dup2(2, 1)
    _ANSWERS.append(before if own is None else own)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        _ANSWERS.pop()
        if own is not None:
            if not (_WHOLE_PROCESS and _WHOLE_PROCESS[-1]):
                os.dup2(own.fileno(), 1)
            with suppress(OSError, ValueError):  # what it did not take was said where it was printed
                own.close()
        sys.stdout = before


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
