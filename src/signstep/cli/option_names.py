"""Messages in the words of the command line: what the API calls an argument is here an option."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike, fspath
from typing import Any

from signstep.messages import UNSAID, Arg, Blank, Key, Message, in_python

# Arguments of the API that go by another name here: the parameter of the command, the first that it has.
_OTHERWISE = {
    "target": ("goal",),
    "recipe": ("recipe", "attack"),
    "attacks": ("attack",),
    "curve_attacks": ("curve_attack",),
    "eps": ("threat",),
    "norm": ("threat",),
    "model_args": ("model_arg",),
    "batch": ("batch_size",),
}
# Values that are written otherwise, by argument and by the value in Python.
_VALUES = {
    ("curve", "False"): "none",
    ("target", "None"): "untargeted",
    ("task", "Regression(tolerance)"): "regression --tolerance T",
}
_PLAIN = re.compile(r"[\w.,:/+-]+")


def in_options(message: Message, options: Mapping[str, Any]) -> str:
    """An error or a warning with the options of a command instead of the API's arguments.

    Args:
        message: raised by Signstep on purpose.
        options: of the command that ran, by the arguments of the API (`options_by_argument`).
    """
    return message.said(partial(_in_options, options), between=" ")


def options_by_argument(command: Any) -> dict[str, Any]:
    """The option behind each argument of the API, from the options of a command as click knows it; None has none."""
    options = {
        text[2:].replace("-", "_"): option
        for option in getattr(command, "params", ())
        for text in option.opts
        if text.startswith("--")
    }
    for argument, names in _OTHERWISE.items():
        known = [name for name in names if name in options]
        if known:
            options[argument] = options[known[0]]
    return options


def words_of(command: Any) -> Callable[[Message], str]:
    """How messages are written for those who typed a command, as click knows it."""
    return partial(in_options, options=options_by_argument(command))


def command_of(words: Sequence[str], group: Any) -> Any:
    """The command among the words typed; None where there is none."""
    return next((group.commands[word] for word in words if word in group.commands), None)


def _in_options(options: Mapping[str, Any], argument: Arg, cure: bool) -> str:
    option = options.get(argument.name)
    if option is None or isinstance(argument, Key):
        return in_python(argument, cure)
    flag = _flag(option)
    if argument.of:
        return f"{flag} has {argument.of} {argument.shown}"
    return " ".join(f"{flag} {value}".rstrip() for value in _typed(argument, option))


def _typed(argument: Arg, option: Any) -> list[str]:
    """The values as they are typed, one for each time that the option is given; an empty one where none is said."""
    known = _VALUES.get((argument.name, argument.shown or ""))
    if known is not None:
        return [known]
    if argument.name == "eps":
        return ["NORM:EPS" if argument.value is UNSAID else f"NORM:{_value(argument)}"]
    if argument.name == "norm":
        return ["NORM:EPS" if argument.value is UNSAID else f"{_value(argument)}:EPS"]
    if argument.value is UNSAID or getattr(option, "is_flag", False):
        return [""]
    if getattr(option, "multiple", False) and isinstance(argument.value, (tuple, list)):
        return [_word(part, ",") for part in argument.value]
    return [_value(argument, "x" if argument.name == "resize" else ",")]


def _value(argument: Arg, between: str = ",") -> str:
    """A value as it is typed: sequences with commas, words without quotes, what is to be filled in in capitals."""
    return str(argument.shown) if argument.as_shown else _word(argument.value, between)


def _word(value: object, between: str) -> str:
    if isinstance(value, Blank):
        return between.join(name.upper() if name.isidentifier() else name for name in value.names)
    if isinstance(value, (tuple, list)):
        return between.join(_word(part, between) for part in value)
    if value is None:
        return "none"
    if isinstance(value, (str, PathLike)):
        text = fspath(value) if isinstance(value, PathLike) else value
        return text if isinstance(text, str) and _PLAIN.fullmatch(text) else repr(text)
    return repr(value)


def _flag(option: Any) -> str:
    return str(next(text for text in option.opts if text.startswith("--")))
