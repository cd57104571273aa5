"""The one example at the head of the page: before, change and after, and what turning the change up and down gives."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from signstep.auditing.knob import SHARES, Knob, preferred, turned, unfit
from signstep.auditing.result import Result
from signstep.report.classes import class_name
from signstep.report.numerals import NONE, size
from signstep.report.pictures import (
    SMALL,
    Gallery,
    amplification,
    answer_at,
    column,
    picture_of,
    reduced,
    shown_between,
    uri,
    window,
)
from signstep.report.table import Column, Table

_SIDE = 192  # pixels of the longer side, at most
_NAMES = tuple(f"eps/{1 / share:g}" if share < 1 else "eps" if share == 1 else f"{share:g} eps" for share in SHARES)


@dataclass(frozen=True)
class Position:
    """One position of the knob: its name and size, two PNG images as data URIs, and what the model answers there."""

    name: str
    size: str
    change: str
    attacked: str
    answer: str
    changed: bool


@dataclass(frozen=True)
class Triple:
    """One example.

    Attributes:
        clean: the untouched input, a PNG as a data URI.
        label: its class.
        before: the answer there, with its confidence where that is known.
        attack: that led it astray.
        row: its place in the data.
        factor: by which the change is amplified around middle grey, the same at each position.
        positions: one, or those of the knob.
        start: the position to begin with: the one whose size is that of the audit.
        large: a photograph, to be smoothed when scaled.
    """

    clean: str
    label: str
    before: str
    attack: str
    row: int
    factor: float
    positions: tuple[Position, ...]
    start: int
    large: bool

    @property
    def turns(self) -> bool:
        """Whether there is something to turn."""
        return len(self.positions) > 1


def triple(result: Result, points: Mapping[str, Tensor] | None, shown: Gallery) -> Triple | None:
    """The example of the knob; where there is none, the first picture; None where there are no pictures."""
    if not shown.pictures or points is None:
        return None
    knob = result.knob
    rows = column(points, "row", [])
    if knob is None or not _whole(knob) or knob.row not in rows or unfit(result.terms, result.per_example.answers):
        return _of_picture(result, shown)
    place = rows.index(knob.row)
    one = {name: part[place : place + 1] for name, part in points.items()}
    number = column(one, "attack", [-1])[0]
    name = result.attacks[number].name if 0 <= number < len(result.attacks) else ""
    distance = result.per_example.distances.get(name, ())
    length = distance[knob.row] if knob.row < len(distance) else None
    if length is None or not length:
        return _of_picture(result, shown)
    return _turned(result, one, knob, name, length)


def _turned(result: Result, one: Mapping[str, Tensor], knob: Knob, attack: str, length: float) -> Triple:
    from PIL.Image import Resampling

    moved = turned(one, result.terms, length)
    low, high, _ = window(result, {**one, "x_adv": moved[-1:]}, [0])
    clean, views = shown_between(result, one["x"], low, high), shown_between(result, moved, low, high)
    change = views - clean
    factor = amplification(float(change.abs().max()))
    before = column(one, "answer", [-1])[0]
    positions = tuple(
        Position(
            name,
            size(eps, result.terms.get("eps", "")),
            uri(reduced(picture_of(grey), Resampling.NEAREST, _SIDE)),
            uri(reduced(picture_of(view), Resampling.LANCZOS, _SIDE)),
            _with_confidence(result, knob, place),
            knob.answers[place] != before,
        )
        for place, (name, eps, grey, view) in enumerate(
            zip(_NAMES, knob.eps, change * factor + 0.5, views, strict=True)
        )
    )
    return Triple(
        uri(reduced(picture_of(clean[0]), Resampling.LANCZOS, _SIDE)),
        answer_at(result, one, "y", "", 0),
        answer_at(result, one, "answer", "confidence", 0),
        attack,
        knob.row,
        factor,
        positions,
        SHARES.index(1.0),
        max(one["x"].shape[-2:]) >= SMALL,
    )


def _whole(knob: Knob) -> bool:
    """Whether there is an answer at each size, as in any record that an audit made."""
    count = len(SHARES)
    return len(knob.eps) == len(knob.answers) == count and len(knob.confidence) in (0, count)


def _of_picture(result: Result, shown: Gallery) -> Triple:
    first = shown.pictures[0]
    label = str(result.terms.get("eps", ""))
    position = Position("as found", label, first.change, first.adversarial, first.after, changed=True)
    return Triple(
        first.clean, first.label, first.before, first.attack, first.row, shown.factor, (position,), 0, shown.large
    )


def _with_confidence(result: Result, knob: Knob, place: int) -> str:
    name = class_name(result, knob.answers[place])
    return f"{name} ({100 * knob.confidence[place]:.0f}\u00a0%)" if knob.confidence else name


def knob_table(result: Result) -> Table | None:
    """What the model answers at each size; None where no example was asked so."""
    knob, label = result.knob, result.terms.get("eps", "")
    clean = result.per_example.answers.get("clean", ())
    if knob is None or not _whole(knob) or not 0 <= knob.row < len(clean):
        return None
    sure = [f"{100 * value:.0f}\u00a0%" for value in knob.confidence] or [NONE] * len(SHARES)
    rows = [("untouched", size(0.0, label), class_name(result, clean[knob.row]), NONE, NONE)]
    rows += [
        (name, size(eps, label), class_name(result, answer), share, "yes" if answer != clean[knob.row] else "no")
        for name, eps, answer, share in zip(_NAMES, knob.eps, knob.answers, sure, strict=True)
    ]
    columns = (
        Column("Size", numeric=False),
        Column(f"In {result.terms.get('norm', '')}"),
        Column("Answer", numeric=False),
        Column("Probability"),
        Column("Other than untouched", numeric=False),
    )
    return Table("table-knob", f"Example {knob.row}, asked at several sizes of its change.", columns, tuple(rows))


def knob_choice(result: Result) -> str:
    """How the example was chosen."""
    knob, eps = result.knob, result.terms.get("eps_value")
    if knob is None or not eps or not 0 <= knob.row < len(result.per_example.smallest_eps):
        return ""
    if preferred(result.per_example.smallest_eps[knob.row], eps):
        return (
            "It is the first that fell whose answer turns between these sizes along the FGSM step, so that there is "
            "something to see; it stands for no other."
        )
    return "It is the first that fell, and stands for no other."


def knob_cost(result: Result) -> str:
    """How the answers came about, and what they cost."""
    if result.knob is None:
        return ""
    return (
        "The change that was found was made shorter and longer along its own line, and cut by the box. Asking cost "
        f"{len(result.knob.eps)} forward passes more, on this example alone."
    )
