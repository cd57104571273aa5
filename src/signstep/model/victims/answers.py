"""What an endpoint answers: scores, logits or probabilities of every class, or a label, somewhere in JSON."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from signstep.errors import LoadError
from signstep.io.documents import json_value
from signstep.messages import Key
from signstep.model.victims.arrays import Array
from signstep.model.victims.exchange import Unreadable
from signstep.model.victims.place import Place, kind_of
from signstep.plain import one_line

Kind = Literal["scores", "logits", "probabilities", "labels"]
KINDS: tuple[Kind, ...] = ("scores", "logits", "probabilities", "labels")
_SLACK = 1e-3  # of a probability that was rounded


@dataclass
class Answers:
    """From the body of an answer to scores (R, classes) or labels (R,).

    Attributes:
        kind: what the numbers are.
        place: where they stand.
        classes: names, in the order of the scores.
        name: in a list of objects, the key of the class's name; also that of a label in an object.
        value: likewise the key of its score.
        wide: how many scores there are; of the first answer where there are no names.
    """

    kind: Kind
    place: Place
    classes: tuple[str, ...] = ()
    name: str = ""
    value: str = ""
    wide: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        self._number = {name: number for number, name in enumerate(self.classes)}
        if self.classes:
            self.wide = len(self.classes)

    def __call__(self, body: bytes, rows: int) -> Array:
        """Read an answer to so many inputs.

        Raises:
            Unreadable: it is none.
        """
        try:
            document = json_value(body, "it")
        except LoadError as error:
            raise Unreadable(
                f"cannot be read: {error.text}", remedy="let the API answer in JSON, with finite numbers"
            ) from error
        found = self.place.read(document, rows)
        if self.kind == "labels":
            return np.asarray([self._label(one) for one in found], dtype=np.int64)
        scores = [self._scores(one) for one in found]
        wide = self.wide or len(scores[0])
        if len(self.classes) == 2 and len(scores[0]) == 1:
            wide = 1  # of two classes one score tells both
        for row in scores:
            if len(row) != wide:
                raise self._wrong_length(len(row), wide)
        self.wide = wide
        return np.asarray(scores, dtype=np.float64)

    def expected(self, rows: int) -> str:
        """What is expected of an answer, in words."""
        what = {"labels": "a label"}.get(self.kind, f"{self.wide or 'all'} {self.kind}")
        known = f" ({', '.join(self.classes[:4])}{', ...' if len(self.classes) > 4 else ''})" if self.classes else ""
        form = f", objects with {self.name!r} and {self.value!r}" if self.value else ""
        where = f"at {self.place.text!r}" if self.place.text else "at the top"
        return f"JSON with {what}{known} {where}{form}, for {rows} input{'s' if rows > 1 else ''}"

    def _wrong_length(self, count: int, wide: int) -> Unreadable:
        if self.classes:
            return Unreadable(
                f"has {count} scores, and",
                Key("answer.classes"),
                f"names {wide} classes",
                remedy=(
                    "name each class once, in the order of the scores; of an API that tells the few best only, write",
                    Key("answer.is", "labels"),
                ),
            )
        return Unreadable(
            f"has {count} scores, and an earlier one had {wide}",
            remedy=("name the classes,", Key("answer.classes"), ", if the API leaves some out"),
        )

    def _scores(self, found: Any) -> list[float]:
        """The scores of one input, in the order of the classes."""
        if isinstance(found, list) and self.value:
            pairs = [(_key(one, self.name), _key(one, self.value)) for one in found]
            return self._by_name(pairs)
        if isinstance(found, dict):
            return self._by_name(list(found.items()))
        numbers = found if isinstance(found, list) else [found]
        return [self._number_of(one) for one in numbers]

    def _by_name(self, pairs: Sequence[tuple[Any, Any]]) -> list[float]:
        if not self.classes:
            raise Unreadable(
                f"has scores by name ({', '.join(one_line(str(name))[:30] for name, _ in pairs[:4])})",
                remedy=("write the names in the order of the labels as", Key("answer.classes")),
            )
        given: dict[str, float] = {}
        for name, value in pairs:
            if name not in self._number or name in given:
                raise self._strange(name, twice=name in given)
            given[name] = self._number_of(value)
        if len(given) != len(self.classes):
            raise self._wrong_length(len(given), len(self.classes))
        return [given[name] for name in self.classes]

    def _number_of(self, value: Any) -> float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise Unreadable(
                f"has {kind_of(value)} where a score should be",
                remedy=("correct", Key("answer.at"), ", or write", Key("answer.is", "labels"), "if it is a label"),
            )
        if self.kind == "probabilities" and not -_SLACK <= value <= 1 + _SLACK:
            raise Unreadable(
                f"has {value:.6g}, which is no probability",
                remedy=("write", Key("answer.is", "logits"), ", or", Key("answer.is", "scores")),
            )
        return min(1.0, max(0.0, float(value))) if self.kind == "probabilities" else float(value)

    def _label(self, found: Any) -> int:
        if isinstance(found, list) and len(found) == 1:
            (found,) = found
        if isinstance(found, dict) and self.name:
            found = _key(found, self.name)
        if isinstance(found, float) and found.is_integer():
            found = int(found)
        if type(found) is bool:
            found = int(found)
        if isinstance(found, str):
            if not self.classes:
                raise Unreadable(
                    f"has {kind_of(found)} for a label",
                    remedy=("write the names in the order of the labels as", Key("answer.classes")),
                )
            if found not in self._number:
                raise self._strange(found)
            return self._number[found]
        if type(found) is not int:
            raise Unreadable(
                f"has {kind_of(found)} where a label should be",
                remedy=("correct", Key("answer.at"), ", or write", Key("answer.is", "scores"), "if these are scores"),
            )
        if not 0 <= found < (len(self.classes) or 2**31):
            raise Unreadable(
                f"has the label {found}, and the labels are 0 to {len(self.classes) - 1}"
                if self.classes
                else f"has the label {found}, and labels count from 0",
                remedy=("name all classes, from number 0 on:", Key("answer.classes")),
            )
        return found

    def _strange(self, name: Any, *, twice: bool = False) -> Unreadable:
        said = one_line(str(name))[:60]
        return Unreadable(
            f"has the class {said!r}{' twice' if twice else ', which is none of'}",
            *([] if twice else [Key("answer.classes")]),
            remedy=("name it as the API does, in", Key("answer.classes")),
        )


def _key(found: Any, name: str) -> Any:
    if not isinstance(found, dict) or name not in found:
        raise Unreadable(
            f"has {kind_of(found)} without {name!r}",
            remedy=("correct", Key("answer.name"), "and", Key("answer.value"), ", the keys of each object"),
        )
    return found[name]
