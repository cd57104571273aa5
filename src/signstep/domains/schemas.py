"""Reading a schema: the TOML file that says what a domain's data means and what may change."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from signstep.errors import InputError, LoadError

Made = TypeVar("Made")


def read_toml(path: Path, make: Callable[[dict[str, Any]], Made]) -> Made:
    """What ``make`` makes of the values of a TOML file; its complaints name the file.

    Raises:
        LoadError: the file cannot be read, or is no TOML.
        InputError: it names something unknown or contradicts itself.
    """
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"the schema {path} cannot be read ({error}); pass a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise LoadError(f"{path} is no TOML ({error}); correct it there") from error
    try:
        return make(plain)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
