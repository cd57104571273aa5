"""The one place where the command line prints: what others named, labelled or raised is made plain on its way out."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from signstep.cli.streams import answers
from signstep.plain import one_line, plain

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def hushed(quiet: bool) -> Iterator[None]:
    """Within the block, whether what is said beside the answer is left out: what was loaded, progress, places."""
    token = _QUIET.set(quiet)
    try:
        yield
    finally:
        _QUIET.reset(token)


def told(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text of several lines: what a command was asked for, or with ``err`` what is said beside it."""
    typer.echo(plain(text), file=None if err else answers(), err=err, nl=nl)


def noted(text: str) -> None:
    """Print one line beside the result, on standard error."""
    typer.echo(one_line(text), err=True)


def traced() -> None:
    """Print the traceback of the exception that is being handled, set off: its messages have lines of their own."""
    for line in traceback.format_exc().splitlines():
        noted(f"| {line}")


def aside() -> Console:
    """Where progress is shown: standard error."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def silence() -> Console:
    """Where nothing is shown: for workers, whose coordinator tells of them."""
    return Console(quiet=True)


def say(console: Console, *lines: str) -> None:
    """Print lines as they are, without markup; none under ``--quiet``."""
    for line in () if _QUIET.get() else lines:
        console.print(one_line(line), highlight=False, markup=False, emoji=False, soft_wrap=True)


def bars(console: Console) -> Progress:
    """Bars with the time left, where someone is watching; what they are called is no markup and no format."""
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=_QUIET.get() or not console.is_terminal)
