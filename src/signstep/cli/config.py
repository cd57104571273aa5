"""Options from a file: ``signstep.toml``, or ``[tool.signstep]`` in ``pyproject.toml``; the command line wins."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from signstep.errors import InputError, LoadError
from signstep.io.caps import NAMES, current
from signstep.io.documents import content_of, toml_table
from signstep.io.files import is_writable
from signstep.messages import Arg
from signstep_entry import WITH_VALUES

# Options that no record holds.
_NOT_WRITTEN = ("out", "baseline")

# Options that had another name.
_RENAMED = {"target": "goal"}


@dataclass(frozen=True)
class Settings:
    """What the file says.

    Attributes:
        source: the file, or None.
        defaults: by command, values for options that the command line does not give.
        ignore: findings to set aside, each with its reason.
    """

    source: Path | None = None
    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)
    ignore: dict[str, str] = field(default_factory=dict)


def find_config(words: Sequence[str]) -> Path | None:
    """The file named by ``--config`` before the command, else the one in the current folder, if that is no report's."""
    named = before_command(words, "--config")
    if named:
        return Path(named[0])
    own, project = Path("signstep.toml"), Path("pyproject.toml")
    if Path("SHA256SUMS").exists():
        return None  # a report's folder: what others left there says nothing about what is to be run here
    if own.is_file():
        return own
    return project if project.is_file() and "signstep" in _parsed(_content(project), project).get("tool", {}) else None


def find_caps(words: Sequence[str]) -> dict[str, int]:
    """The caps that ``--cap NAME=NUMBER`` before the command raises, perhaps several times.

    Raises:
        InputError: one is not written so.
    """
    found: dict[str, int] = {}
    for text in before_command(words, "--cap"):
        name, _, number = text.partition("=")
        if name not in NAMES or not number.isdecimal() or len(number) > 18:
            raise InputError(
                f"--cap {text!r} is not NAME=NUMBER",
                remedy=f"pass one of {', '.join(NAMES)}, such as names=200000",
            )
        found[name] = int(number)
    return found


def before_command(words: Sequence[str], option: str) -> list[str]:
    """The values of an option of the program itself, which stands before the command."""
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            break
        name, equals, value = word.partition("=")
        if name in WITH_VALUES:
            value = value if equals else next(rest, "")
            found += [value] if name == option and value else []
    return found


def read_config(path: Path | None, command: Any) -> Settings:
    """Read the file and check its keys against the options of each command.

    Raises:
        InputError: the file cannot be read, or names a command or an option that does not exist.
    """
    if path is None:
        return Settings()
    return read_text(_content(path), path, command)


def read_text(content: bytes, path: Path, command: Any) -> Settings:
    """The same from the content of the file at ``path``.

    Raises:
        InputError: it is no TOML, or names a command or an option that does not exist.
    """
    plain = _parsed(content, path)
    if path.name == "pyproject.toml":
        plain = plain.get("tool", {}).get("signstep", {})
    defaults: dict[str, dict[str, Any]] = {}
    ignore: dict[str, str] = {}
    for name, table in plain.items():
        if name not in command.commands or not isinstance(table, dict):
            raise InputError(
                f"{path}: [{name}] is not a command", remedy=f"write a table for {', '.join(command.commands)}"
            )
        options = {option.name: option for option in command.commands[name].params}
        chosen: dict[str, Any] = {}
        for key, value in table.items():
            if key == "ignore" and isinstance(value, dict):
                ignore |= {code: str(reason) for code, reason in value.items()}
                continue
            option = options.get(key.replace("-", "_"))
            if option is None and (renamed := _RENAMED.get(key)) in options:
                raise InputError(
                    f"{path}: [{name}] has no option {key!r} any more", remedy=f"it is called {renamed} now"
                )
            if option is None:
                near = difflib.get_close_matches(key.replace("-", "_"), list(options), n=1)
                hint = f"did you mean {near[0]}?" if near else f"see signstep {name} --help"
                raise InputError(f"{path}: [{name}] has no option {key!r}", remedy=hint)
            chosen[option.name] = _shaped(value, several=option.multiple)
        defaults[name] = chosen
    return Settings(path, defaults, ignore)


def dump_config(command: str, options: Mapping[str, Any], ignore: Mapping[str, str]) -> str:
    """The complete configuration of one run as TOML: running it again gives the same result."""
    table = {name: _plain(value) for name, value in options.items() if value is not None and value != []}
    if ignore:
        table["ignore"] = dict(ignore)
    start = f"# Run again with: signstep --config THIS_FILE {command}\n# Paths are relative to where it ran.\n\n"
    return start + tomli_w.dumps({command: table})


def _content(path: Path) -> bytes:
    try:
        return content_of(path, "--config", current().text // 4)
    except LoadError as error:
        raise InputError(*error.parts, remedy=error.cure) from error


def _parsed(content: bytes, path: Path) -> dict[str, Any]:
    try:
        return toml_table(content, str(path))
    except LoadError as error:
        raise InputError(*error.parts, remedy=error.cure) from error


def check_written(command: str, options: Mapping[str, Any]) -> None:
    """See that the options of a run can be written into its record, before the work.

    Raises:
        InputError: one has bytes that are not UTF-8.
    """
    for name, value in options.items():
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if name not in _NOT_WRITTEN and isinstance(part, (str, Path)) and not is_writable(str(part)):
                raise InputError(
                    Arg(name, part, shown=f"{str(part)!a}"),
                    f"of {command} is not UTF-8, in which records are written",
                    remedy="pass other text, or rename the file",
                )


def _shaped(value: Any, *, several: bool) -> Any:
    """Lists of numbers are written with commas on the command line."""
    if several:
        return [str(part) for part in value] if isinstance(value, list) else [str(value)]
    return ",".join(str(part) for part in value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
