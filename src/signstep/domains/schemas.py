"""Reading a schema: the TOML file that says what a domain's data means and what may change."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from signstep.errors import InputError
from signstep.io import documents
from signstep.messages import Key

Made = TypeVar("Made")
Row = TypeVar("Row")


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


def table_of(plain: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The table ``[name]`` of a schema; empty where there is none.

    Raises:
        InputError: it is no table.
    """
    found = plain.get(name, {})
    if not isinstance(found, dict):
        raise InputError(Key(name, found), remedy=f"write a table [{name}]", where="the schema")
    return found


def row_of(form: type[Row], plain: Any, name: str) -> Row:
    """A table as a row; lists become tuples, whole numbers may stand for others."""
    if not isinstance(plain, dict):
        raise InputError(Key(name, plain), remedy=f"write a table [{name}]", where="the schema")
    known = {part.name: part for part in fields(form)}  # type: ignore[arg-type]
    for key, value in plain.items():
        if key not in known:
            names = ", ".join(part for part in known if part != "name")
            raise InputError(f"[{name}] has {key!r}, which means nothing here", remedy=f"write one of {names}")
        wanted = getattr(known[key].type, "__name__", "str")
        if not isinstance(value, _TAKEN[wanted]):
            raise InputError(Key(key, value), remedy=f"write a {_SAID[wanted]}", where=f"[{name}]")
    try:
        return form(**{key: _plain(value) for key, value in plain.items()})
    except TypeError as error:
        raise InputError(f"[{name}] is not complete ({error})", remedy="write what is missing") from error


_TAKEN: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "tuple": (list,)}
_SAID = {"str": "text in quotes", "int": "whole number", "float": "number", "tuple": "list [...]"}


def _plain(value: Any) -> Any:
    return tuple(_plain(part) for part in value) if isinstance(value, list) else value
