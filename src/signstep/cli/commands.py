"""What typer's commands lack: help under headings, a guess for a misspelt option, and an output that is ours alone."""

import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

from signstep.cli.panels import OWN, in_panels
from signstep.cli.streams import answers_alone
from signstep.engine.origin import ended, leaves_from
from signstep.registry import nearest

# Where commands may end: typer, and the click that it is made of, which newer versions carry along.
_TYPER = tuple(
    str(Path(file).resolve().parent)
    for kind in TyperGroup.__mro__
    if (file := getattr(sys.modules[kind.__module__], "__file__", None)) is not None
)

# What other tools call it, and in which options it goes here; the first that the command has is named.
_ELSEWHERE = {
    "--eps": ("--threat linf:8/255",),
    "--epsilon": ("--threat linf:8/255",),
    "--norm": ("--threat linf:8/255",),
    "--attacks": ("--attack",),
    "--recipe": ("--attack",),
    "--attack": ("--recipe",),
    "--steps": ("--attack pgd:steps=50", "--recipe pgd:steps=50"),
    "--checkpoint": ("--weights",),
    "--dataset": ("--data",),
    "--labels": ("--label-column", "--classes"),
    "--normalize": ("--mean",),
    "--gpu": ("--device cuda",),
    "--cuda": ("--device cuda",),
    "--target": ("--goal",),
    "--targeted": ("--goal",),
    "--output-dir": ("--out",),
    "--outdir": ("--out",),
    "--save": ("--out",),
    "--num-examples": ("--limit",),
    "--max-examples": ("--limit",),
    "--verbose": ("--debug",),
}
ANYWHERE = (
    ("--quiet", "Print the answer, warnings and errors alone."),
    ("--debug", "Print the traceback of whatever ends a command."),
    ("-h, --help", "Show this message and exit."),
)
"""Options that may stand anywhere, with their help."""

# Commands as help lists them.
_FIRST = (
    *("audit", "attack", "diagnose", "defences", "smooth", "verify", "compare", "train", "transfer", "merge", "schema"),
    *("sign", "guard", "list", "explain"),
)

# Stands for a hyphen while lines are broken.
_HELD = "\u2011"
_SPACE = "\u00a0"
_PLAINER = (("<list[str]>", "<str>"), ("<int range>", "<int>"), ("<float range>", "<float>"))
_KINDS = {"<int": "a whole number", "integer": "a whole number", "<float": "a number", " float": "a number"}


class Command(TyperCommand):
    """A command."""

    def get_help(self, ctx: Any) -> str:
        """The help; no line ends within a word that has a hyphen, such as --fail-under."""
        return str(super().get_help(ctx)).replace(_HELD, "-")

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - as click calls it
        """What the command does; its examples can be copied, whatever the width."""
        formatter.write_paragraph()
        with formatter.indentation():
            width = formatter.width - formatter.current_indent
            formatter.write_text(_held(laid_out(inspect.cleandoc(self.help or ""), width)))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, options by heading, and what may stand anywhere."""
        params = [part for part in self.get_params(ctx) if part.name != "help"]
        arguments = [row for part in params if _is_argument(part) and (row := part.get_help_record(ctx))]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(_shown(arguments))
        for heading, options in in_panels([part for part in params if not _is_argument(part)]).items():
            rows = [row for part in options if (row := part.get_help_record(ctx))]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(_shown(rows))
        with formatter.section("Anywhere"):
            formatter.write_dl(_shown(ANYWHERE))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The same as click's; what is wrong is said in one sentence that says what to type."""
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if getattr(error, "message", None) is not None:
                _reword(error, ctx, self.get_params(ctx), typed)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run it; whatever else prints meanwhile prints to standard error."""
        with answers_alone():
            return super().invoke(ctx)


class Commands(TyperGroup):
    """The commands; what models raise to end a command, as typer does itself, ends none as if all were well."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if leaves_from(error, _TYPER):
                raise ended(error) from error
            raise

    def list_commands(self, ctx: Any) -> list[str]:
        """What most people need first, then the others as they came; those of two words are told by their first."""
        known = [name for name in super().list_commands(ctx) if " " not in name]
        return [*(name for name in _FIRST if name in known), *(name for name in known if name not in _FIRST)]

    def get_help(self, ctx: Any) -> str:
        """The help; no line ends within a word that has a hyphen."""
        return str(super().get_help(ctx)).replace(_HELD, "-")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Options of the program, then commands."""
        rows = [row for part in self.get_params(ctx) if part.name != "help" and (row := part.get_help_record(ctx))]
        with formatter.section(OWN):
            formatter.write_dl(_shown([*rows, ANYWHERE[-1]]))
        self.format_commands(ctx, formatter)


def laid_out(text: str, width: int) -> str:
    r"""Help with the commands in it on lines that a shell reads: a backslash at the end of all but the last.

    >>> print(laid_out("It is run so:\n\n  signstep audit --model nets:net --data set.npz", 40).replace("\b", "-"))
    It is run so:
    <BLANKLINE>
    -
      signstep audit --model nets:net \
          --data set.npz
    """
    parts = []
    for part in text.split("\n\n"):
        if not part.strip().startswith("signstep "):
            parts.append(part)
            continue
        # An option and its value stay together.
        words = re.sub(r"(--[\w-]+) (?=[^-\s])", f"\\1{_SPACE}", " ".join(part.split()))
        lines = [
            line.replace(_SPACE, " ")
            for line in textwrap.wrap(
                words, width - 4, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
            )
        ]
        # click leaves a paragraph as it is that begins so.
        parts.append("\b\n  " + " \\\n  ".join(lines))
    return "\n\n".join(parts)


def _shown(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rows of help with plainer words for kinds, and held together at hyphens."""
    return [
        (functools.reduce(lambda text, kind: text.replace(*kind), _PLAINER, name), _held(said)) for name, said in rows
    ]


def _held(text: str) -> str:
    return text.replace("-", _HELD)


def _is_argument(part: Any) -> bool:
    return str(part.param_type_name) == "argument"


def _reword(error: Any, ctx: Any, params: Sequence[Any], typed: Sequence[str]) -> None:
    """Say what click found wrong in words that say what to type instead; its class and status stay."""
    flags = [text for part in params if not _is_argument(part) for text in (*part.opts, *part.secondary_opts)]
    name = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and isinstance(name, str):
        error.possibilities = None
        error.message = f"No such option: {name}{_instead(name, flags)}"
        return
    param = getattr(error, "param", None)
    kind = None if param is None or _is_argument(param) else _kind(param, ctx)
    if kind is not None and type(error).__name__ == "BadParameter":
        flag, value = _last(param.opts, typed)  # type: ignore[union-attr]
        error.message = f"{flag} {value!r} is not {kind}"
        error.format_message = lambda: error.message
        return
    if str(error.message).startswith("Got unexpected extra argument"):
        stray = _stray(str(error.message))
        first = "--model" if ":" in stray else "--data"
        like = f"{first} {stray}" if stray and first in flags else "--out FOLDER"
        error.message = f"{stray or 'an argument'} stands behind no option; write {like}, say"


def _kind(param: Any, ctx: Any) -> str | None:
    """What a number has to be, in words; None for what is no number. Its kind is known by how help shows it."""
    shown = (param.get_help_record(ctx) or ("", ""))[0].lower()
    word = next((word for sign, word in _KINDS.items() if sign in shown), None)
    ends = getattr(param, "type", param)
    low, high = getattr(ends, "min", None), getattr(ends, "max", None)
    bounds = [f"of at least {low}"] * (low is not None) + [f"of at most {high}"] * (high is not None)
    return None if word is None else " ".join([word, *bounds])


def _instead(name: str, flags: Sequence[str]) -> str:
    """What was meant, as the end of a sentence; empty where nothing is near."""
    for other in _ELSEWHERE.get(name, ()):
        if other.partition(" ")[0] in flags:
            return f"; pass {other}"
    near = nearest(name, flags)
    return f"; did you mean {near}?" if near else ""


def _last(opts: Sequence[str], typed: Sequence[str]) -> tuple[str, str]:
    """The spelling of an option that was typed last, and its value."""
    found = (opts[0], "")
    for place, word in enumerate(typed):
        flag, equals, value = word.partition("=")
        if flag in opts:
            found = (flag, value if equals else typed[place + 1] if place + 1 < len(typed) else "")
    return found


def _stray(message: str) -> str:
    """The first of the words that click quotes in brackets."""
    inside = message.rpartition("(")[2].rstrip(")")
    return inside.split(" ")[0]
