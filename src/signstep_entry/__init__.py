"""The command ``signstep`` as the shell starts it: help and version at once, all else in `signstep.cli`.

``import signstep`` brings torch, which takes seconds. Who asks for help waits for none of it: the help of each command
lies in ``pages``, written by ``scripts/generate_docs.py`` from the command line itself, and a test compares the two.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from signstep_entry.version import VERSION

__all__ = ["main", "page_of"]

PAGES = Path(__file__).parent / "pages"
HELP = ("-h", "--help")
# Options of the program itself that are followed by a value.
WITH_VALUES = ("--config", "--cap")
# Commands of two words, by the first: "guard serve" is one command, and has a page of its own.
TWO_WORDS = ("guard",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    words = joined(sys.argv[1:] if arguments is None else arguments)
    page = page_of(words)
    if page is None:
        _wait_asleep()
        from signstep.cli import main as run  # slow to import, and help does without

        return run(arguments)
    if not words:
        print(page, file=sys.stderr)
        return 2  # nothing was asked for
    try:
        print(page, flush=True)
    except OSError as error:
        with suppress(OSError, ValueError):  # so that the interpreter does not try once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141  # as "| head" ends any program
        print(f"error: help cannot be printed ({error.strerror})", file=sys.stderr)
        return 2
    return 0


def _wait_asleep() -> None:
    """Let idle threads of OpenMP sleep after microseconds, unless the person chose otherwise.

    By default they spin for milliseconds. Where something else wants the core, the thread that has work waits for the
    one that spins: an audit beside other jobs took four times as long. Read once, when torch is loaded; by libgomp
    alone.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"


def joined(words: Sequence[str]) -> list[str]:
    """The words typed, with those of a command of two words as one.

    >>> joined(["--config", "guard", "guard", "serve", "--port", "0"])
    ['--config', 'guard', 'guard serve', '--port', '0']
    >>> joined(["guard"]), joined(["guard", "--help"]), joined(["audit", "guard", "serve"])
    (['guard'], ['guard', '--help'], ['audit', 'guard', 'serve'])
    """
    found = list(words)
    place = 0
    while place < len(found) and found[place].startswith("-"):
        place += 2 if found[place] in WITH_VALUES else 1
    behind = found[place + 1 : place + 2]
    if found[place : place + 1] and found[place] in TWO_WORDS and behind and not behind[0].startswith("-"):
        found[place : place + 2] = [f"{found[place]} {behind[0]}"]
    return found


def page_of(words: Sequence[str]) -> str | None:
    """What can be answered from here: a page of help, or the version; None for what is to be run.

    >>> page_of(["--version"]) == f"signstep {VERSION}"
    True
    >>> page_of(["audit", "--limit", "5"]) is None
    True
    """
    if not words:
        return _read("start")
    rest = iter(words)
    for word in rest:
        if word in HELP:
            return _read("signstep")
        if word == "--version":
            return f"signstep {VERSION}"
        if not word.startswith("-"):
            typed = list(rest)
            typed = typed[: typed.index("--")] if "--" in typed else typed
            return _read(word) if any(part in HELP for part in typed) else None
        if word == "--":
            return None
        if word in WITH_VALUES:
            next(rest, None)
    return None


def _read(name: str) -> str | None:
    """A page by its name; None where there is none: what was typed is no command."""
    found = {path.stem: path for path in PAGES.glob("*.txt")}
    return found[name].read_text(encoding="utf-8").rstrip("\n") if name in found else None
