"""Recorded series as a case: a classifier of sensor readings, or the alarm of a plant."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from signstep.data.csv_text import SUFFIXES
from signstep.domains.bare import bare_module
from signstep.domains.case import Case, Request
from signstep.domains.control.arrays import read_npz
from signstep.domains.control.causal import RECIPES
from signstep.domains.control.records import read_csv
from signstep.domains.control.schema import Schema
from signstep.domains.control.sensors import Sensor, Sensors
from signstep.domains.control.series import Series, halves, read_ts
from signstep.domains.control.series_net import trained_alarm, trained_net, trained_regression
from signstep.domains.control.series_summary import summary
from signstep.domains.control.tennessee import read_tennessee
from signstep.domains.control.threat import sensor_threat
from signstep.domains.control.threat_size import size_of
from signstep.domains.own_attacks import named_in
from signstep.engine.tasks import Regression, Task, TaskName
from signstep.errors import InputError, LoadError
from signstep.io.files import expanded
from signstep.messages import Arg, Key
from signstep.model.declaration import Model

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
    """An audit of a model of series: which can be made to look like another class by errors of the sensors?

    With the task "regression" labels are real numbers: which answers can be pushed beyond the tolerance? Without a
    model a small one is trained on the training half of the data.

    Raises:
        InputError: schema, data and model do not fit each other.
        LoadError: a file cannot be read.
    """
    task = _task(request)
    data, sensors = _declared(request, schema)
    model, description, notes, hashes = _model(request, data)
    test = _first(data.test, request.limit)
    threat = sensor_threat(sensors, size_of(request.threat))
    _, samples, channels = test.x.shape
    firsts = range(0, len(test.x), request.rows)
    pieces = [(test.x[first : first + request.rows], test.y[first : first + request.rows]) for first in firsts]
    return Case(
        domain="control",
        model=Model(model, task=task, name=description, classes=test.classes),
        batches=pieces,
        threat=threat,
        data=f"{Path(str(request.data)).name} ({len(test.x)} series of {samples} samples, {channels} sensors)",
        summary=partial(summary, series=test, sensors=sensors, alarm=data.alarm),
        attacks=("random-sign", "fgsm", "pgd:steps=20"),
        named=named_in(RECIPES),
        curve=(0.125, 0.25, 0.5, 1.0, 2.0),
        opening=(f"sensors: {sensors}",),
        notes=(*notes, *test.skipped),
        hashes={**hashes, "data": _digest(test)},
        search=request.search,
        total=len(test.x),
        terms={**sensors.plain(), "eps": threat.eps, "samples": test.x.shape[1]},
    )


def declared(request: Request, schema: Schema) -> Sensors:
    """The sensors of the data, with what the schema leaves open; no model is trained or loaded.

    Raises:
        InputError: schema and data do not fit each other.
        LoadError: a file cannot be read.
    """
    return _declared(request, schema)[1]


def _declared(request: Request, schema: Schema) -> tuple[_Data, Sensors]:
    assert request.data is not None
    if schema.plant is not None:
        raise InputError(
            Key("plant", schema.plant),
            "in the schema is a closed loop, and",
            Arg("data"),
            "gives recorded series",
            remedy="drop one of them",
        )
    for name in ("seconds", "starts"):
        if getattr(schema, name) is not None:
            raise InputError(
                Key(name, getattr(schema, name), shown=f"{getattr(schema, name):g}"),
                "belongs to a closed loop, and",
                Arg("data"),
                "gives series",
                remedy="drop it",
            )
    data = _data(expanded(request.data), request, schema)
    return data, Sensors(_sensors(schema, data), schema.interval or data.interval)


def _task(request: Request) -> Task | TaskName:
    if request.task == "regression":
        if request.tolerance is None:
            raise InputError(
                Arg("task", "regression"),
                "needs",
                Arg("tolerance"),
                remedy="pass the largest error that still counts as right",
            )
        return Regression(request.tolerance)
    if request.tolerance is not None:
        raise InputError(
            Arg("tolerance", request.tolerance),
            "is for",
            Arg("task", "regression"),
            f", the task is {request.task!r}",
            remedy="drop it",
        )
    if request.task not in ("auto", "multiclass"):
        raise InputError(Arg("task", request.task), "is none of series", remedy="pass multiclass or regression")
    return "multiclass"


def _data(path: Path, request: Request, schema: Schema) -> _Data:
    """The series to audit, and those to train on where no model is given."""
    samples, stride = schema.window or WINDOW, schema.stride or schema.window or WINDOW
    real, ignore = request.task == "regression", tuple(dict.fromkeys((*schema.ignore, *request.ignore)))
    kind = "folder" if path.is_dir() else path.name.lower()
    if request.label_column is not None and not kind.endswith((*SUFFIXES, ".npz")):
        raise InputError(
            Arg("label_column", request.label_column),
            f"names a column of a .csv or an array of a .npz, and {path.name} is none",
            remedy="drop it",
        )
    if real and not kind.endswith((*SUFFIXES, ".npz")):
        raise InputError(
            Arg("task", "regression"),
            f"takes labels from a .csv or .npz, and {path.name} has classes",
            remedy="drop it, or pass other data",
        )
    if (schema.window or schema.stride) and kind.endswith((".ts", ".npz")):
        raise InputError(
            f"window and stride cut long records; a {path.suffix} file has finished series", remedy="drop them"
        )
    if path.is_dir():
        if schema.interval not in (None, TENNESSEE_INTERVAL):
            raise InputError(
                Key("interval", schema.interval, shown=f"{schema.interval:g}"),
                ": Tennessee Eastman is sampled every 180 s",
                remedy="drop it",
            )
        read = partial(read_tennessee, path, samples=samples, skip_bad=request.skip_bad)
        train = read(test=False, stride=max(1, stride // 5)).without(ignore) if request.model is None else None
        return _Data(read(test=True, stride=stride).without(ignore), train, True, TENNESSEE_INTERVAL)
    if kind.endswith(".ts"):
        test, train = _pair(path, request, partial(read_ts, skip_bad=request.skip_bad))
        if request.model is None and train is None:
            raise InputError(
                f"there is no {_other(path).name} to train a model on",
                remedy=("pass", Arg("model"), f", or put it beside {path.name}"),
            )
        return _parted(test, train, request, ignore)
    if kind.endswith(".npz"):
        test, train = read_npz(path, label=request.label_column, skip_bad=request.skip_bad, real=real)
        return _parted(test, train, request, ignore)
    if kind.endswith(SUFFIXES):
        table = partial(
            read_csv,
            label=request.label_column or "label",
            samples=samples,
            stride=stride,
            skip_bad=request.skip_bad,
            ignore=ignore,
            real=real,
        )
        test, train = _pair(path, request, table)
        return _parted(test, train, request)
    raise LoadError(
        f"{path} is not a .ts, .csv or .npz file, nor a folder of Tennessee Eastman records", remedy="pass one of these"
    )


def _other(path: Path) -> Path:
    """The training half of a file, by its name."""
    return path.with_name(path.name.replace("_TEST", "_TRAIN"))


def _pair(path: Path, request: Request, read: Callable[[Path], Series]) -> tuple[Series, Series | None]:
    """The series to audit and, where a model has to be trained and the other half lies beside them, that."""
    test, other = read(path), _other(path)
    if request.model is not None or other == path or not other.exists():
        return test, None
    train = read(other)
    if (train.classes, train.names, train.x.shape[1:]) != (test.classes, test.names, test.x.shape[1:]):
        raise InputError(
            f"{other.name} and {path.name} differ in classes, channels or length", remedy="pass two halves of one set"
        )
    return test, train


def _parted(test: Series, train: Series | None, request: Request, ignore: Sequence[str] = ()) -> _Data:
    """Without a model and a training half, the half of each class that comes first in the file trains one."""
    test, interval = test.without(ignore), test.interval or 1.0
    if request.model is not None:
        return _Data(test, None, False, interval)
    if train is not None:
        return _Data(test, train.without(ignore), False, interval)
    train, rest = halves(test)
    where = "the data" if test.real else "each class"
    note = f"a model was trained on the first half of {where} ({len(train.x)} series), the audit is of the rest"
    return _Data(replace(rest, skipped=(*rest.skipped, note)), replace(train, skipped=()), False, interval)


def _model(request: Request, data: _Data) -> tuple[nn.Module, str, tuple[str, ...], Mapping[str, str]]:
    if request.model is not None:
        network, model = bare_module(request)
        return network, model.title, tuple(model.notes), model.hashes
    if request.weights is not None or request.model_args:
        raise InputError("weights and model arguments need a model", remedy=("pass", Arg("model", "module:factory")))
    assert data.train is not None
    said = f"trained on {len(data.train.x)} series of the training half"
    if data.alarm:
        return trained_alarm(data.train), f"an alarm, {said}", data.train.skipped, {}
    if data.train.real:
        return trained_regression(data.train), f"a small convolutional network, {said}", data.train.skipped, {}
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
            f"the schema has the sensor {unknown[0]!r}, which is no column of the data",
            remedy=f"write one of {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}",
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
                f"sensor {name!r} has no budget",
                remedy=f"write one in {sensor.unit or 'its unit'}, compromised = false, or a budget_std for all",
            )
    return tuple(found)


def _first(series: Series, limit: int | None) -> Series:
    """As many as asked for, spread evenly over the file, whose classes may come one after the other."""
    if limit is None or limit >= len(series.x):
        return series
    index = torch.linspace(0, len(series.x) - 1, limit, dtype=torch.float32, device="cpu").round().long()
    return series.rows(index)


def _digest(series: Series) -> str:
    def raw(part: Tensor) -> bytes:
        return part.contiguous().numpy().tobytes()

    return hashlib.sha256(raw(series.x) + raw(series.y)).hexdigest()
