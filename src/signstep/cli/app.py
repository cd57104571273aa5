"""The application that the commands join, and the entry point that turns every ending into an exit status."""

import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TextIO

import typer

from signstep.cli.config import find_config, read_config
from signstep.errors import SignstepError
from signstep.version import VERSION

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Signstep: how little must change in the input for a model to fail, and can that number be trusted?",
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    config: Annotated[  # noqa: ARG001 - read before the command line is parsed, since it sets defaults
        Path | None,
        typer.Option(
            help="Options by command as TOML; else signstep.toml, or [tool.signstep] of pyproject.toml, here."
        ),
    ] = None,
) -> None:
    if version:
        typer.echo(f"signstep {VERSION}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    warnings.showwarning = _show_warning
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)
    try:
        settings = read_config(find_config(words), command)
        status = command.main(
            args=words,
            prog_name="signstep",
            standalone_mode=False,
            default_map=settings.defaults,
            obj=settings,
        )
        return status if isinstance(status, int) else 0
    except SignstepError as error:
        typer.echo(f"error: {error}", err=True)
        return 2
    except Exception as error:
        # Newer versions of typer carry a click of their own: its exceptions are known by what they have, not by class.
        code, show = getattr(error, "exit_code", None), getattr(error, "show", None)
        if isinstance(code, int):
            if callable(show):
                show()
            return code
        traceback.print_exc()
        typer.echo("internal error: if the traceback ends in your model, fix it there; else please report it", err=True)
        return 3


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    name = "" if category.__module__.startswith("signstep") else f"{category.__name__}: "
    print(f"warning: {name}{message}", file=sys.stderr)
