"""Records read as an enemy may have written them: JSON that is exactly what the record's classes say, or one sentence.

Nothing is converted and nothing is guessed: a field of another type, one too many, one that is missing, a name that
comes twice, NaN, infinity or a number without end is refused with the place where it stands.
"""

import json
import math
import re
import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from signstep.errors import LoadError, SignstepError

Made = TypeVar("Made")

# A record of a million examples and ten attacks has some 300 MB; its text nests six deep.
LARGEST = 2**30
DEEPEST = 32
# Lists and objects: a record has some for each attack and each row of a section's table, not for each example. An empty
# one takes thirty times the memory of its three letters.
MOST = 10**6
_WIDEST = 2**63

# What stands between quotes may hold brackets; an open end is one too, so that no text is gone through twice.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+\\?(?:"|\Z)', re.DOTALL)
_BRACKETS = re.compile(r"[^][{}]++")


def parse(text: str) -> Any:
    """JSON as plain values.

    Raises:
        LoadError: no JSON; a name twice in one object; NaN or infinite numbers; nested deeper than records are, or in
            more lists and objects; or longer than a record may be.
    """
    if len(text) > LARGEST:
        raise not_a_result(f"{len(text)} characters, more than the {LARGEST} it may have")
    brackets = _BRACKETS.sub("", _STRING.sub("", text))
    if len(brackets) > 2 * MOST:
        raise not_a_result(f"it has more than {MOST} lists and objects")
    if (depth := _depth(brackets)) > DEEPEST:
        raise not_a_result(f"it nests {depth} deep, records at most {DEEPEST}")
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        if isinstance(error, LoadError):
            raise
        raise not_a_result(f"{type(error).__name__}: {error}") from error


def not_a_result(why: str) -> LoadError:
    """The error about what is no record of ours."""
    return LoadError(f"this is not a signstep result: {why}", remedy="pass the result.json of a report")


def made(kind: type[Made], plain: Any, where: str = "") -> Made:
    """A value of the type, dataclasses and what they hold included, from plain values.

    Raises:
        LoadError: something is of another type, missing or too much; the message says where.
    """
    read: Callable[[Any, str], Made] = _reader(kind)  # type: ignore[arg-type]  # classes are hashable
    return read(plain, where)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise not_a_result(f"the name {_short(twice)} comes twice in one object")
    return found


def _no_constant(word: str) -> NoReturn:
    raise not_a_result(f"it has the number {word}, and a record's are finite")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _no_constant(text[:40])
    return value


def _depth(brackets: str) -> int:
    deepest = depth = 0
    for bracket in brackets:
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


@cache
def _reader(kind: Any) -> Callable[[Any, str], Any]:
    """What reads values of a type; the types are those that records are made of."""
    origin, inner = get_origin(kind), get_args(kind)
    read: Callable[[Any, str], Any]
    if kind is Any:
        read = _anything
    elif kind in _NAMES:
        read = _leaf(kind)
    elif origin is Literal:
        read = _one_of(inner)
    elif origin in (types.UnionType, Union):
        read = _optional(inner)
    elif origin is tuple:
        read = _several(inner[0]) if inner[1:] == (Ellipsis,) else _fixed(inner)
    elif origin is dict:
        read = _mapping(inner[1])
    elif is_dataclass(kind):
        read = _object(kind)
    else:
        raise TypeError(f"records have no {kind}")
    return read


def _leaf(kind: type) -> Callable[[Any, str], Any]:
    def read(plain: Any, where: str) -> Any:
        if kind is float and type(plain) is int:
            _bounded(plain, where)
            return float(plain)
        if type(plain) is not kind:
            _wrong(where, _NAMES[kind], plain)
        return _bounded(plain, where)

    return read


def _anything(plain: Any, where: str) -> Any:
    """Plain values as they are, with whole numbers that fit a machine."""
    if isinstance(plain, dict):
        return {name: _anything(part, f"{where}.{name}") for name, part in plain.items()}
    if isinstance(plain, list):
        return [_anything(part, where) for part in plain]
    return _bounded(plain, where)


def _bounded(plain: Any, where: str) -> Any:
    if type(plain) is int and not -_WIDEST <= plain < _WIDEST:
        raise not_a_result(f"{_at(where)} is a whole number beyond 64 bits")
    return plain


def _one_of(words: tuple[Any, ...]) -> Callable[[Any, str], Any]:
    def read(plain: Any, where: str) -> Any:
        if not isinstance(plain, str) or plain not in words:
            _wrong(where, f"one of {', '.join(words)}", plain)
        return plain

    return read


def _optional(kinds: tuple[Any, ...]) -> Callable[[Any, str], Any]:
    """A type or None; no record has other unions."""
    (kind,) = (part for part in kinds if part is not type(None))
    read = _reader(kind)
    return lambda plain, where: None if plain is None else read(plain, where)


def _several(kind: Any) -> Callable[[Any, str], Any]:
    read = _reader(kind)

    def items(plain: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(plain, list):
            _wrong(where, "a list", plain)
        return tuple([read(part, where) for part in plain])

    return items


def _fixed(kinds: tuple[Any, ...]) -> Callable[[Any, str], Any]:
    readers = [_reader(kind) for kind in kinds]

    def items(plain: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(plain, list) or len(plain) != len(readers):
            _wrong(where, f"a list of {len(readers)}", plain)
        return tuple(read(part, where) for read, part in zip(readers, plain, strict=True))

    return items


def _mapping(kind: Any) -> Callable[[Any, str], Any]:
    read = _reader(kind)

    def items(plain: Any, where: str) -> dict[str, Any]:
        if not isinstance(plain, dict):
            _wrong(where, "an object", plain)
        return {name: read(part, f"{where}.{name}") for name, part in plain.items()}

    return items


def _object(kind: Any) -> Callable[[Any, str], Any]:
    hints = get_type_hints(kind)
    parts = {part.name: _reader(hints[part.name]) for part in fields(kind)}

    def read(plain: Any, where: str) -> Any:
        if not isinstance(plain, dict):
            _wrong(where, "an object", plain)
        if unknown := sorted(set(plain) - set(parts)):
            raise not_a_result(f"{_at(where)} has no field {_short(unknown[0])}")
        if missing := [name for name in parts if name not in plain]:
            raise not_a_result(f"{_at(where)} lacks {missing[0]}")
        values = {name: parts[name](part, f"{where}.{name}") for name, part in plain.items()}
        try:
            return kind(**values)
        except SignstepError as error:  # what the class itself does not allow
            raise not_a_result(f"{_at(where)}: {error}") from error

    return read


_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def _wrong(where: str, wanted: str, plain: Any) -> NoReturn:
    seen = _short(json.dumps(plain, default=repr)) if not isinstance(plain, (dict, list)) else type(plain).__name__
    raise not_a_result(f"{_at(where)} is {seen}, not {wanted}")


def _at(where: str) -> str:
    return _short(where.removeprefix(".")) if where else "the record"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
