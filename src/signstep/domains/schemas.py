"""Reading a schema: the TOML file that says what a domain's data means and what may change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from signstep.errors import InputError
from signstep.io import documents

Made = TypeVar("Made")


def read_toml(path: Path, make: Callable[[dict[str, Any]], Made]) -> Made:
    """What ``make`` makes of the values of a TOML file; its complaints name the file.

    Raises:
        LoadError: the file cannot be read, or is no TOML.
        InputError: it names something unknown or contradicts itself.
    """
    plain = documents.read_toml(path, "the schema")
    try:
        return make(plain)
    except InputError as error:
        raise error.within(str(path)) from error
