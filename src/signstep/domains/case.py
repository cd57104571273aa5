"""What every domain makes of its data: an audit, ready to run, and its outcome in the words of its users."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from torch import Tensor

from signstep.auditing.result import Result
from signstep.auditing.sections import Section
from signstep.domains.own_attacks import Named, none_named
from signstep.engine.threat import Box, Threat
from signstep.engine.tree import Tree
from signstep.engine.untouched import Mode
from signstep.model.declaration import Model
from signstep.model.predictor import Kind
from signstep.model.search import Search
from signstep.model.space import Statistic

ROWS = 256
IMAGE = "image"  # the one domain whose records do not name it

Summary: TypeAlias = Callable[[Result, Mapping[str, Tensor]], tuple[Section, ...]]


@dataclass(frozen=True)
class Request:
    """What a person asked for; None where nothing was said. Without model, data and schema: the domain's own example.

    A domain heeds what has a meaning for it; the command line refuses the rest (`Domain.heeds`).

    Attributes:
        model: what `signstep.open` takes, or what else the domain reads as a model.
        weights: a file of weights.
        model_args: name=value for the factory.
        trust: whether files may be loaded that can run code.
        mean: the model wants (x - mean) / std.
        std: see ``mean``.
        inputs: "normalised" if the data already is.
        output: where the scores are in what the model returns: a key or an index.
        outputs: "auto", "logits" or "probabilities".
        mode: "eval" or "keep".
        task: "auto", or what the model's outputs mean, where the domain leaves that open.
        tolerance: of a regression: the largest error that still counts as right.
        defend: transformations that inputs pass through first, as `ss.defend` takes them.
        data: a file or folder.
        split: "test" or "train", where the data has both.
        resize: images: (height, width) to bring them to.
        label_column: tables: the column of the label.
        ignore: tables: columns to leave out.
        classes: a text file with a class name on each line, or the names.
        skip_bad: leave bad rows out and count them, instead of an error.
        ignore_label: the label that stands for none.
        max_pixels: the most pixels that an image may have.
        limit: the number of examples to use.
        batch_size: examples at a time; None plans them.
        predicted_labels: take the model's own predictions for labels.
        endpoint: a TOML file that says what a model's address takes and answers.
        max_requests: that may be sent to it.
        schema: a TOML file that says what the data means and what may change.
        threat: the size of the change, "norm:eps"; None for the schema's own.
        box: the ends of valid inputs, None for no box; not given: those of the data.
        grid: 255 keeps attacked images on the 8-bit grid.
        search: how the attacker searches, where the domain leaves that open.
    """

    model: str | None = None
    weights: Path | None = None
    model_args: tuple[str, ...] = ()
    trust: bool = False
    mean: Statistic = None
    std: Statistic = None
    inputs: Literal["raw", "normalised"] = "raw"
    output: str | int | None = None
    outputs: Kind = "auto"
    mode: Mode = "eval"
    task: str = "auto"
    tolerance: float | None = None
    defend: tuple[str, ...] = ()
    data: str | None = None
    split: str | None = None
    resize: tuple[int, int] | None = None
    label_column: str | None = None
    ignore: tuple[str, ...] = ()
    classes: Path | tuple[str, ...] | None = None
    skip_bad: bool = False
    ignore_label: int | None = None
    max_pixels: int | None = None
    limit: int | None = None
    batch_size: int | None = None
    predicted_labels: bool = False
    endpoint: Path | None = None
    max_requests: int | None = None
    schema: Path | None = None
    threat: str | None = None
    box: Box | Literal["of the data"] = "of the data"
    grid: int | None = None
    search: Search = field(default_factory=Search)

    @property
    def rows(self) -> int:
        """Examples at a time, where nothing is planned."""
        return self.batch_size or ROWS

    @property
    def seed(self) -> int:
        """All randomness."""
        return self.search.seed


@dataclass(frozen=True, eq=False)
class Case:
    """An audit, ready to run.

    Attributes:
        domain: the domain's name.
        model: what is attacked, with all that is declared about it; its name describes it.
        batches: ``(x, y)``, to be gone through once.
        threat: what may change.
        data: describes the data.
        summary: what the record and the points that fooled mean to the domain's users; it may run the model.
        attacks: recipes or attack objects to run when nobody asks for others.
        named: the domain's own attacks, by the names that stand in its records.
        curve: sizes of the security curve; True for the usual shares of eps, False for none.
        search: how the attacker searches.
        opening: lines to say first, after those of model and data.
        introduced: whether there are such lines; the demonstration has words of its own.
        notes: what the reader of the result must know (bad rows left out, say).
        hashes: SHA-256 of "data", "schema", ...; those of the model are its own.
        total: the number of examples, if known.
        terms: plain values about the domain for the record; what its checker needs to check a saved point.
        again: makes the same case anew from the request, in another process too; None where there was no request.
    """

    domain: str
    model: Model
    batches: Iterable[tuple[Tree, Tensor | None]]
    threat: Threat
    data: str
    summary: Summary
    attacks: tuple[Any, ...] = ("random-sign", "fgsm", "pgd")
    named: Named = none_named
    curve: bool | tuple[float, ...] = True
    search: Search = field(default_factory=Search)
    opening: tuple[str, ...] = ()
    introduced: bool = True
    notes: tuple[str, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    total: int | None = None
    terms: Mapping[str, Any] = field(default_factory=dict)
    again: "Callable[[], Case] | None" = None

    @property
    def said(self) -> tuple[str, ...]:
        """What to say before the work begins."""
        lines = (f"model: {self.model.title}", f"data: {self.data}") if self.introduced else ()
        return (*lines, *self.opening)


def no_summary(result: Result, points: Mapping[str, Tensor]) -> tuple[Section, ...]:  # noqa: ARG001
    """For domains whose record says all."""
    return ()
