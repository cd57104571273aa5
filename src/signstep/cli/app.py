"""The application that the commands join, and the entry point that turns every ending into an exit status."""

import errno
import io
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from signstep.cli.commands import Command, Commands
from signstep.cli.config import find_caps, find_config, read_config
from signstep.cli.option_names import command_of, in_options, options_by_argument
from signstep.cli.signals import signals_interrupt
from signstep.cli.streams import answers, discard, steady, whole_process
from signstep.cli.terminal import hushed, noted, told, traced
from signstep.engine.origin import ended, said_of
from signstep.errors import SignstepError
from signstep.io.caps import caps
from signstep.messages import Message
from signstep.scale.kept_memory import keep_memory
from signstep.version import VERSION
from signstep_entry import joined, page_of

_INTERRUPTED = 130
_UNREAD = 141
_OF_STREAMS = (errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EDQUOT, errno.EFBIG)


class _App(typer.Typer):
    """Typer, whose commands are ours."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """See `typer.Typer.command`."""
        return super().command(name, cls=Command, **settings)


app = _App(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    help="Signstep: how little must change in the input for a model to fail, and can that number be trusted?",
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    config: Annotated[  # noqa: ARG001 - read before the command line is parsed, since it sets defaults
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Options by command as TOML, before the command; else signstep.toml, or [tool.signstep] of "
            "pyproject.toml, here.",
        ),
    ] = None,
    cap: Annotated[  # noqa: ARG001 - read before the command line is parsed, since files are read by then
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="Raise what a file that you trust may ask for: pixels, inflated, ratio, array, names, depth or text.",
        ),
    ] = None,
    quiet: Annotated[  # noqa: ARG001 - taken from the words before they are parsed, since it may stand anywhere
        bool, typer.Option("--quiet", help="Print the answer, warnings and errors alone; may stand anywhere.")
    ] = False,
    debug: Annotated[  # noqa: ARG001 - taken from the words before they are parsed, since it may stand anywhere
        bool, typer.Option("--debug", help="Print the traceback of whatever ends a command; may stand anywhere.")
    ] = False,
) -> None:
    if version:
        told(f"signstep {VERSION}")
        raise typer.Exit


def command_tree() -> Any:
    """The commands as click has them, built anew only where some were added: it takes longer than many of them."""
    return _tree(tuple(app.registered_commands), tuple(app.registered_groups))


@cache
def _tree(*_: object) -> Any:
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    if arguments is None:  # the process is the command's own
        keep_memory()
    with steady(), whole_process(arguments is None), signals_interrupt() as came:
        status = _status(arguments)
    # As a shell states the end of a process by a signal, whoever heeded it.
    return 128 + came[0] if came and status == _INTERRUPTED else status


def _status(arguments: Sequence[str] | None) -> int:
    words, anywhere = _without(list(sys.argv[1:] if arguments is None else arguments), ("--debug", "--quiet"))
    words = joined(words)
    with hushed("--quiet" in anywhere):
        return _run(words, debug="--debug" in anywhere)


def _run(words: list[str], *, debug: bool) -> int:
    if not words:
        told(page_of(words) or "", err=True)
        return 2
    command = command_tree()
    options = options_by_argument(command_of(words, command), words)
    warnings.showwarning = partial(_show_warning, options)
    try:
        with caps(**find_caps(words)):
            settings = read_config(find_config(words), command)
            status = command.main(
                args=words,
                prog_name="signstep",
                standalone_mode=False,
                default_map=settings.defaults,
                obj=settings,
            )
        return status if isinstance(status, int) else 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BaseException as error:
        said = said_of(error)  # of the user's own model or function
        if debug and (said is not None or isinstance(error, SignstepError)):
            traced()
        if said is not None:
            noted(f"error: {said}{'' if debug else '; --debug prints the traceback'}")
            return 3
        if isinstance(error, SignstepError):
            noted(f"error: {in_options(error, options)}")
            return 2
        return _ended(error)


def _without(words: list[str], flags: Sequence[str]) -> tuple[list[str], set[str]]:
    """The words without those flags, and which of them stood before a ``--`` among them."""
    end = words.index("--") if "--" in words else len(words)
    return [word for place, word in enumerate(words) if word not in flags or place > end], set(words[:end]) & set(flags)


def _ended(error: BaseException) -> int:
    """The status of an ending that no message of ours says."""
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        error = error.__context__  # typer's way to end for it
    if isinstance(error, OSError):
        if error.filename is not None or error.errno not in _OF_STREAMS:
            return _internal()
        discard(answers())  # only a stream has no name
        if error.errno == errno.EPIPE:
            return _UNREAD  # as "| head" ends any program; nobody wants to be told
        noted(f"error: what was found cannot be printed ({error.strerror}); what was written stays")
        return 2
    # Newer versions of typer carry a click of their own: its exceptions are known by what they have, not by class.
    code, show = getattr(error, "exit_code", None), getattr(error, "show", None)
    if not isinstance(error, Exception):
        noted(f"error: {ended(error)}")
        return 3
    if isinstance(code, int):
        if callable(show):
            shown = io.StringIO()
            show(file=shown)  # usage, and what was typed
            told(shown.getvalue(), err=True, nl=False)
        return code
    return _internal()


def _internal() -> int:
    traced()
    noted("internal error: if the traceback ends in your model, fix it there; else please report it")
    return 3


def _show_warning(
    options: Mapping[str, Any],
    message: Warning | str,
    category: type[Warning],
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    if isinstance(message, Message):
        noted(f"warning: {in_options(message, options)}")
    else:
        noted(f"warning: {category.__name__}: {message}")
