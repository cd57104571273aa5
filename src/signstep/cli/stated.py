"""What the commands that diagnose share: their words, and what of a command line says model, data and threat."""

from collections.abc import Sequence
from dataclasses import fields

import typer

from signstep.cli.groups import BatchOptions, DataOptions, MachineOptions, ModelOptions, ThreatOptions
from signstep.diagnosing.views import VIEWS
from signstep.errors import InputError
from signstep.messages import Arg

FAILS = ("inflated", "undetermined")

_GROUPS = (ModelOptions, DataOptions, BatchOptions, ThreatOptions, MachineOptions)
_TERMS = {
    *(part.name for group in _GROUPS for part in fields(group)),
    *("surrogate", "engine", "domain", "schema", "ignore_column", "endpoint", "max_requests"),
}


def stated(context: typer.Context) -> tuple[str, ...]:
    """The options that say model, data and threat, as they were typed or configured."""
    words: list[str] = []
    for option in context.command.params:
        name = option.name or ""
        source = context.get_parameter_source(name)
        if name not in _TERMS or source is None or source.name not in ("COMMANDLINE", "DEFAULT_MAP"):
            continue
        value = context.params[name]
        flag = next(text for text in option.opts if text.startswith("--"))
        if value is True:
            words.append(flag)
        elif value is not False and value is not None:
            for one in value if isinstance(value, (list, tuple)) else [value]:
                words += [flag, str(one)]
    return tuple(words)


def check_words(fail_on: Sequence[str] | None) -> None:
    """See that gates name verdicts.

    Raises:
        InputError: one of them is none.
    """
    for word in fail_on or ():
        if word not in FAILS:
            raise InputError(Arg("fail_on", word), remedy=f"pass {' or '.join(FAILS)}")


def shown_views(show: Sequence[str] | None) -> tuple[str, ...]:
    """What is to be shown, from words that may stand in one text with commas between them.

    Raises:
        InputError: there is no such view.
    """
    names = [name for text in show or () for name in text.split(",") if name]
    for name in names:
        VIEWS.find(name)
    return tuple(dict.fromkeys(names))
