"""What tells two audits apart: of each term that differs the innermost parts that do, as they were and as they are."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from signstep.errors import LoadError
from signstep.io.documents import json_value

_MOST, _LONGEST = 4, 60
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\w.<>]+\.[\w<>]+")
_NOTHING = "nothing"


def differences(there: Mapping[Any, object], here: Mapping[str, str]) -> str:
    """The terms that differ, such as "seed: 0 there, 1 here"; "" where none does.

    Args:
        there: what was told, by anybody.
        here: what is now.

    >>> differences({"threat": '{"pack.Ball": {"eps": 0.1, "low": 0}}', "seed": "0"},
    ...             {"threat": '{"pack.Ball": {"eps": 0.2, "low": 0}}', "seed": "1"})
    'threat.eps: 0.1 there, 0.2 here; seed: 0 there, 1 here'
    """
    said: list[str] = []
    for name in [*here, *(name for name in there if name not in here)]:
        one, two = there.get(name), here.get(name)
        if one != two:
            said += [f"{place}: {seen}" for place, seen in _parts(_value(one), _value(two), str(name))]
    rest = [f"and {len(said) - _MOST} more"] if len(said) > _MOST else []
    return "; ".join([*said[:_MOST], *rest])


def _value(text: object) -> Any:
    """What a term says: the value that it is the JSON of, or the text itself."""
    if isinstance(text, str) and (text[:1] in ("{", "[") or text in ("null", "true", "false")):
        try:
            return json_value(text, "a term", finite=False)
        except LoadError:
            pass
    return _NOTHING if text is None else text


def _parts(one: Any, two: Any, place: str) -> Iterator[tuple[str, str]]:
    """Where two values differ, and how."""
    if isinstance(one, dict) and isinstance(two, dict):
        if _class(one) is not None and _class(two) is not None and _class(one) != _class(two):
            yield place, _both(*_apart(_class(one) or "", _class(two) or ""))
            return
        for name in [*two, *(name for name in one if name not in two)]:
            first, second = one.get(name, _NOTHING), two.get(name, _NOTHING)
            if first != second or type(first) is not type(second):
                inner = place if _class(two) is not None else f"{place}.{name}"
                yield from _parts(first, second, inner)
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two) and _nested(one + two):
        for number, (first, second) in enumerate(zip(one, two, strict=True)):
            if first != second:
                yield from _parts(first, second, f"{place}[{number}]")
    else:
        yield place, _both(_text(one), _text(two))


def _class(value: Any) -> str | None:
    """The class of what was written as ``{class: {...}}``."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    name = next(iter(value))
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None


def _nested(values: list[Any]) -> bool:
    return any(isinstance(value, (dict, list)) for value in values)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return _class(value) or f"{len(value)} parts"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def _apart(one: str, two: str) -> tuple[str, str]:
    """Two names of classes, without their modules if that is not what differs."""
    first, second = one.rpartition(".")[2], two.rpartition(".")[2]
    return (one, two) if first == second else (first, second)


def _both(one: str, two: str) -> str:
    """Two texts beside each other, each cut to where they differ."""
    first, second = (_DIGEST.sub(lambda found: f"{found[0][:12]}...", text) for text in (one, two))
    if first == second:  # digests that begin alike
        first, second = one, two
    apart = (at for at, pair in enumerate(zip(first, second, strict=False)) if len({*pair}) > 1)
    same = next(apart, min(len(first), len(second)))
    start = max(0, same - _LONGEST // 2) if max(len(first), len(second)) > _LONGEST else 0
    return f"{_window(first, start)} there, {_window(second, start)} here"


def _window(text: str, start: int) -> str:
    cut = text[start : start + _LONGEST]
    return f"{'...' if start else ''}{cut}{'...' if len(text) > start + _LONGEST else ''}" or "''"
