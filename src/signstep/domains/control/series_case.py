"""Recorded series as a case: a classifier of sensor readings, or the alarm of a plant."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from signstep.core.files import expanded
from signstep.domains.case import Case, Request
from signstep.domains.control.records import read_csv, read_tennessee
from signstep.domains.control.schema import Schema
from signstep.domains.control.sensors import Sensor, Sensors
from signstep.domains.control.series import Series, read_ts
from signstep.domains.control.series_net import trained_alarm, trained_net
from signstep.domains.control.series_story import story
from signstep.domains.control.stated import size_of
from signstep.domains.control.threat import sensor_threat
from signstep.errors import InputError, LoadError
from signstep.models import load_model, parse_args

# Where a schema says nothing.
BUDGET_STD = 0.5
WINDOW = 10
# Tennessee Eastman is sampled every 3 minutes.
TENNESSEE_INTERVAL = 180.0


@dataclass(frozen=True, eq=False)
class _Data:
    """What is audited, what a classifier is trained on (None: nothing), and which of the two is an alarm's."""

    test: Series
    train: Series | None
    alarm: bool
    interval: float


def series_case(request: Request, schema: Schema) -> Case:
    """An audit of a classifier of series: which can be made to look like another class by errors of the sensors?

    Without a model a small one is trained on the training half of the data.

    Raises:
        InputError: schema, data and model do not fit each other.
        LoadError: a file cannot be read.
    """
    assert request.data is not None
    if schema.plant is not None:
        raise InputError(f"the schema has plant = {schema.plant!r}, and --data gives recorded series; drop one of them")
    for name in ("seconds", "starts"):
        if getattr(schema, name) is not None:
            raise InputError(
                f"{name} = {getattr(schema, name):g} belongs to a closed loop, and --data gives series; drop it"
            )
    data = _data(expanded(request.data), request, schema)
    model, description, notes, hashes = _model(request, data)
    test = _first(data.test, request.limit)
    sensors = Sensors(_sensors(schema, data), schema.interval or data.interval)
    threat = sensor_threat(sensors, size_of(request.threat))
    _, samples, channels = test.x.shape
    firsts = range(0, len(test.x), request.batch_size)
    pieces = [
        (test.x[first : first + request.batch_size], test.y[first : first + request.batch_size]) for first in firsts
    ]
    return Case(
        domain="control",
        model=model,
        batches=pieces,
        threat=threat,
        task="multiclass",
        description=description,
        data=f"{Path(request.data).name} ({len(test.x)} series of {samples} samples, {channels} sensors)",
        story=partial(story, series=test, sensors=sensors, alarm=data.alarm),
        attacks=("random-sign", "fgsm", "pgd:steps=20"),
        curve=(0.125, 0.25, 0.5, 1.0, 2.0),
        opening=(f"sensors: {sensors}",),
        notes=(*notes, *test.skipped),
        classes=test.classes,
        hashes={**hashes, "data": _digest(test)},
        total=len(test.x),
        terms={**sensors.plain(), "eps": threat.eps, "samples": test.x.shape[1]},
    )


def _data(path: Path, request: Request, schema: Schema) -> _Data:
    """The series to audit, and those to train on where no model is given."""
    samples, stride = schema.window or WINDOW, schema.stride or schema.window or WINDOW
    train = None
    if path.is_dir():
        if schema.interval not in (None, TENNESSEE_INTERVAL):
            raise InputError(f"interval = {schema.interval:g}; Tennessee Eastman is sampled every 180 s: drop it")
        read = partial(read_tennessee, path, samples=samples, skip_bad=request.skip_bad)
        if request.model is None:
            train = read(test=False, stride=max(1, stride // 5))
        return _Data(read(test=True, stride=stride), train, True, TENNESSEE_INTERVAL)
    if path.suffix == ".ts":
        if schema.window or schema.stride:
            raise InputError("window and stride cut long records; a .ts file has finished series: drop them")
        test = read_ts(path, skip_bad=request.skip_bad)
        if request.model is None:
            other = path.with_name(path.name.replace("_TEST", "_TRAIN"))
            if other == path or not other.exists():
                raise InputError(
                    f"there is no {other.name} to train a model on; pass --model, or put it beside {path.name}"
                )
            train = read_ts(other, skip_bad=request.skip_bad)
            if (train.classes, train.names, train.x.shape[1:]) != (test.classes, test.names, test.x.shape[1:]):
                raise InputError(
                    f"{other.name} and {path.name} differ in classes, channels or length; pass two halves of one set"
                )
        return _Data(test, train, False, 1.0)
    if path.name.endswith((".csv", ".csv.gz")):
        label = request.label_column or "label"
        table = read_csv(path, label=label, samples=samples, stride=stride, skip_bad=request.skip_bad)
        if request.model is None:
            raise InputError(f"{path.name} comes without a model; pass --model module:factory")
        return _Data(table, None, False, 1.0)
    raise LoadError(f"{path} is not a .ts or .csv file, nor a folder of Tennessee Eastman records; pass one of these")


def _model(request: Request, data: _Data) -> tuple[nn.Module, str, tuple[str, ...], Mapping[str, str]]:
    if request.model is not None:
        loaded = load_model(
            request.model, weights=request.weights, args=parse_args(request.model_args), trust=request.trust
        )
        hashes = {name: part for name, part in (("weights", loaded.sha256), ("code", loaded.code)) if part}
        return loaded.model, loaded.description, loaded.notes, hashes
    if request.weights is not None or request.model_args:
        raise InputError("weights and model arguments need a model; pass --model module:factory")
    assert data.train is not None
    said = f"trained on {len(data.train.x)} series of the training half"
    if data.alarm:
        return trained_alarm(data.train), f"an alarm, {said}", data.train.skipped, {}
    return trained_net(data.train), f"a small convolutional network, {said}", data.train.skipped, {}


def _sensors(schema: Schema, data: _Data) -> tuple[Sensor, ...]:
    """One for each channel; what the schema leaves open is filled from the untouched data."""
    names = data.test.names
    given = {sensor.name: sensor for sensor in schema.sensors}
    unnamed = all(name.startswith("channel ") for name in names)
    if unnamed and given and len(given) == len(names) and not set(given) & set(names):
        names = tuple(given)  # the file has no names of its own
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputError(
            f"the schema has the sensor {unknown[0]!r}, which is no column of the data; these are "
            f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        )
    source = data.test if data.train is None else data.train
    calm = source.x[source.y == 0] if data.alarm else source.x
    spread = calm.reshape(-1, len(names)).double().std(0).tolist()
    share = schema.budget_std or (BUDGET_STD if not given else None)
    found = []
    for name, std in zip(names, spread, strict=True):
        sensor = given.get(name, Sensor(name))
        if name in schema.trusted or sensor.compromised or (name not in given and share is None):
            found.append(sensor)
        elif share is not None:
            found.append(replace(sensor, budget=float(f"{share * std:.6g}")))
        else:
            raise InputError(
                f"sensor {name!r} has no budget; write one in {sensor.unit or 'its unit'}, compromised = false, or a "
                "budget_std for all"
            )
    return tuple(found)


def _first(series: Series, limit: int | None) -> Series:
    """As many as asked for, spread evenly over the file, whose classes may come one after the other."""
    if limit is None or limit >= len(series.x):
        return series
    index = torch.linspace(0, len(series.x) - 1, limit).round().long()
    return replace(series, x=series.x[index], y=series.y[index])


def _digest(series: Series) -> str:
    def raw(part: Tensor) -> bytes:
        return part.contiguous().numpy().tobytes()

    return hashlib.sha256(raw(series.x) + raw(series.y)).hexdigest()
