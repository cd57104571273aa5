"""What every domain makes of its data: an audit, ready to run, and its outcome in the words of its users."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from signstep.auditing.result import Result
from signstep.auditing.sections import Section
from signstep.domains.own_attacks import Named, none_named
from signstep.engine.tasks import Task, TaskName
from signstep.engine.threat import Threat
from signstep.engine.tree import Tree
from signstep.model.subject import Model

Summary: TypeAlias = Callable[[Result, Mapping[str, Tensor]], tuple[Section, ...]]


@dataclass(frozen=True)
class Request:
    """What a person asked for; None where nothing was said. Without model, data and schema: the domain's own example.

    Attributes:
        model: package.module:factory, or what the domain reads as a model.
        weights: a file of weights.
        model_args: name=value for the factory.
        trust: whether files may be loaded that can run code.
        data: a file or folder.
        schema: a TOML file that says what the data means and what may change.
        threat: the size of the change, "norm:eps"; None for the schema's own.
        label_column: tables: the column of the label.
        ignore: tables: columns to leave out.
        task: "auto", or what the model's outputs mean, where the domain leaves that open.
        tolerance: of a regression: the largest error that still counts as right.
        limit: the number of examples to use.
        batch_size: examples at a time.
        seed: all randomness.
        skip_bad: leave bad rows out and count them, instead of an error.
    """

    model: str | None = None
    weights: Path | None = None
    model_args: tuple[str, ...] = ()
    trust: bool = False
    data: str | None = None
    schema: Path | None = None
    threat: str | None = None
    label_column: str | None = None
    limit: int | None = None
    batch_size: int = 256
    seed: int = 0
    skip_bad: bool = False
    ignore: tuple[str, ...] = ()
    task: str = "auto"
    tolerance: float | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """An audit, ready to run.

    Attributes:
        domain: the domain's name.
        model: what is attacked.
        batches: ``(x, y)``, to be gone through once.
        threat: what may change.
        task: what the model's outputs mean.
        description: of the model.
        data: of the data.
        attacks: recipes or attack objects to run when nobody asks for others.
        named: the domain's own attacks, by the names that stand in its records.
        curve: sizes of the security curve; True for the usual shares of eps, False for none.
        opening: lines to say first.
        notes: what the reader of the result must know (bad rows left out, say).
        classes: names of the classes.
        hashes: SHA-256 of "weights", "data", "schema", ...
        total: the number of examples, if known.
        loss: the loss to climb; None for the task's default.
        terms: plain values about the domain for the record; what its checker needs to check a saved point.
        story: what the record and the points that fooled mean to the domain's users; it may run the model.
    """

    domain: str
    model: Model
    batches: Iterable[tuple[Tree, Tensor | None]]
    threat: Threat
    task: Task | TaskName
    description: str
    data: str
    summary: Summary
    attacks: tuple[Any, ...] = ("random-sign", "fgsm", "pgd")
    named: Named = none_named
    curve: bool | tuple[float, ...] = True
    opening: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    total: int | None = None
    loss: str | None = None
    terms: Mapping[str, Any] = field(default_factory=dict)
