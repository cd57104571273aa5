"""Being asked to stop: Ctrl-C, SIGTERM and SIGHUP are one interruption, after which a command writes what it has."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_LIKE_CTRL_C = ("SIGTERM", "SIGHUP")
_PATIENCE = 2


@contextmanager
def signals_interrupt() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP do what Ctrl-C does there and then; the list holds those that came.

    The second one interrupts the writing as well, which then leaves what was there before; a third one ends the process
    where it stands. A signal that was ignored before (``nohup``) stays so. Outside of the main thread, where no handler
    can be set, they do what they did.
    """
    came: list[int] = []
    process = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > _PATIENCE or os.getpid() != process:  # a worker that was forked ends as it would without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        asks = signal.getsignal(signal.SIGINT)
        if not callable(asks):  # Ctrl-C is ignored, as in a shell's background
            raise KeyboardInterrupt
        asks(signal.SIGINT, frame)

    before = {}
    try:
        for name in _LIKE_CTRL_C:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, interrupt)
    except ValueError:  # not in the main thread
        pass
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """The first interruption asks: the list is no longer empty. A second one interrupts at once."""
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not in the main thread: nobody can interrupt
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
