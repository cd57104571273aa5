"""What the columns of a table mean and what may change in them: features, relations, and a check for contradictions.

A decoded record is one float64 number for each feature: the value in its unit, or the position of its level.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from signstep.domains.tabular.budgets import Budget, read_budget
from signstep.domains.tabular.relations import Relation, propagated, read_relation
from signstep.errors import InputError
from signstep.messages import Key

Kind = Literal["continuous", "integer", "ordinal", "categorical", "binary"]
Change = Literal["both", "up", "down", "none"]
Form = Literal["encoded", "wide", "codes", "records", "frame"]


@dataclass(frozen=True)
class Feature:
    """One column.

    Attributes:
        name: of the column.
        kind: "continuous"; "integer"; "ordinal", levels with an order; "categorical", levels without, which the model
            sees as a one-hot group; or "binary", two levels.
        low: the smallest value; levels count from 0.
        high: the largest value.
        step: values are multiples of it, counted from 0; 0 for any number.
        unit: of the values, such as "EUR".
        levels: the texts of the levels in the file, in their order.
        change: "both", "up" or "down" only, or "none" for what cannot change (age, sex).
        budget: by how much it may change at eps 1: "500" in its unit, "2 %" of its own value, or "0.1 sd". "" for a
            tenth of a standard deviation, of values with a step the nearest multiple of it that is at least one; for
            one level.
        cost: of a change by one unit, or of another category; None: one for a standard deviation, or for each level.
        centre: the mean, which encoding subtracts.
        spread: the standard deviation, by which encoding divides.
        label: its name in sentences; "" for the column's.
        rises: a clause for an increase, such as "{by} more line{s} {are} opened", with {by}, {before}, {after}, {label}
            and the endings {s} ("" for one) and {are} ("is" for one); "" for the usual clause.
        falls: a clause for a decrease, likewise.
    """

    name: str
    kind: Kind
    low: float = 0.0
    high: float = 1.0
    step: float = 0.0
    unit: str = ""
    levels: tuple[str, ...] = ()
    change: Change = "both"
    budget: str = ""
    cost: float | None = None
    centre: float = 0.0
    spread: float = 1.0
    label: str = ""
    rises: str = ""
    falls: str = ""

    def __post_init__(self) -> None:
        where = f"[feature.{self.name}]"
        for option, value, known in (("kind", self.kind, get_args(Kind)), ("change", self.change, get_args(Change))):
            if value not in known:
                raise InputError(Key(option, value), remedy=f"write one of {', '.join(known)}", where=where)
        if self.named:
            _check_levels(self, where)
            object.__setattr__(self, "low", 0.0)
            object.__setattr__(self, "high", float(len(self.levels) - 1))
            object.__setattr__(self, "step", 1.0)
        if self.kind == "integer" and self.step == 0:
            object.__setattr__(self, "step", 1.0)
        if self.kind == "integer" and not float(self.step).is_integer():
            raise InputError(
                Key("step", self.step, shown=f"{self.step:g}"),
                "for whole numbers",
                remedy="write a whole step, or kind = continuous",
                where=where,
            )
        if not self.low <= self.high:
            raise InputError(
                Key("low", self.low, shown=f"{self.low:g}"),
                "is above",
                Key("high", self.high, shown=f"{self.high:g}"),
                remedy="exchange or correct them",
                where=where,
            )
        if self.step < 0 or not self.spread > 0 or (self.cost is not None and not self.cost > 0):
            raise InputError(
                Key("step", self.step, shown=f"{self.step:g}"),
                Key("spread", self.spread, shown=f"{self.spread:g}"),
                Key("cost", self.cost),
                remedy="write a step of at least 0, and spread and cost above 0",
                where=where,
            )
        if self.kind == "categorical" and self.change in ("up", "down"):
            raise InputError(
                Key("change", self.change), ", but categories have no order", remedy="write both or none", where=where
            )
        if not self.budget:
            object.__setattr__(self, "budget", self._usual_budget())
        read_budget(self.budget, where, named=self.named)
        for option, text in (("rises", self.rises), ("falls", self.falls)):
            _check_sentence(text, f"{where}: {option}")

    def _usual_budget(self) -> str:
        if self.named or self.step == 0:
            return "1" if self.named else "0.1 sd"
        return f"{max(1, round(0.1 * self.spread / self.step)) * self.step:.15g}"

    @property
    def named(self) -> bool:
        """Whether values are levels with names, not numbers."""
        return self.kind in ("ordinal", "categorical", "binary")

    @property
    def width(self) -> int:
        """The columns it has in the model's input."""
        return len(self.levels) if self.kind == "categorical" else 1

    @property
    def price(self) -> float:
        """The cost of a change by one unit, or of another category."""
        if self.cost is not None:
            return self.cost
        return 1.0 if self.named else 1.0 / self.spread

    @property
    def allowance(self) -> Budget:
        """The budget, read."""
        return read_budget(self.budget, f"[feature.{self.name}]", named=self.named)

    @property
    def called(self) -> str:
        """Its name in sentences."""
        return self.label or self.name


@dataclass(frozen=True)
class Target:
    """The decision.

    Attributes:
        column: of the labels.
        classes: the texts of the labels in the order of the model's outputs.
        favourable: the label that a person hopes for.
        granted: what to say of the favourable decision.
        denied: what to say of any other.
    """

    column: str
    classes: tuple[str, ...]
    favourable: str
    granted: str = "granted"
    denied: str = "denied"

    def __post_init__(self) -> None:
        if len(set(self.classes)) < max(2, len(self.classes)):
            raise InputError(
                Key("classes", list(self.classes)), remedy="write two or more different labels", where="[target]"
            )
        if self.favourable not in self.classes:
            raise InputError(
                Key("favourable", self.favourable),
                f"is not among the classes {list(self.classes)}",
                remedy="write one of them",
                where="[target]",
            )

    @property
    def good(self) -> int:
        """The position of the favourable class."""
        return self.classes.index(self.favourable)


@dataclass(frozen=True)
class Schema:
    """All of it.

    Attributes:
        features: in the order in which the model sees them.
        target: the decision.
        relations: linear relations between numbers, such as "total = a + b" or "a <= b".
        changes: at most so many features may differ at once; 0 for any number.
        ignore: columns of the file that the model does not see.
        groups: columns, or cuts such as "Age < 25", for which flips are counted apart.
        form: what the model takes: "encoded" (numbers standardised, categories one-hot), "wide" (numbers in their
            units, categories one-hot), "codes" (one number for each feature), "records" (an object array with the
            texts), or "frame" (a pandas DataFrame).

    Raises:
        InputError: it contradicts itself.
    """

    features: tuple[Feature, ...]
    target: Target
    relations: tuple[Relation, ...] = ()
    changes: int = 0
    ignore: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    form: Form = "encoded"
    _numbers: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if not names:
            raise InputError(
                "the schema has no features", remedy="write one [feature.NAME] for each column the model sees"
            )
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"the schema names the feature {twice!r} twice", remedy="keep one")
        if self.target.column in names:
            raise InputError(
                f"{self.target.column!r} is the target and a feature", remedy=f"remove [feature.{self.target.column}]"
            )
        both = next((name for name in self.ignore if name in names), None)
        if both is not None:
            raise InputError(f"ignore names {both!r}, which is a feature", remedy="remove one of the two")
        if self.form not in get_args(Form):
            raise InputError(
                Key("input", self.form), remedy=f"write one of {', '.join(get_args(Form))}", where="[model]"
            )
        if self.changes < 0:
            raise InputError(
                Key("changes", self.changes),
                remedy="write how many features may differ, 0 for any number",
                where="[audit]",
            )
        self._numbers.update({name: number for number, name in enumerate(names)})
        self._check_relations()

    def __getitem__(self, name: str) -> Feature:
        return self.features[self._numbers[name]]

    def number(self, name: str) -> int:
        """The position of a feature."""
        return self._numbers[name]

    def plain(self) -> dict[str, Any]:
        """Plain values, which `of` reads."""
        return {
            "features": [asdict(feature) | {"levels": list(feature.levels)} for feature in self.features],
            "target": asdict(self.target) | {"classes": list(self.target.classes)},
            "relations": [relation.rule for relation in self.relations],
            "changes": self.changes,
            "ignore": list(self.ignore),
            "groups": list(self.groups),
            "form": self.form,
        }

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Schema":
        """From plain values."""
        return cls(
            tuple(Feature(**{**part, "levels": tuple(part["levels"])}) for part in plain["features"]),
            Target(**{**plain["target"], "classes": tuple(plain["target"]["classes"])}),
            read_relations(plain["relations"]),
            plain["changes"],
            tuple(plain["ignore"]),
            tuple(plain["groups"]),
            plain["form"],
        )

    def _check_relations(self) -> None:
        for relation in self.relations:
            for name, _ in relation.weights:
                if name not in self._numbers:
                    raise InputError(
                        f"the relation {relation.rule!r} names {name!r}, which is no feature", remedy="correct it"
                    )
                if self[name].kind == "categorical":
                    raise InputError(
                        f"the relation {relation.rule!r} names {name!r}, whose categories are no numbers",
                        remedy="remove it",
                    )
        ends = {feature.name: (feature.low, feature.high) for feature in self.features}
        broken = propagated(self.relations, ends)
        if broken is not None:
            raise InputError(
                f"no record can satisfy the relation {broken.rule!r} within the bounds of its features and the "
                "other relations",
                remedy="correct the relation, or low and high",
            )


def read_relations(rules: Iterable[str]) -> tuple[Relation, ...]:
    """Relations from their texts."""
    return tuple(read_relation(rule) for rule in rules)


def _check_levels(feature: Feature, where: str) -> None:
    if len(feature.levels) < 2 or (feature.kind == "binary" and len(feature.levels) != 2):
        needed = "two levels" if feature.kind == "binary" else "two or more levels"
        raise InputError(
            Key("levels", list(feature.levels)), remedy=f"write {needed} for a {feature.kind} feature", where=where
        )
    twice = next((level for level in feature.levels if feature.levels.count(level) > 1), None)
    if twice is not None:
        raise InputError(f"{where}: the level {twice!r} is named twice", remedy="keep one")


def _check_sentence(text: str, where: str) -> None:
    try:
        text.format(by="1", before="1", after="2", label="x", s="", are="is")
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            Key(where, text), f"cannot be filled ({error})", remedy="use {by} {before} {after} {label} {s} {are}"
        ) from error
