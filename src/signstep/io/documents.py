"""JSON and TOML as strangers may have written them: plain values, or one sentence.

A document is refused before it is read where it is no plain file (a pipe would keep its reader waiting) or is too long,
and after it where it nests too deep, names a thing twice in one object, or holds a number that is none.
"""

import json
import math
import re
import stat
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn

from signstep.errors import LoadError
from signstep.io.caps import current, how

# A key of many parts: tomllib copies what it has of it for each further one.
_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""


def read_json(path: Path, what: str) -> Any:
    """The values in a file of JSON.

    Args:
        path: of the file.
        what: it should be, for messages: "the record of a transfer".

    Raises:
        LoadError: it cannot be read, or see `json_value`.
    """
    return json_value(content_of(path, what, current().text), f"{what} {path}")


def json_value(content: bytes | str, what: str, most: int | None = None, *, finite: bool = True) -> Any:
    """The values in a document of JSON.

    Args:
        content: the document.
        what: it should be, for messages.
        most: bytes that it may have; None for the cap ``text``.
        finite: refuse NaN and infinity, which JSON has no words for; else they are read as Python writes them.

    Raises:
        LoadError: it is none, too long, nested too deep, names a thing twice in one object, or has NaN or infinity.
    """
    most = current().text if most is None else most
    if len(content) > most:
        _long(what, len(content), most)
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        constant = _no_number if finite else None
        value = json.loads(text, object_pairs_hook=_once, parse_constant=constant)
        if finite and _has_infinite(value):  # such as 1e999; read once more to say which
            json.loads(text, parse_float=_finite)
    except RecursionError:
        _deep(what, "JSON")
    except ValueError as error:  # of UTF-8, of JSON, of numbers too long
        raise LoadError(f"{what} is not JSON ({error})", remedy="write or download it again") from error
    _check_depth(value, what, "JSON")
    return value


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The table in a file of TOML.

    Raises:
        LoadError: it cannot be read, or see `toml_table`.
    """
    return toml_table(content_of(path, what, current().text // 4), f"{what} {path}")


def toml_table(content: bytes | str, what: str) -> dict[str, Any]:
    """The table in a document of TOML.

    Raises:
        LoadError: it is none, too long, or nested too deep.
    """
    caps = current()
    if len(content) > caps.text // 4:
        _long(what, len(content), caps.text // 4)
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        if re.search(rf"(?<![A-Za-z0-9_\"'-])(?:{_PART}[ \t]*+\.[ \t]*+){{{caps.depth}}}", text):
            _deep(what, "TOML")
        plain = tomllib.loads(text)
    except RecursionError:
        _deep(what, "TOML")
    except LoadError:
        raise
    except ValueError as error:
        raise LoadError(f"{what} is not TOML ({error})", remedy="correct it there") from error
    _check_depth(plain, what, "TOML")
    return plain


def read_text(path: Path, what: str) -> str:
    """The text in a file that is small by its nature: a list of names, a vocabulary.

    Raises:
        LoadError: it cannot be read, is longer than the cap ``text``, or is no UTF-8.
    """
    content = content_of(path, what, most := current().text)
    if len(content) > most:
        _long(f"{what} {path}", len(content), most)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LoadError(f"{what} {path} is no text in UTF-8 ({error})", remedy="write it again") from error


def content_of(path: Path, what: str, most: int) -> bytes:
    """The bytes of a plain file of at most so many, and one more where it grew since.

    Raises:
        LoadError: it cannot be read, is a pipe or a device, or is longer.
    """
    try:
        seen = path.stat()
        if stat.S_ISREG(seen.st_mode) and seen.st_size > most:
            _long(f"{what} {path}", seen.st_size, most)
        if not (stat.S_ISREG(seen.st_mode) or stat.S_ISDIR(seen.st_mode)):
            raise LoadError(f"{what} {path} cannot be read: it is no plain file", remedy="pass one")
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise LoadError(f"{what} {path} cannot be read ({error.strerror or error})", remedy="check the path") from error


def _check_depth(value: Any, what: str, kind: str) -> None:
    """Level by level, since a walk that calls itself would end where the enemy wants."""
    for depth, _ in enumerate(_levels(value)):
        if depth > current().depth:
            _deep(what, kind)


def _levels(value: Any) -> Iterator[list[Any]]:
    """The values of a document, those inside of each other one level after the other."""
    level: list[Any] = [[value]]
    while level:
        yield level
        level = [part for here in level if not _plain(values := _inside(here)) for part in values if _holds(part)]


def _has_infinite(value: Any) -> bool:
    return any(
        math.inf in values or -math.inf in values
        for level in _levels(value)
        for here in level
        if float in set(map(type, values := _inside(here)))
    )


def _plain(values: Collection[Any]) -> bool:
    """Whether nothing is inside of any of them; long lists of numbers are gone through by the interpreter itself."""
    return {dict, list}.isdisjoint(map(type, values))


def _holds(value: Any) -> bool:
    return isinstance(value, dict | list)


def _inside(value: Any) -> Collection[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {name[:60]!r} comes twice in one object")
            seen.add(name)
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _no_number(text)
    return value


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word[:40]} is no finite number")


def _deep(what: str, kind: str) -> NoReturn:
    raise LoadError(
        f"{what} is not {kind} that is read, it nests deeper than {current().depth}", remedy=how("depth")
    ) from None


def _long(what: str, size: int, most: int) -> NoReturn:
    raise LoadError(f"{what} has {size} bytes, over {most}", remedy=how("text"))
