"""What commands do around their work: progress, interruption, and a folder that is theirs alone while they write."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import typer
from rich.console import Console

from signstep.cli.groups import ReadingOptions, other_model
from signstep.cli.terminal import bars, noted
from signstep.errors import InputError, SignstepError
from signstep.io.files import is_own
from signstep.io.folders import sweep
from signstep.io.locks import alone_in
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.victims.address import refuse_secrets
from signstep.plain import one_line


def others_of(given: Sequence[str] | None, reading: ReadingOptions) -> dict[str, Model]:
    """Other models by name, from NAME=MODEL or NAME=MODEL@WEIGHTS.

    Raises:
        InputError: not written so, or a name comes twice.
        LoadError: a model cannot be loaded.
    """
    found: dict[str, Model] = {}
    for text in given or ():
        refuse_secrets(text)
        name, equals, spec = text.partition("=")
        if not (name and equals and spec.partition("@")[0]):
            raise InputError(
                Arg("transfer_to", text), "is not NAME=MODEL or NAME=MODEL@WEIGHTS", remedy="write b=nets:net@b.pt, say"
            )
        if name in found:
            raise InputError(Arg("transfer_to"), f"names {name!r} twice", remedy="give each model a name of its own")
        found[name] = other_model(spec, reading, option="transfer_to")
    return found


@contextmanager
def progress(console: Console, total: int | None, word: str) -> Iterator[Callable[[int], None]]:
    """A bar with the time left, where someone is watching."""
    with bars(console) as shown:
        row = shown.add_task(one_line(word), total=total)
        yield lambda done: shown.update(row, completed=done)


@contextmanager
def interruptible() -> Iterator[None]:
    """Work that was interrupted before it had any result ends without one."""
    try:
        yield
    except KeyboardInterrupt:
        noted("interrupted before the first batch was done: no report was written")
        raise typer.Exit(130) from None


# Lies in the folder while a run is at it, and stays where it is killed: the next run then knows the folder for ours.
_BEGUN = ".signstep-begun"


def refuse_foreign(file: Path, ours: Callable[[Path], object]) -> None:
    """See that a file to write is a new one, or one that a command like this has written, before any work is done.

    Args:
        file: the option ``out``.
        ours: reads such a file, or raises.

    Raises:
        InputError: something else is there.
    """
    if not os.path.lexists(file):
        return
    try:
        ours(file)
    except (SignstepError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            Arg("out", file), "is there already, and is none of these files", remedy="pass another name"
        ) from error


@contextmanager
def output_folder(folder: Path, *, marks: Sequence[str]) -> Iterator[Path]:
    """Make the output folder and see that it can be written, before any work is done; failed work leaves none behind.

    It is held until the end: another run that wants it is refused. What a killed run left in it is cleaned away.
    ``marks`` are patterns of files that say that the folder is one of ours: without any a folder that holds something
    is refused.

    Raises:
        InputError: it cannot.
    """
    with ExitStack() as held:
        made = _begun(folder, marks, held)
        try:
            yield folder
        finally:
            with suppress(OSError):  # the end of the work is not the place to fail for it
                (folder / _BEGUN).unlink(missing_ok=True)
                if made and not any(folder.iterdir()):
                    folder.rmdir()


def _begun(folder: Path, marks: Sequence[str], held: ExitStack) -> bool:
    """Make, hold, clean and mark the folder; whether it was made."""
    try:
        made = not os.path.lexists(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not held.enter_context(alone_in(folder)):
            raise InputError(
                Arg("out", folder), "is being written by another run", remedy="wait for its end, or pass another folder"
            )
        sweep(folder)
        ours = any(next(folder.glob(mark), None) for mark in (_BEGUN, *marks))
        if not ours and any(not is_own(path.name) for path in folder.iterdir()):
            raise InputError(
                Arg("out", folder), "holds other files", remedy="pass a new folder, or one of an earlier report"
            )
        (folder / _BEGUN).write_bytes(b"")
    except OSError as error:
        raise InputError(
            Arg("out", folder), f"cannot be written ({_why(folder, error)})", remedy="pass another folder"
        ) from error
    return made


def _why(folder: Path, error: OSError) -> str:
    """What stands in the way of a folder, in words that say more than "File exists"."""
    if isinstance(error, FileExistsError) and folder.is_symlink():
        try:
            return "it is a link to a file" if folder.exists() else f"it is a link to {folder.readlink()}, not there"
        except OSError:
            return "it is a link that cannot be followed"
    if isinstance(error, FileExistsError):
        return "it is a file"
    return error.strerror or str(error)
