"""From a request to an audit of one tensor of inputs: model, data, threat, and what the record says of each."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from signstep.auditing.memory import planned_rows
from signstep.data import DataSource, open_data
from signstep.defences.defend import defend
from signstep.demo import demo
from signstep.domains.case import IMAGE, ROWS, Case, Request, no_summary
from signstep.domains.image.declared import agreed, declared
from signstep.domains.image.eight_bits import ends_of, gridded, snapped
from signstep.domains.image.first_look import BY_QUERIES, WITH_GRADIENTS, FirstLook, first_look
from signstep.engine.arrays import Home
from signstep.engine.origin import foreign
from signstep.engine.threat import Threat, parse_threat
from signstep.engine.untouched import untouched
from signstep.errors import InputError
from signstep.messages import Arg, Blank
from signstep.model.declaration import Model
from signstep.model.opening import is_address, open_model, parse_args
from signstep.model.opening.hashing import state_hash
from signstep.model.opening.sources import code_hash, source_files
from signstep.model.victims.endpoint import HttpVictim
from signstep.networks.small import digits_cnn

# Options that say how data and model are to be opened, and so say nothing of the demonstration.
_OF_FILES = (
    "model_args",
    "split",
    "resize",
    "trust",
    "label_column",
    "classes",
    "skip_bad",
    "ignore_label",
    "max_pixels",
    "endpoint",
    "max_requests",
)


def case(request: Request) -> Case:
    """The audit that a request asks for; of the demonstration where it names neither model nor data.

    Raises:
        InputError: one of the two is missing, or an option makes no sense or has no effect.
        LoadError: a file cannot be used.
    """
    if request.model is None and request.data is None and request.weights is None:
        return _demonstration(request)
    if request.model is None:
        raise InputError(
            Arg("data"), "and", Arg("weights"), "need a model", remedy=("pass", Arg("model", "package.module:factory"))
        )
    if request.data is None:
        raise InputError(
            Arg("model", request.model),
            "needs data",
            remedy=("pass", Arg("data"), "(.npz, .csv, .parquet, MNIST IDX, images by class, ...)"),
        )
    source = opened_data(request)
    asked, model = agreed(request, opened_model(request, source.shape), source)
    source = source if asked is request else opened_data(asked)
    return _case(asked, model, source, opening=source.notes)


def opened_data(request: Request) -> DataSource:
    """The data that a request names.

    Raises:
        InputError: an option does not fit the data.
        LoadError: a file cannot be used.
    """
    assert request.data is not None
    return open_data(
        request.data,
        batch_size=request.rows,
        limit=request.limit,
        split=request.split,
        resize=request.resize,
        label_column=request.label_column,
        classes=request.classes,
        skip_bad=request.skip_bad,
        real=request.task == "regression",
        ignore_label=request.ignore_label,
        max_pixels=request.max_pixels,
    )


def opened_model(request: Request, shape: tuple[int, ...] | None = None) -> Model:
    """The model that a request names, declared as it says where the model brings no declaration with itself.

    Args:
        request: what was asked for.
        shape: of one input of the data, where that is known.

    Raises:
        InputError: a declaration makes no sense, or is there already.
        LoadError: a file cannot be used.
    """
    return declared(request, opened_bare(request, shape))


def opened_bare(request: Request, shape: tuple[int, ...] | None = None) -> Model:
    """The same as it comes."""
    assert request.model is not None
    args = parse_args(request.model_args)
    if request.max_requests is not None:
        if not is_address(request.model):
            raise InputError(
                Arg("max_requests", request.max_requests),
                f"bounds what an address is asked, and {request.model} is none",
                remedy="leave it out",
            )
        if "max_requests" in args:
            raise InputError(
                Arg("max_requests", request.max_requests),
                "is given twice",
                remedy=("keep one of it and", Arg("model_args")),
            )
        args["max_requests"] = request.max_requests
    return open_model(
        request.model,
        weights=request.weights,
        args=args,
        trust=request.trust,
        mode=request.mode,
        shape=shape,
        endpoint=request.endpoint,
    )


def _demonstration(request: Request) -> Case:
    plain = Request()
    for name in _OF_FILES:
        if getattr(request, name) != getattr(plain, name):
            raise InputError(
                Arg(name),
                "has no effect without",
                Arg("model"),
                "and",
                Arg("data"),
                remedy="pass these, or drop it",
            )
    show = demo(batch_size=request.rows)
    source = show.data
    if request.limit is not None:
        source = open_data("digits", batch_size=request.rows, limit=request.limit, split="test")
    code = code_hash(source_files(digits_cnn.__module__, show.model))
    digests = {"weights": state_hash(show.model), "code": code}
    hashes = {name: digest for name, digest in digests.items() if digest is not None}
    shown = Model(show.model, mode=request.mode, classes=source.classes or (), name=show.description, hashes=hashes)
    model = declared(request, shown)
    opening = (
        f"Demonstration: {show.description}.",
        "For yours: signstep audit --model package.module:factory --weights FILE --data PATH --threat linf:8/255",
        *show.notes,
    )
    found = _case(replace(request, threat=request.threat or show.threat), model, source, opening=opening)
    return replace(found, curve=show.eps_curve, introduced=False)


def _case(request: Request, model: Model, source: DataSource, *, opening: tuple[str, ...]) -> Case:
    model = defended(request, model, source.bounds)
    ends = ends_of([model])
    request = gridded(request, ends, source.bounds)
    seen = first_look(model, source)
    if not request.predicted_labels:
        _check_classes(model, source, seen)
    batches = Planned(source, model, planned=request.batch_size is None, labels=not request.predicted_labels, ends=ends)
    asked = not seen.gradients and not request.search.surrogates
    return Case(
        domain=IMAGE,
        model=model,
        batches=batches,
        threat=threat_of(request, source.bounds),
        data=source.description,
        summary=no_summary,
        attacks=BY_QUERIES[seen.labels] if asked else WITH_GRADIENTS,
        curve=not isinstance(model.network, HttpVictim),  # a run for each size is paid for where it is asked for
        search=request.search,
        opening=(*model.notes, *opening),
        notes=tuple(f"data: {note}" for note in source.notes),
        hashes={"data": source.fingerprint(), "preprocessing": _treated(source, model)},
        total=source.len_hint,
    )


def defended(request: Request, model: Model, bounds: tuple[float, float] | None) -> Model:
    """A model behind the transformations that a request names; the data may know the range of inputs.

    Raises:
        InputError: there is no such transformation, or no range.
    """
    if not request.defend:
        return model
    box = (bounds or (0.0, 1.0)) if request.box == "of the data" else request.box
    if box is None:
        raise InputError(
            Arg("defend"), "needs the range of valid inputs, and there is no box", remedy=("pass", Arg("box", "0,1"))
        )
    low, high = box
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        raise InputError(Arg("defend"), "needs a box with two ends", remedy=("pass", Arg("box", "0,1")))
    return defend(model, request.defend, box=(float(low), float(high)))


def threat_of(request: Request, bounds: tuple[float, float] | None) -> Threat:
    """The threat in raw units; the data may know the ends of its box.

    Raises:
        InputError: none was said, or it makes no sense.
    """
    if request.threat is None:
        raise InputError(
            Arg("threat"),
            "is missing: what may an attacker change?",
            remedy=("pass norm:eps, such as", Arg("threat", "linf:8/255")),
        )
    box = (bounds or (0.0, 1.0)) if request.box == "of the data" else request.box
    return parse_threat(request.threat, box=box, grid=request.grid)


@dataclass(frozen=True)
class Planned:
    """Batches of a source, of a size that fits where the model then is.

    Attributes:
        source: the data.
        model: what takes it.
        planned: whether the size is measured; else it is the source's own.
        labels: whether to hand out the labels; None stands in their place otherwise.
        ends: of images of 8 bits, which inputs are rounded to, for an endpoint that takes such.
    """

    source: DataSource
    model: Model
    planned: bool = True
    labels: bool = True
    ends: tuple[float, float] | None = None

    @property
    def left_out(self) -> dict[str, int]:
        """What of the data is not among them, by reason."""
        return dict(self.source.left_out)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for x, y in self.sized() if self.planned else self.source:
            yield snapped(x, self.ends), y if self.labels else None

    def sized(self) -> DataSource:
        """The source in batches of a size that fits: measured on the model where it now is."""
        where = Home(self.model.network).device
        first = next(iter(self.source), None)
        network = self.model.network
        if first is None or not isinstance(network, nn.Module):
            return self.source
        try:
            with untouched(network), foreign("the model"):
                planned = planned_rows(network, first[0][:2].to(where), of=len(self.source.labels))
        except Exception:  # the audit itself will say what is wrong with the model or the data
            return self.source
        return replace(self.source, batch_size=min(planned, ROWS if where.type == "cpu" else planned))


def _check_classes(model: Model, source: DataSource, seen: FirstLook) -> None:
    """See that there are as many class names as the model has outputs; else labels are numbered wrong, silently.

    A class folder that is missing shifts the numbers of all that follow; ImageNet's 1000 names do not fit the models
    whose first output is "background".

    Raises:
        InputError: there are more or fewer.
    """
    names = model.classes or source.classes
    if not names or model.task not in ("auto", "multiclass") or seen.outputs is None:
        return
    if seen.outputs != len(names):
        whose = source.name if source.classes is not None else model.title
        raise InputError(
            f"{whose} has {len(names)} class names and the model {seen.outputs} outputs, so labels would be numbered "
            "wrong",
            remedy=("pass", Arg("classes", Blank("FILE")), f"with {seen.outputs} names in the order of the outputs"),
        )


def _treated(source: DataSource, model: Model) -> str:
    """SHA-256 of the canonical text of what Signstep itself does to the data.

    The text is JSON: the arithmetic of the data source in its own words, and the normalisation that is declared.
    """
    space = {name: value for name, value in model.space().describe().items() if name in ("inputs", "mean", "std")}
    ends = ends_of([model])
    stated = {"data": list(source.treatment), **space, **({} if ends is None else {"levels": list(ends)})}
    text = json.dumps(stated, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
