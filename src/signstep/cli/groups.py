"""Groups of options that commands share: written once, spread over a command's own, and handed to it as one value.

A command that has ``model: ModelOptions`` in its signature gets ``--model``, ``--weights`` and all others of the group.
A parameter of the command that has the name of one of these stands in its place.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from signstep.auditing.run import Run
from signstep.cli import options as o
from signstep.domains.case import Request
from signstep.domains.image.declared import declared_beside
from signstep.engine.ways import GradientPath
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.opening import open_model, parse_args, spelled
from signstep.model.search import Rule, Search
from signstep.model.twin import Engine
from signstep.model.victims.address import refuse_secrets
from signstep.scale import Pool, executor_of
from signstep.scale.asked import Asked

Result = TypeVar("Result")


@dataclass(frozen=True)
class LoadedOptions:
    """What is loaded as the model."""

    model: o.Model = None
    weights: o.Weights = None
    model_arg: o.ModelArg = None
    trust: o.Trust = False


@dataclass(frozen=True)
class NetworkOptions(LoadedOptions):
    """What makes a network, and how inputs and scores pass."""

    mean: o.Mean = None
    std: o.Std = None
    output: o.Output = None


@dataclass(frozen=True)
class ReadingOptions:
    """How models are read that a command names in its own way."""

    trust: o.Trust = False
    task: o.TaskText = "auto"
    tolerance: o.Tolerance = None
    mean: o.Mean = None
    std: o.Std = None
    inputs: o.Inputs = "raw"
    output: o.Output = None
    outputs: o.Outputs = "auto"
    mode: o.Mode = "eval"


@dataclass(frozen=True)
class ModelOptions(ReadingOptions, NetworkOptions):
    """What makes the `Model`."""

    defend: o.Defend = None


@dataclass(frozen=True)
class AddressOptions:
    """What a model behind an address takes and answers, and how often it may be asked."""

    endpoint: o.Endpoint = None
    max_requests: o.MaxRequests = None


@dataclass(frozen=True)
class EndpointOptions(AddressOptions):
    """What a model behind an address takes, answers and costs."""

    dry_run: o.DryRun = False


@dataclass(frozen=True)
class FilesOptions:
    """What makes examples of files."""

    data: o.Data = None
    label_column: o.LabelColumn = None
    classes: o.Classes = None
    skip_bad: o.SkipBad = False
    ignore_label: o.IgnoreLabel = None
    max_pixels: o.MaxPixels = None
    split: o.Split = None
    resize: o.Resize = None


@dataclass(frozen=True)
class DataOptions(FilesOptions):
    """What makes examples of files, and of how many."""

    limit: o.Limit = None


@dataclass(frozen=True)
class BatchOptions:
    """What makes the batches of an attack."""

    batch_size: o.BatchSize = "auto"
    predicted_labels: o.PredictedLabels = False


@dataclass(frozen=True)
class ThreatOptions:
    """What makes the threat."""

    threat: o.ThreatText = None
    box: o.BoxText = None
    grid: o.Grid = None


@dataclass(frozen=True)
class SearchOptions:
    """What makes the `Search`."""

    goal: o.Goal = "untargeted"
    loss: o.Loss = None
    surrogate: o.Surrogate = None
    engine: o.EngineName = "exact"
    eot: o.Eot = 1
    seed: o.Seed = 0


@dataclass(frozen=True)
class DetectorOptions:
    """What makes the `Policy`."""

    detect: o.Detect = None
    reject: o.Reject = None
    review: o.Review = 0.0
    clean: o.Clean = None


@dataclass(frozen=True)
class MachineOptions:
    """Where the work is done."""

    device: o.Device = "auto"
    threads: o.Threads = None

    def ready(self) -> torch.device:
        """The device; torch gets the threads that were asked for."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return o.device_of(self.device)


@dataclass(frozen=True)
class ScaleOptions:
    """Who does the work, in units that are kept as they are done."""

    workers: o.Workers = None
    on: o.On = None
    partition: o.Partition = None
    resume: o.Resume = False

    def run(self, run: Run, out: Path) -> Run:
        """How an audit is carried out, with the executor that was asked for, if any.

        Raises:
            InputError: there is none such, or an option makes no sense beside it.
        """
        if self.workers is None and self.on is None and not self.resume:
            if self.partition is not None:
                raise InputError(
                    Arg("partition", self.partition), "needs", Arg("on", "slurm"), remedy="pass both, or neither"
                )
            return run
        if run.shard is not None:
            raise InputError(
                Arg("shard", run.shard, shown="/".join(map(str, run.shard))),
                "and workers each cut the data",
                remedy="pass one of the two",
            )
        count = None if self.workers in (None, "auto") else o.whole(str(self.workers), "workers")
        asked = Asked(count, partition=self.partition)
        if self.on is None and (count == 1 or self.workers is None):
            return replace(run, executor=Pool(0), out=out, resume=self.resume)
        return replace(run, executor=executor_of(self.on or "pool", asked), out=out, resume=self.resume)


GROUPS = (
    LoadedOptions,
    NetworkOptions,
    ReadingOptions,
    ModelOptions,
    AddressOptions,
    EndpointOptions,
    FilesOptions,
    DataOptions,
    BatchOptions,
    ThreatOptions,
    SearchOptions,
    DetectorOptions,
    MachineOptions,
    ScaleOptions,
)


def spread(command: Callable[..., Result]) -> Callable[..., Result]:
    """The command with the options of each group of its signature in the group's place."""
    whole = inspect.signature(command)
    own = {name for name, part in whole.parameters.items() if not _is_group(part.annotation)}
    groups = {name: part.annotation for name, part in whole.parameters.items() if _is_group(part.annotation)}
    laid: list[inspect.Parameter] = []
    for name, part in whole.parameters.items():
        if name in groups:
            laid += [
                inspect.Parameter(one.name, part.kind, default=one.default, annotation=one.type)
                for one in fields(part.annotation)
                if one.name not in own
            ]
        else:
            laid.append(part)

    @wraps(command)
    def called(**given: Any) -> Result:
        values = {
            name: group(**{one.name: given[one.name] for one in fields(group) if one.name not in own})
            for name, group in groups.items()
        }
        return command(**values, **{name: given[name] for name in own})

    # typer reads both; ``wraps`` left those of the command.
    called.__signature__ = whole.replace(parameters=laid)  # type: ignore[attr-defined]
    called.__annotations__ = {part.name: part.annotation for part in laid}
    del called.__wrapped__
    return called


def _is_group(annotation: object) -> bool:
    return isinstance(annotation, type) and is_dataclass(annotation) and annotation in GROUPS


def search_of(
    given: SearchOptions, *, rule: Rule | None, reading: ReadingOptions, budget: str = "raw", path: str = "aware"
) -> Search:
    """The search that the options ask for; surrogates are opened, and read as the options say.

    Raises:
        InputError: an option makes no sense.
        LoadError: a surrogate cannot be opened.
    """
    surrogates = [other_model(text, reading, option="surrogate") for text in given.surrogate or ()]
    return Search(
        target=rule,
        loss=given.loss,
        surrogate=surrogates or None,
        engine=cast("Engine", given.engine),
        eot=given.eot,
        budget=cast("o.Side", budget),
        seed=given.seed,
        gradient_path=cast("GradientPath", path),
    )


def other_model(text: str, reading: ReadingOptions, *, option: str) -> Model:
    """Another model from MODEL or MODEL@WEIGHTS: as it declares itself, and where it says nothing as the options say.

    Raises:
        InputError: not written so.
        LoadError: it cannot be opened.
    """
    refuse_secrets(text)
    found = spelled(text)
    if not found.spec:
        raise InputError(
            Arg(option, text), "is not MODEL or MODEL@WEIGHTS", remedy="write nets:net@net.safetensors, say"
        )
    request = request_of(reading)
    model = open_model(
        found.spec, weights=found.weights, args=parse_args(found.args), trust=request.trust, mode=request.mode
    )
    return declared_beside(request, model)


def request_of(*groups: Any, search: Search | None = None, schema: Path | None = None) -> Request:
    """What options ask a domain for, from their groups.

    Raises:
        InputError: a text is none of the kind that the option takes.
    """
    given: dict[str, Any] = {}
    for group in groups:
        given |= {part.name: getattr(group, part.name) for part in fields(group)}
    return request_from(given, search=search, schema=schema)


def request_from(given: Mapping[str, Any], *, search: Search | None = None, schema: Path | None = None) -> Request:
    """The same from options by their names; those that are missing were not given.

    Raises:
        InputError: a text is none of the kind that the option takes.
    """
    refuse_secrets(str(given.get("model") or ""))
    plain: dict[str, Any] = {name: given[name] for name in _PLAIN if given.get(name) is not None}
    files: dict[str, Any] = {
        name: Path(given[name]) for name in ("weights", "classes", "endpoint") if given.get(name) is not None
    }
    return Request(
        **plain,
        **files,
        model_args=tuple(given.get("model_arg") or ()),
        defend=tuple(given.get("defend") or ()),
        mean=o.numbers(given.get("mean"), "mean"),
        std=o.numbers(given.get("std"), "std"),
        output=o.output_of(given.get("output")),
        resize=o.size_of(given.get("resize")),
        ignore=tuple(given.get("ignore_column") or ()),
        batch_size=o.rows_of(given.get("batch_size", "auto")),
        box=o.box_of(given.get("box"), "of the data"),
        schema=None if schema is None else Path(schema),
        search=search or Search(),
    )


# Options whose values a request holds as they are.
_PLAIN = (
    *("model", "trust", "inputs", "outputs", "mode", "task", "tolerance", "data", "split", "label_column", "skip_bad"),
    *("ignore_label", "max_pixels", "limit", "predicted_labels", "threat", "grid", "max_requests"),
)
