"""A schema to edit: the shipped example's, or the sensors of the given data with budgets from their spread."""

import json

from signstep.domains.case import Request
from signstep.domains.control.case import case
from signstep.domains.control.schema import Schema
from signstep.domains.control.sensors import Sensor, Sensors
from signstep.domains.control.series_case import declared
from signstep.errors import InputError
from signstep.messages import Arg


def infer(request: Request) -> str:
    """TOML that means what an audit without a schema would do.

    Raises:
        InputError: data or model do not fit.
        LoadError: a file cannot be read.
    """
    if request.schema is not None:
        raise InputError(Arg("schema", request.schema), ": it is there already", remedy="drop it to have one made")
    if request.data is not None:
        sensors = declared(request, Schema())
        head = [f"interval = {sensors.interval:.9g}  # seconds between two samples"]
        if request.ignore:
            head.append(f"ignore = {json.dumps(request.ignore, ensure_ascii=False)}")
        return _text_of(head, sensors)
    made = case(request)
    sensors = Sensors.of(made.terms)
    seconds = made.terms["samples"] * sensors.interval
    return _text_of([f"plant = {_text(made.terms['plant'])}", f"seconds = {seconds:g}"], sensors)


def _text_of(head: list[str], sensors: Sensors) -> str:
    first = "# Sensors, and what an attacker may write into them: budgets in the unit, rates in the unit per second."
    return "\n".join([first, *head, *("\n".join(_sensor(sensor)) for sensor in sensors.parts)]) + "\n"


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
