"""The schema of a control audit: which plant or what series, which sensors, and what may be written into them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signstep.domains.control.sensors import Sensor
from signstep.domains.schemas import read_toml
from signstep.errors import InputError
from signstep.messages import Key

_TOP = ("plant", "seconds", "starts", "interval", "budget_std", "window", "stride", "ignore", "sensor")
_SENSOR = ("name", "unit", "budget", "rate", "shape", "windows", "compromised")
_LOOP, _SERIES = ("seconds", "starts"), ("interval", "budget_std", "window", "stride", "ignore")


@dataclass(frozen=True)
class Schema:
    """What a TOML file says; None where it says nothing.

    Attributes:
        sensors: the sensors it describes, in its order.
        trusted: those of them that it calls not compromised, or gives a budget of 0.
        plant: a built-in plant; None for recorded series, or for a closed loop that the model brings.
        seconds: of a plant: how long a run lasts.
        starts: of a plant: how many starts are audited.
        interval: of series: seconds between two samples.
        budget_std: of series: the budget of sensors that have none, in standard deviations of the untouched sensor.
        window: of a long record: samples of one window.
        stride: of a long record: samples from one window to the next.
        ignore: of series: columns, or channels, that are no sensors and are left out.
    """

    sensors: tuple[Sensor, ...] = ()
    trusted: frozenset[str] = frozenset()
    plant: str | None = None
    seconds: float | None = None
    starts: int | None = None
    interval: float | None = None
    budget_std: float | None = None
    window: int | None = None
    stride: int | None = None
    ignore: tuple[str, ...] = ()


def read_schema(path: Path) -> Schema:
    """Read a schema.

    Raises:
        LoadError: the file cannot be read, or is no TOML.
        InputError: it names something unknown or contradicts itself.
    """
    return read_toml(path, schema_of)


def schema_of(plain: Mapping[str, Any]) -> Schema:
    """The schema that the values of a TOML file state.

    Raises:
        InputError: it names something unknown or contradicts itself.
    """
    _known(plain, _TOP, "the schema")
    plant = plain.get("plant")
    if plant is not None and not isinstance(plant, str):
        raise InputError(Key("plant", plant), remedy="write the name of a plant, such as 'cart-pole'")
    loop = [name for name in ("plant", *_LOOP) if name in plain]
    series = [name for name in _SERIES if name in plain]
    if loop and series:
        raise InputError(
            Key(loop[0], plain[loop[0]]),
            "belongs to a closed loop and",
            Key(series[0], plain[series[0]]),
            "to recorded series",
            remedy="drop one of the two",
        )
    entries = plain.get("sensor", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError("sensor is not a list of tables", remedy="write [[sensor]], with two brackets, above each")
    sensors, trusted = list[Sensor](), set()
    for number, entry in enumerate(entries, 1):
        sensor = _sensor(entry, number)
        if sensor.name in {other.name for other in sensors}:
            raise InputError(f"two sensors are called {sensor.name!r}", remedy="give each a name of its own")
        sensors.append(sensor)
        if entry.get("compromised", True) is False or entry.get("budget") == 0:
            trusted.add(sensors[-1].name)
    return Schema(
        tuple(sensors),
        frozenset(trusted),
        plant,
        _number(plain, "seconds", "the schema"),
        _count(plain, "starts"),
        _number(plain, "interval", "the schema"),
        _number(plain, "budget_std", "the schema"),
        _count(plain, "window"),
        _count(plain, "stride"),
        _names(plain, "ignore"),
    )


def _sensor(entry: Mapping[str, Any], number: int) -> Sensor:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise InputError(f"sensor {number} has no name", remedy='write name = "..." in it')
    where = f"sensor {name!r}"
    _known(entry, _SENSOR, where)
    compromised = entry.get("compromised", True)
    if not isinstance(compromised, bool):
        raise InputError(Key("compromised", compromised), remedy="write true or false", where=where)
    written = [part for part in ("budget", "rate", "windows") if part in entry and entry[part] != 0]
    if not compromised and written:
        raise InputError(
            f"{where} is not compromised and yet has {written[0]} = {entry[written[0]]!r}", remedy="drop one of the two"
        )
    if "rate" in entry and entry.get("budget") == 0:
        raise InputError(f"{where} has a rate and a budget of 0, so nothing may change", remedy="drop one of the two")
    for part in ("unit", "shape"):
        if part in entry and not isinstance(entry[part], str):
            raise InputError(Key(part, entry[part]), remedy="write a text", where=where)
    return Sensor(
        name,
        entry.get("unit", ""),
        _number(entry, "budget", where, least=0.0) or 0.0,
        _number(entry, "rate", where),
        entry.get("shape", "free"),
        _windows(entry.get("windows", []), where),
    )


def _names(plain: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = plain.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError(Key(name, value), remedy='write a list of names, such as ["machine"]', where="the schema")
    return tuple(value)


def _windows(given: object, where: str) -> tuple[tuple[float, float], ...]:
    fits = isinstance(given, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) for pair in given
    )
    if not fits:
        raise InputError(Key("windows", given), remedy="write pairs of seconds, such as [[0.5, 2.0]]", where=where)
    assert isinstance(given, list)
    return tuple((float(first), float(last)) for first, last in given)


def _known(plain: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(plain) - set(names))
    if unknown:
        raise InputError(f"{where} has {unknown[0]!r}, which is not known", remedy=f"write one of {', '.join(names)}")


def _number(plain: Mapping[str, Any], name: str, where: str, *, least: float | None = None) -> float | None:
    value = plain.get(name)
    if value is None:
        return None
    good = _is_number(value) and math.isfinite(value) and (value > 0 if least is None else value >= least)
    if not good:
        raise InputError(
            Key(name, value), remedy=f"write a number {'above 0' if least is None else 'of 0 or more'}", where=where
        )
    return float(value)


def _count(plain: Mapping[str, Any], name: str) -> int | None:
    value = plain.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise InputError(Key(name, value), remedy="write a whole number from 1", where="the schema")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
