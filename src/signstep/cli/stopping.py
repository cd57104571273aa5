"""Ctrl-C during training asks it to stop after the step; a second one interrupts at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """The first interrupt asks: the list is no longer empty. A second one interrupts at once."""
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
