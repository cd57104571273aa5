"""A schema to edit: the shipped example's, or the sensors of the given data with budgets from their spread."""

import json
from dataclasses import replace

from signstep.domains.case import Case, Request
from signstep.domains.control.case import case
from signstep.domains.control.sensors import Sensor, Sensors
from signstep.errors import InputError


def infer(request: Request) -> str:
    """TOML that means what an audit without a schema would do.

    Raises:
        InputError: data or model do not fit.
        LoadError: a file cannot be read.
    """
    if request.schema is not None:
        raise InputError(f"schema={request.schema}: it is there already; drop it to have one made")
    made = case(replace(request, limit=1) if request.data is None else request)
    return schema_text(made)


def schema_text(made: Case) -> str:
    """The sensors of a case as TOML."""
    sensors = Sensors.of(made.terms)
    head = ["# Sensors, and what an attacker may write into them: budgets in the unit, rates in the unit per second."]
    if "plant" in made.terms:
        seconds = made.terms["samples"] * sensors.interval
        head += [f"plant = {_text(made.terms['plant'])}", f"seconds = {seconds:g}"]
    else:
        head += [f"interval = {sensors.interval:g}  # seconds between two samples"]
    return "\n".join([*head, *("\n".join(_sensor(sensor)) for sensor in sensors.parts)]) + "\n"


def _sensor(sensor: Sensor) -> list[str]:
    lines = ["", "[[sensor]]", f"name = {_text(sensor.name)}"]
    if sensor.unit:
        lines.append(f"unit = {_text(sensor.unit)}")
    if not sensor.compromised:
        return [*lines, "compromised = false"]
    lines.append(f"budget = {sensor.budget:g}")
    lines.append(f"rate = {sensor.rate:g}" if sensor.rate is not None else "# rate = ...")
    if sensor.shape != "free":
        lines.append(f"shape = {_text(sensor.shape)}")
    if sensor.windows:
        lines.append(f"windows = {[list(window) for window in sensor.windows]}")
    return lines


def _text(value: str) -> str:
    """A TOML string; JSON's are the same."""
    return json.dumps(value, ensure_ascii=False)
