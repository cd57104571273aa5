"""What a detector is made of: a fitted rule that scores a look, and the row that says how it is fitted."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from signstep.detectors.seen import Reader, Seen
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.registry import nearest

Option: TypeAlias = float | int | str | bool | None

_ROWS = 256


class Rule(Protocol):
    """A fitted rule: one number for each row, higher is more suspicious."""

    @property
    def passes(self) -> int:
        """Forward passes for each input beside the one that gives the model's answer."""

    @property
    def state(self) -> Mapping[str, Tensor]:
        """All that was fitted, to be saved."""

    def scores(self, seen: Seen) -> Tensor:
        """Scores (R,)."""

    def surrogate(self, seen: Seen) -> Tensor | None:
        """Scores (R,) that a gradient passes, or a likeness of them; None where there is none."""


@dataclass(frozen=True, eq=False)
class Fitting:
    """What a rule may be fitted on.

    Attributes:
        reader: of the model.
        raw: clean inputs (n, ...) in raw units.
        labels: their classes (n,), or None.
        other: reader of a second model, where one was passed.
        threat: what attacked training examples may change, where it was said.
        recipes: attacks to be trained on.
        seed: of all randomness.
        shape: of one input; None where there are no rows at all.
    """

    reader: Reader
    raw: Tensor
    labels: Tensor | None = None
    other: Reader | None = None
    threat: ThreatModel | None = None
    recipes: tuple[str, ...] = ()
    seed: int = 0
    shape: torch.Size | None = None

    def over(self, read: Callable[[Seen], Tensor], raw: Tensor | None = None) -> Tensor:
        """What ``read`` says of all rows, looked at in batches."""
        whole = self.raw if raw is None else raw
        with self.reader.quiet():
            parts = [read(Seen(self.reader, whole[at : at + _ROWS])) for at in range(0, max(1, len(whole)), _ROWS)]
        return torch.cat(parts)

    def classed(self) -> Tensor:
        """The class (n,) of each row: its label, or what the model says where there are none."""
        said = self.over(lambda seen: seen.classes)
        return said if self.labels is None else self.labels.to(said.device)


@dataclass(frozen=True)
class DetectorRow:
    """One row of the table of detectors.

    Attributes:
        name: as on the command line.
        fit: makes the rule from a `Fitting`; its keyword arguments, which all have defaults, are the options.
        restore: makes it again from its saved state and its options (and a `Reader` of the second model, or None).
        title: in words.
        source: the paper.
        broken: who has shown what an attacker who knows does to it.
        reads: what it looks at: the model's "answers", its "features", or the "inputs" alone.
        gradient: what an attacker can differentiate: "exact", a "likeness", or "none".
        passes: forward passes beside the model's own, in words.
        fitted: whether it needs rows to be fitted on; all others calibrate on every clean row.
        trained_on_attacks: whether it learns from attacked examples, which are told apart in reports.
        second: whether it needs a second model.
    """

    name: str
    fit: Callable[..., Rule]
    restore: Callable[..., Rule]
    title: str
    source: str
    broken: str
    reads: Literal["answers", "features", "inputs"]
    gradient: Literal["exact", "likeness", "none"] = "exact"
    passes: str = "none"
    fitted: bool = True
    trained_on_attacks: bool = False
    second: bool = False

    @property
    def defaults(self) -> dict[str, Option]:
        """The options and their defaults."""
        arguments = list(inspect.signature(self.fit).parameters.values())[1:]
        return {one.name: one.default for one in arguments if one.default is not inspect.Parameter.empty}

    def spelled(self, options: Mapping[str, Option]) -> str:
        """Name and options as they are typed, those at their defaults left out."""
        defaults = self.defaults
        said = [f"{name}={str(options[name]).lower()}" for name in defaults if options[name] != defaults[name]]
        return f"{self.name}:{','.join(said)}" if said else self.name


@dataclass(frozen=True, eq=False)
class Stateless:
    """A rule that nothing was fitted for."""

    passes: int = field(default=0, init=False)

    @property
    def state(self) -> Mapping[str, Tensor]:
        """Nothing."""
        return {}


def parse_options(row: DetectorRow, text: str) -> dict[str, Option]:
    """Read "bits=4,median=3" for a detector; all options, those not named at their defaults.

    Raises:
        InputError: no such option, or not a value for it.
    """
    options = dict(row.defaults)
    for item in filter(None, text.split(",")):
        option, equals, value = (part.strip() for part in item.partition("="))
        if not equals or option not in options:
            near = nearest(option, options) if equals else None
            hint = f"did you mean {near}={value}?" if near else f"its options are {', '.join(options) or 'none'}"
            raise InputError(f"the detector {row.name!r} has no option {item!r}", remedy=hint)
        options[option] = _value(option, value, options[option], row.name)
    return options


_HUGE = 2**63  # what a tensor takes


def checked_options(row: DetectorRow, given: Mapping[str, Any]) -> dict[str, Option]:
    """Options as a file states them.

    Raises:
        InputError: they are not those of the row.
    """
    defaults = row.defaults
    if set(given) != set(defaults):
        raise InputError(
            f"the detector {row.name!r} has the options {', '.join(defaults) or 'none'}, not {', '.join(given)}",
            remedy="fit it again",
        )
    for name, value in given.items():
        kind = type(defaults[name])
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool) != (kind is bool):
            raise InputError(Arg(name, value), remedy=f"pass a {kind.__name__}", where=row.name)
        if isinstance(value, (int, float)) and not abs(value) < _HUGE:
            raise InputError(Arg(name), "is larger than any option", remedy="fit it again", where=row.name)
    return {name: given[name] for name in defaults}


def _value(option: str, value: str, default: Option, said: str) -> Option:
    if isinstance(default, str):
        return value
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise InputError(Arg(option, value), remedy="pass true or false", where=said)
        return value.lower() == "true"
    try:
        return int(value) if isinstance(default, int) else float(value)
    except ValueError as error:
        kind = "whole number" if isinstance(default, int) else "number"
        raise InputError(Arg(option, value), remedy=f"pass a {kind}", where=said) from error


def whole(name: str, value: int, least: int, where: str) -> int:
    """A whole number of at least ``least``.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(Arg(name, value), remedy=f"pass a whole number of at least {least}", where=where)
    return value


def above_zero(name: str, value: float, where: str) -> float:
    """A finite number above 0.

    Raises:
        InputError: it is none.
    """
    if not 0 < value < float("inf"):
        raise InputError(Arg(name, value), remedy="pass a number above 0", where=where)
    return float(value)


def by_class(fitting: Fitting, features: Tensor, least: int, where: str) -> list[Tensor]:
    """The features (n, F) of the fit rows by class, for every class that the model has.

    Raises:
        InputError: a class has fewer than ``least`` rows.
    """
    labels = fitting.classed()
    with fitting.reader.quiet():
        count = Seen(fitting.reader, fitting.raw[:1]).logits.shape[1]
    groups = [features[labels == label] for label in range(count)]
    for label, group in enumerate(groups):
        if len(group) < least:
            raise InputError(
                f"class {label} has {len(group)} fit rows, fewer than {least}",
                remedy="pass more clean rows of every class, or the option pooled=true",
                where=where,
            )
    return groups
