"""A schema as a TOML file that people edit."""

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import tomli_w

from signstep.domains.tabular.schema import Feature, Schema, Target, read_relations
from signstep.errors import InputError
from signstep.io.documents import read_toml, toml_table
from signstep.io.files import expanded
from signstep.messages import Key

_HEAD = """\
# What the columns mean and what may change in them. Edit freely.
#
# kind       continuous, integer, ordinal, categorical, binary
# low, high  the bounds of a number; levels: the texts of the others, in their order
# change     both; up or down for one direction; none for what cannot change, such as age
# budget     what an audit changes at most: "500" in the unit, "2 %" of the value, "0.1 sd"
#            (of whole numbers a whole one)
# cost       of a change by one unit, or of another category: what the cheapest flip adds up
# relations  "total = a + b", "a <= b"
"""
_NUMBERS = ("low", "high", "step", "cost", "centre", "spread")
_PARTS = ("relations", "target", "model", "audit", "feature")
_DEFAULTS = Feature("x", "continuous")


def read_schema(path: str | Path) -> Schema:
    """Read a schema.

    Raises:
        LoadError: the file cannot be read or is no TOML.
        InputError: it names something unknown, or contradicts itself.
    """
    path = expanded(path)
    return _read(read_toml(path, "the schema"), str(path))


def parse_schema(text: str, place: str = "the schema") -> Schema:
    """Read a schema from its text; ``place`` is what messages call it."""
    return _read(toml_table(text, place), place)


def _read(plain: dict[str, Any], place: str) -> Schema:
    try:
        return _schema(plain)
    except InputError as error:
        raise error.within(place) from error


def schema_text(schema: Schema) -> str:
    """The schema as TOML; `parse_schema` reads it back."""
    target = schema.target
    audit: dict[str, Any] = {"ignore": list(schema.ignore), "groups": list(schema.groups), "changes": schema.changes}
    plain = {
        "relations": [relation.rule for relation in schema.relations],
        "target": {
            "column": target.column,
            "classes": list(target.classes),
            "favourable": target.favourable,
            "granted": target.granted,
            "denied": target.denied,
        },
        "model": {"input": schema.form},
        "audit": audit,
        "feature": {feature.name: _written(feature) for feature in schema.features},
    }
    return _HEAD + tomli_w.dumps(plain)


def _written(feature: Feature) -> dict[str, Any]:
    shown: dict[str, Any] = {"kind": feature.kind}
    for name in ("low", "high", "step", "unit", "levels", "change", "budget", "cost"):
        value = getattr(feature, name)
        counted = feature.named and name in ("low", "high", "step")
        whole = name == "step" and feature.kind == "integer" and value == 1
        if counted or whole or value is None or value in ("", ()) or (name == "step" and value == 0):
            continue
        shown[name] = list(value) if isinstance(value, tuple) else _short(value)
    for name in ("centre", "spread", "label", "rises", "falls"):
        value = getattr(feature, name)
        if value != getattr(_DEFAULTS, name):
            shown[name] = value
    return shown


def _short(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def _schema(plain: Mapping[str, Any]) -> Schema:
    _refuse_unknown(plain, _PARTS, "the top of the file")
    for part in ("target", "feature"):
        if not isinstance(plain.get(part), dict):
            raise InputError(f"there is no [{part}{'.NAME' if part == 'feature' else ''}]", remedy="write it")
    target = _table(plain, "target", ("column", "classes", "favourable", "granted", "denied"))
    for name in ("column", "classes", "favourable"):
        if name not in target:
            raise InputError(f"[target] has no {name}", remedy=f"write {name} = ...")
    audit = _table(plain, "audit", ("ignore", "groups", "changes"))
    return Schema(
        tuple(_feature(name, part) for name, part in plain["feature"].items()),
        Target(
            **{
                **target,
                "classes": _texts(target["classes"], "classes", "[target]"),
                "favourable": str(target["favourable"]),
            }
        ),
        read_relations(_texts(plain.get("relations", []), "relations", "the top of the schema")),
        _whole(audit.get("changes", 0), "changes", "[audit]"),
        _texts(audit.get("ignore", []), "ignore", "[audit]"),
        _texts(audit.get("groups", []), "groups", "[audit]"),
        _table(plain, "model", ("input",)).get("input", "encoded"),
    )


def _feature(name: str, part: Any) -> Feature:
    where = f"[feature.{name}]"
    if not isinstance(part, dict):
        raise InputError(Key(f"feature.{name}", part), remedy=f"write a table {where}")
    known = tuple(item.name for item in fields(Feature) if item.name != "name")
    _refuse_unknown(part, known, where)
    if "kind" not in part:
        raise InputError(
            f"{where} has no kind", remedy='write kind = "continuous", integer, ordinal, categorical or binary'
        )
    values = dict(part)
    for option in _NUMBERS:
        value = values.get(option, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(Key(option, value), remedy="write a finite number", where=where)
        if option in values:
            values[option] = float(value)
    if values["kind"] in ("continuous", "integer") and not {"low", "high"} <= set(values):
        raise InputError(
            f"{where} has no low or no high", remedy="write both, the smallest and largest value that a record may have"
        )
    if "levels" in values:
        values["levels"] = _texts(values["levels"], "levels", where)
    if "budget" in values:
        values["budget"] = str(values["budget"])
    for option in ("kind", "change", "unit", "label", "rises", "falls"):
        if not isinstance(values.get(option, ""), str):
            raise InputError(Key(option, values[option]), remedy="write a text in quotes", where=where)
    return Feature(name, **values)


def _table(plain: Mapping[str, Any], name: str, known: tuple[str, ...]) -> dict[str, Any]:
    part = plain.get(name, {})
    if not isinstance(part, dict):
        raise InputError(Key(name, part), remedy=f"write a table [{name}]")
    _refuse_unknown(part, known, f"[{name}]")
    return part


def _refuse_unknown(part: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in part:
        if name not in known:
            raise InputError(
                f"{where} has {name!r}, which means nothing here", remedy=f"write one of {', '.join(known)}"
            )


def _texts(value: Any, name: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(Key(name, value), remedy="write a list of texts", where=where)
    return tuple(map(str, value))


def _whole(value: Any, name: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(Key(name, value), remedy="write a whole number", where=where)
    return value
