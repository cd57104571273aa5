"""An endpoint as a TOML file describes it: what goes in, what comes back, and what it may cost."""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from signstep.errors import InputError, LoadError
from signstep.io.documents import read_toml
from signstep.io.files import expanded
from signstep.messages import Arg, Key
from signstep.model.victims.address import header
from signstep.model.victims.answers import KINDS, Answers
from signstep.model.victims.encoding import FORMS, IMAGES, Encoding
from signstep.model.victims.pace import Limits
from signstep.model.victims.place import Place
from signstep.plain import one_line

_TEXT, _WHOLE, _REAL, _TEXTS, _NUMBERS, _TABLE = (
    *("text", "a whole number", "a number", "a list of texts", "a list of numbers"),
    "a table of texts, finite numbers, true and false",
)
KEYS: dict[str, dict[str, str]] = {
    "request": {
        "method": _TEXT,
        "as": _TEXT,
        "at": _TEXT,
        "prefix": _TEXT,
        "layout": _TEXT,
        "fields": _TEXTS,
        "pixels": _NUMBERS,
        "shape": _NUMBERS,
        "batch": _WHOLE,
        "with": _TABLE,
    },
    "answer": {"is": _TEXT, "at": _TEXT, "classes": _TEXTS, "name": _TEXT, "value": _TEXT},
    "limits": {
        "timeout": _REAL,
        "retries": _WHOLE,
        "backoff": _REAL,
        "longest_wait": _REAL,
        "requests_per_second": _REAL,
        "max_requests": _WHOLE,
        "price": _REAL,
        "currency": _TEXT,
    },
}
_FREE = ("headers", "query")
_METHODS = ("POST", "PUT", "PATCH")
_DEFAULT_AT = {"png": "", "multipart": "file", "base64": "image", "array": "inputs[]", "record": "inputs[]"}
_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_MOST_CLASSES = 100_000


@dataclass(frozen=True)
class Description:
    """What a file says of an endpoint; what is secret is filled in, and never shown.

    Attributes:
        encoding: how inputs go.
        answers: what comes back.
        limits: what it may cost.
        method: of a request.
        batch: inputs of one.
        shape: of an input, where the file says it.
        headers: of every request, filled in.
        query: likewise.
        secrets: texts that nothing may show.
        variables: by header and key of the query, the environment variables that fill it.
        shown: how inputs go, with the names of variables in the place of what they hold.
        digest: SHA-256 of what decides how an input is answered: neither what is secret nor what it may cost.
    """

    encoding: Encoding
    answers: Answers
    limits: Limits = field(default_factory=Limits)
    method: str = "POST"
    batch: int = 1
    shape: tuple[int, ...] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    variables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shown: Encoding | None = None
    digest: str = ""

    def bounded(self, most: int | None) -> "Description":
        """With another bound on requests, where one is given.

        Raises:
            InputError: it is below 1.
        """
        return self if most is None else replace(self, limits=replace(self.limits, max_requests=most))


def description(given: str | Path | Mapping[str, Any]) -> Description:
    """Read a description: a file of TOML, or the same as a mapping.

    Raises:
        InputError: something in it is none of what it should be; the message names the key.
        LoadError: the file cannot be read.
    """
    if isinstance(given, Mapping):
        return _described(dict(given))
    path = expanded(given)
    if not path.is_file():
        raise LoadError(f"the description {path} does not exist", remedy=("check the path of", Arg("endpoint")))
    plain = read_toml(path, "the description")
    try:
        return _described(plain)
    except InputError as error:
        raise error.within(path.name) from error


def _described(plain: Mapping[str, Any]) -> Description:
    _check(plain)
    request, answer, limits = (dict(plain.get(name, {})) for name in ("request", "answer", "limits"))
    form = request.get("as")
    if form not in FORMS:
        raise InputError(
            Key("request.as", form) if form is not None else "request.as is missing: how do inputs go?",
            remedy=f"write one of {', '.join(FORMS)}",
        )
    place = Place.of(str(request.get("at", _DEFAULT_AT[form])), "request.at")
    batch = _batch(request, form, place)
    encoding = Encoding(
        form,
        place,
        _ends(request.get("pixels", [0, 1])),
        _one_of(request.get("layout", "chw"), "request.layout", ("chw", "hwc")),
        tuple(request.get("fields", ())),
        str(request.get("prefix", "")),
        dict(request.get("with", {})),
    )
    _fit(encoding, request)
    answers = _answers(answer, batch)
    secrets: list[str] = []
    beside = {name: _inside(value, f"request.with.{name}", secrets) for name, value in encoding.beside.items()}
    headers = {name: _filled(value, f"headers.{name}", secrets) for name, value in plain.get("headers", {}).items()}
    query = {name: _filled(value, f"query.{name}", secrets) for name, value in plain.get("query", {}).items()}
    for name, value in headers.items():
        header(name, value)
    shape = request.get("shape")
    deciding = {"request": {**request, "batch": 1}, "answer": answer}
    return Description(
        replace(encoding, beside=beside),
        answers,
        _limits(limits),
        _one_of(request.get("method", "POST"), "request.method", _METHODS),
        batch,
        None if shape is None else _shape(shape),
        headers,
        query,
        tuple(secrets),
        {name: _variables(value) for table in _FREE for name, value in plain.get(table, {}).items()},
        encoding,
        hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest(),
    )


def _check(plain: Mapping[str, Any]) -> None:
    """See that every key is known, and has a value of its kind.

    Raises:
        InputError: one is not.
    """
    for table, values in plain.items():
        if table not in KEYS and table not in _FREE:
            raise _unknown(table, [*KEYS, *_FREE], "")
        if not isinstance(values, dict):
            raise InputError(Key(table), "is no table", remedy=f"write [{table}] above its keys")
        for key, value in values.items():
            kind = _TEXT if table in _FREE else KEYS[table].get(key)
            if kind is None:
                raise _unknown(key, list(KEYS[table]), f"{table}.")
            if not _is(value, kind):
                shown = Key(f"{table}.{key}") if table in _FREE else Key(f"{table}.{key}", value)
                raise InputError(shown, f"is not {kind}", remedy=f"write {kind}")


def _unknown(name: str, known: list[str], before: str) -> InputError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {before}{near[0]}?" if near else f"write one of {', '.join(known)}"
    return InputError(f"there is no key {before}{one_line(name)[:60]}", remedy=hint)


def _is(value: Any, kind: str) -> bool:
    if kind == _TEXT:
        return isinstance(value, str)
    if kind == _TABLE:
        return isinstance(value, dict) and _is_json(value)
    if kind == _WHOLE:
        return type(value) is int and abs(value) < 2**53
    if kind == _REAL:
        return type(value) in (int, float) and abs(value) < 2**53  # false for NaN too
    inner = _TEXT if kind == _TEXTS else _REAL
    return isinstance(value, list) and 0 < len(value) <= _MOST_CLASSES and all(_is(one, inner) for one in value)


def _one_of(value: str, key: str, words: tuple[str, ...]) -> Any:
    if value not in words:
        raise InputError(Key(key, value), remedy=f"write one of {', '.join(words)}")
    return value


def _batch(request: Mapping[str, Any], form: str, place: Place) -> int:
    """Inputs of a request: of many there have to be places."""
    several = form in ("base64", "array", "record") and place.several
    batch = int(request.get("batch", 1))
    if batch < 1 or batch > 2**16:
        raise InputError(Key("request.batch", batch), remedy="write how many inputs go at once, at least 1")
    if batch > 1 and not several:
        raise InputError(
            Key("request.batch", batch),
            "needs a list to stand in",
            remedy=("write", Key("request.at", "inputs[]"), ", say, or leave it out to send one at a time"),
        )
    return batch


def _fit(encoding: Encoding, request: Mapping[str, Any]) -> None:
    """See that what is written goes with the form."""
    form, steps = encoding.form, encoding.place.steps
    if form == "png" and steps:
        raise InputError(Key("request.at"), "has no meaning where the file is all", remedy="leave it out")
    if form == "multipart" and (len(steps) != 1 or not isinstance(steps[0], str)):
        raise InputError(Key("request.at", encoding.place.text), remedy="write the name of the form's field")
    if any(isinstance(step, int) for step in steps) and form != "multipart":
        raise InputError(Key("request.at", encoding.place.text), "has a number", remedy="name objects, and [] once")
    heeded = {"prefix": ("base64",), "layout": ("array",), "fields": ("record",), "pixels": IMAGES}
    for key, forms in heeded.items():
        if key in request and form not in forms:
            raise InputError(
                Key(f"request.{key}"), "has no effect with", Key("request.as", form), remedy="leave it out"
            )
    if form == "record" and (not encoding.fields or len(set(encoding.fields)) < len(encoding.fields)):
        raise InputError(
            Key("request.fields"),
            "names a field twice" if encoding.fields else "is missing: what are the numbers called?",
            remedy="name each number once, in the order of the data's columns",
        )
    beside = encoding.beside
    if beside and (form == "png" or (form != "multipart" and (not steps or not isinstance(steps[0], str)))):
        raise InputError(Key("request.with"), "has no place to stand", remedy="leave it out")
    if steps and steps[0] in beside:
        raise InputError(Key("request.with"), f"has {steps[0]!r}, where the input stands", remedy="leave it out")


def _answers(answer: Mapping[str, Any], batch: int) -> Answers:
    kind = answer.get("is")
    if kind not in KINDS:
        raise InputError(
            Key("answer.is", kind) if kind is not None else "answer.is is missing: what comes back?",
            remedy=f"write one of {', '.join(KINDS)}",
        )
    place = Place.of(str(answer.get("at", "")), "answer.at")
    if batch > 1 and not place.several:
        raise InputError(
            Key("answer.at", place.text),
            "has no [] for the answers to",
            Key("request.batch", batch),
            remedy="write predictions[], say",
        )
    classes = tuple(answer.get("classes", ()))
    if len(set(classes)) < len(classes):
        raise InputError(Key("answer.classes"), "names a class twice", remedy="name each once")
    name, value = str(answer.get("name", "")), str(answer.get("value", ""))
    if value and (not name or kind == "labels"):
        raise InputError(
            Key("answer.value", value),
            "goes with the key of the class's name, and with scores",
            remedy=("write", Key("answer.name"), "too, or leave it out"),
        )
    return Answers(cast("Any", kind), place, classes, name, value)


def _ends(pixels: Any) -> tuple[float, float]:
    if len(pixels) != 2 or not pixels[0] < pixels[1]:
        raise InputError(Key("request.pixels", pixels), remedy="write the two ends, [0, 1], say")
    return float(pixels[0]), float(pixels[1])


def _shape(shape: Any) -> tuple[int, ...]:
    if len(shape) > 6 or not all(type(size) is int and 0 < size < 2**20 for size in shape):
        raise InputError(Key("request.shape", shape), remedy="write the sizes of one input, [3, 224, 224], say")
    return tuple(shape)


def _limits(limits: Mapping[str, Any]) -> Limits:
    try:
        return Limits(**limits)
    except InputError as error:
        raise error.within("[limits]") from error


def _is_json(value: Any) -> bool:
    """Whether JSON has words for a value of TOML, which has dates and NaN too."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _inside(value: Any, key: str, secrets: list[str]) -> Any:
    """A constant of a request with the variables in its texts."""
    if isinstance(value, str):
        return _filled(value, key, secrets) if _variables(value) else value.replace("$$", "$")
    if isinstance(value, dict):
        return {name: _inside(part, f"{key}.{name}", secrets) for name, part in value.items()}
    return [_inside(part, key, secrets) for part in value] if isinstance(value, list) else value


def _variables(value: str) -> tuple[str, ...]:
    """The environment variables that a text names."""
    return tuple(found[2] or found[3] for found in _VARIABLE.finditer(value) if not found[1])


def _filled(value: str, key: str, secrets: list[str]) -> str:
    """A value with its environment variables; it is a secret as a whole, and so is each of them.

    Raises:
        InputError: a variable is not set.
    """

    def of(found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        name = found[2] or found[3]
        there = os.environ.get(name, "")
        if not there:
            raise InputError(
                Key(key), f"names ${name}, which is not set", remedy="set that environment variable, export NAME=..."
            )
        secrets.append(there)
        return there

    made = _VARIABLE.sub(of, value)
    secrets.append(made)
    return made
