"""Messages in the words of the command line: what the API calls an argument is here an option."""

import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

# Arguments of the API that go by another name here: the parameter of the command, the first that it has.
_OTHERWISE = {
    "target": ("goal",),
    "recipe": ("recipe", "attack"),
    "attacks": ("attack",),
    "curve_attacks": ("curve_attack",),
    "eps": ("threat",),
}
# Values that are written otherwise, by argument.
_VALUES = {
    ("curve", "False"): "none",
    ("target", "None"): "untargeted",
    ("task", "Regression(tolerance)"): "regression --tolerance T",
}
_VALUE = r"'[^']*'|\"[^\"]*\"|\([^()]*\)|\[[^\[\]]*\]|[\w+-](?:[\w.:/+-]*[\w/+-])?(?:\([^()]*\))?|"
# Inside of words, paths, quoted text and code that somebody else wrote nothing is touched.
_ASSIGNED = re.compile(rf"(?<![^\s(\[])([a-z_]+)=({_VALUE})(?=[\s.,;:)\]]|$)")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_PLAIN = re.compile(r"[\w.,:/+-]+")
# There every name=value belongs to the user's own function, and messages quote the user's own errors.
_FOREIGN = ("signstep.model.opening.factory", "signstep.importing")


def in_options(error: BaseException, command: Any) -> str:
    """The message of an error with the options of a command instead of the API's arguments.

    Args:
        error: Raised by Signstep on purpose.
        command: The command that ran, as click knows it; None leaves the message as it is.
    """
    if _raised_in(error.__traceback__) in _FOREIGN:
        return str(error)
    return translated(str(error), options_by_argument(command))


def options_by_argument(command: Any) -> dict[str, Any]:
    """The option behind each argument of the API, from the options of a command."""
    options = {
        option.name.rstrip("_"): option
        for option in getattr(command, "params", ())
        if any(text.startswith("--") for text in option.opts)
    }
    for argument, names in _OTHERWISE.items():
        known = [name for name in names if name in options]
        if known:
            options[argument] = options[known[0]]
    return options


def translated(text: str, options: Mapping[str, Any]) -> str:
    """A message in which ``name=value`` is an option, where the name is an argument that has one.

    So is a name of several words (skip_bad), which no sentence has otherwise. Text in quotes stays as it is.
    """

    def assigned(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        return match[0] if name not in options else _option(name, value, options[name])

    names = sorted((name for name in options if "_" in name), key=len, reverse=True)
    named = re.compile(rf"(?<![\w/.-])({'|'.join(names) or '(?!)'})(?![\w=/(-]|\.\w)")
    replaced, end = [], 0
    for quoted in [*_QUOTED.finditer(text := _ASSIGNED.sub(assigned, text)), None]:
        start = len(text) if quoted is None else quoted.start()
        replaced.append(named.sub(lambda match: _flag(options[match[1]]), text[end:start]))
        if quoted is not None:
            replaced.append(quoted[0])
            end = quoted.end()
    return "".join(replaced)


def _option(name: str, value: str, option: Any) -> str:
    flag = _flag(option)
    if name == "eps":
        return f"{flag} NORM:{_written(value) or 'EPS'}"
    if (name, value) in _VALUES:
        return f"{flag} {_VALUES[name, value]}"
    if not value or getattr(option, "is_flag", False):
        return flag
    return f"{flag} {_written(value, 'x' if name == 'resize' else ',')}"


def _written(value: str, between: str = ",") -> str:
    """A value as it is typed: sequences with commas, words without quotes, names of values in capitals."""
    if value[:1] in ("(", "["):
        parts = [part.strip().strip("'\"") for part in value[1:-1].split(",") if part.strip()]
        if value[0] == "(":
            parts = [part.upper() if part.isalpha() else part for part in parts]
        return between.join(parts)
    if value == "None":
        return "none"
    bare = value[1:-1] if value[:1] in ("'", '"') else value
    return bare if _PLAIN.fullmatch(bare) else value


def _flag(option: Any) -> str:
    return str(next(text for text in option.opts if text.startswith("--")))


def _raised_in(trace: TracebackType | None) -> str:
    """The module whose code raised."""
    name = ""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return name


def command_of(words: Sequence[str], group: Any) -> Any:
    """The command among the words typed; None where there is none."""
    return next((group.commands[word] for word in words if word in group.commands), None)
