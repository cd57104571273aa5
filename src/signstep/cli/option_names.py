"""Messages in the words of the command line: what the API calls an argument is here an option."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike, fspath
from types import MappingProxyType
from typing import Any

from signstep.messages import UNSAID, Arg, Blank, Key, Message, in_python

# Arguments of the API that go by another name here: the parameter of the command, the first that it has.
_OTHERWISE = {
    "target": ("goal",),
    "recipe": ("recipe", "attack", "ladder", "curve_attack"),
    "attacks": ("attack",),
    "curve_attacks": ("curve_attack",),
    "eps": ("threat",),
    "norm": ("threat",),
    "model_args": ("model_arg",),
    "batch": ("batch_size",),
    "detector": ("detector", "detect"),
}
# Values that are written otherwise, by argument and by the value in Python.
_VALUES = {
    ("curve", "False"): "none",
    ("target", "None"): "untargeted",
    ("task", "Regression(tolerance)"): "regression --tolerance T",
}
_PLAIN = re.compile(r"[\w.,:/+-]+")


class Options(dict[str, Any]):
    """The option behind each argument of the API, and what was typed: values by option, as it was written."""

    typed: Mapping[str, Sequence[str]] = MappingProxyType({})

    def written(self, option: Any) -> list[str]:
        """The values that were typed for an option."""
        return [value for flag in option.opts for value in self.typed.get(flag, ())]


def in_options(message: Message, options: Mapping[str, Any]) -> str:
    """An error or a warning with the options of a command instead of the API's arguments.

    Args:
        message: raised by Signstep on purpose.
        options: of the command that ran, by the arguments of the API (`options_by_argument`).
    """
    known = options if isinstance(options, Options) else Options(options)
    return message.said(partial(_in_options, known), between=" ")


def options_by_argument(command: Any, words: Sequence[str] = ()) -> Options:
    """The option behind each argument of the API, from the options of a command as click knows it; None has none.

    Args:
        command: as click knows it.
        words: that were typed: of several options that an argument may come from the one that was typed is blamed, and
            an option with two names by the name that was typed.
    """
    options = Options(
        {
            text[2:].replace("-", "_"): option
            for option in getattr(command, "params", ())
            for text in option.opts
            if text.startswith("--")
        }
    )
    options.typed = _typed_values(words)
    for argument, names in _OTHERWISE.items():
        known = [name for name in names if name in options]
        if known:
            options[argument] = options[known[0]]
    return options


def _typed_values(words: Sequence[str]) -> dict[str, list[str]]:
    """What stands behind each option among the words: behind its equals sign, or as the next word."""
    found: dict[str, list[str]] = {}
    for place, word in enumerate(words):
        if word == "--":
            break
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            found.setdefault(flag, []).append(value if equals else "".join(words[place + 1 : place + 2]))
    return found


def words_of(command: Any) -> Callable[[Message], str]:
    """How messages are written for those who typed a command, as click knows it."""
    return partial(in_options, options=options_by_argument(command))


def command_of(words: Sequence[str], group: Any) -> Any:
    """The command among the words typed; None where there is none."""
    return next((group.commands[word] for word in words if word in group.commands), None)


def _in_options(options: Options, argument: Arg, cure: bool) -> str:
    option = options.get(argument.name)
    if option is None or isinstance(argument, Key):
        return in_python(argument, cure)
    option = _blamed(options, argument, option)
    flag = _flag(option, options.typed)
    if argument.of:
        return f"{flag} has {argument.of} {argument.shown}"
    return " ".join(f"{flag} {value}".rstrip() for value in _typed(argument, option, options, cure=cure))


def _blamed(options: Options, argument: Arg, first: Any) -> Any:
    """Of the options that an argument may come from the one in which its value was typed, else the first there is."""
    if argument.value is UNSAID:
        return first
    known = [options[name] for name in _OTHERWISE.get(argument.name, ()) if name in options]
    value = argument.value if isinstance(argument.value, str) else None
    for option in known:
        if value and any(value.lower() in text.lower() for text in options.written(option)):
            return option
    return next((option for option in known if options.written(option)), first)


def _typed(argument: Arg, option: Any, options: Options, *, cure: bool) -> list[str]:
    """The values as they are typed, one for each time that the option is given; an empty one where none is said."""
    known = _VALUES.get((argument.name, argument.shown or ""))
    if known is not None:
        return [known]
    if argument.name in ("eps", "norm"):
        whole = options.written(option)[-1:]
        return whole if whole and not cure else [_threat(argument, "".join(whole))]
    if argument.value is UNSAID or getattr(option, "is_flag", False):
        return [""]
    if getattr(option, "multiple", False) and isinstance(argument.value, (tuple, list)):
        return [_word(part, ",") for part in argument.value]
    return [_value(argument, "x" if argument.name == "resize" else ",")]


def _threat(argument: Arg, whole: str) -> str:
    """A threat with a norm or a size; the norm is that of the one that was typed, where one was."""
    measure, size = whole.rpartition(":")[0] or "NORM", "EPS"
    if argument.value is not UNSAID:
        measure, size = (measure, _value(argument)) if argument.name == "eps" else (_value(argument), size)
    return f"{measure}:{size}"


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


def _flag(option: Any, typed: Mapping[str, object]) -> str:
    """The name of an option that was typed, else its first."""
    names = [str(text) for text in option.opts if text.startswith("--")]
    return next((name for name in names if name in typed), names[0])
