"""Single data-entry errors: would one slip of the keyboard turn the decision?"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from signstep.domains.tabular.decide import Decider
from signstep.domains.tabular.reach import Set
from signstep.domains.tabular.schema import Feature
from signstep.domains.tabular.sentences import value_words


@dataclass(frozen=True)
class EntryError:
    """One field of one record typed wrongly.

    Attributes:
        row: of the records.
        feature: its position.
        kind: what went wrong.
        value: what would be entered.
        cost: of the difference, under the schema's costs.
    """

    row: int
    feature: int
    kind: str
    value: float
    cost: float


@dataclass(frozen=True)
class EntryErrors:
    """All slips that a form would accept: how many there are for each record, and those that turn its decision."""

    tried: tuple[int, ...]
    turning: tuple[EntryError, ...]

    def smallest(self, row: int) -> EntryError | None:
        """Of the slips that turn a record's decision the one with the smallest difference."""
        return min((slip for slip in self.turning if slip.row == row), key=lambda slip: slip.cost, default=None)


def find_entry_errors(decider: Decider, allowed: Set) -> EntryErrors:
    """Ask for every single-field slip of each record (immutable features too: people mistype an age).

    Numbers: a digit mistyped, left out or doubled, two neighbouring digits exchanged, a decimal point or zero too many
    or too few (times or by ten), a sign lost. Levels: any other one. Slips beyond the bounds of a feature or against a
    relation are left out: a form refuses them.
    """
    records = allowed.start
    _, granted = decider(records)
    tried: list[int] = []
    turning: list[EntryError] = []
    for row in range(len(records)):
        slips = list(_slips(decider, row, records[row]))
        typed = records[row].repeat(len(slips), 1)
        for place, slip in enumerate(slips):
            typed[place, slip.feature] = slip.value
        kept = allowed.holds(typed[:, decider.layout.numeric]).nonzero().squeeze(1)
        tried.append(len(kept))
        if len(kept):
            _, now = decider(typed[kept])
            turned = (now != granted[row]).tolist()
            turning += [slips[place] for place, was in zip(kept.tolist(), turned, strict=True) if was]
    return EntryErrors(tuple(tried), tuple(turning))


def entry_error_words(feature: Feature, before: float, slip: EntryError) -> str:
    """A slip in words: "LoanDuration typed as 18 instead of 48 (a digit mistyped)"."""
    return (
        f"{feature.called} entered as {value_words(feature, slip.value)} instead of {value_words(feature, before)} "
        f"({slip.kind})"
    )


def typed_wrongly(text: str) -> Iterator[tuple[str, str]]:
    """Every text that one slip makes of a number's, with the kind of slip.

    >>> sorted({text for text, kind in typed_wrongly("12") if kind == "two digits exchanged"})
    ['21']
    """
    digits = [place for place, sign in enumerate(text) if sign.isdigit()]
    for place in digits:
        for digit in "0123456789":
            if digit != text[place]:
                yield text[:place] + digit + text[place + 1 :], "a digit mistyped"
    for first, second in pairwise(digits):
        if second == first + 1 and text[first] != text[second]:
            yield text[:first] + text[second] + text[first] + text[second + 1 :], "two digits exchanged"
    for place in digits:
        if len(digits) > 1:
            yield text[:place] + text[place + 1 :], "a digit left out"
        yield text[: place + 1] + text[place:], "a digit doubled"
    if text.startswith("-"):
        yield text[1:], "the sign left out"


def _slips(decider: Decider, row: int, record: Tensor) -> Iterator[EntryError]:
    for number, feature in enumerate(decider.layout.schema.features):
        value = float(record[number])
        if feature.named:
            kind = "another category chosen" if feature.kind != "binary" else "the other box ticked"
            for level in range(len(feature.levels)):
                if level != value:
                    cost = feature.price * (1 if feature.kind == "categorical" else abs(level - value))
                    yield EntryError(row, number, kind, float(level), cost)
            continue
        seen = {value}
        text = f"{value:.10g}"
        others = [("times ten", value * 10), ("divided by ten", value / 10)]
        if "e" not in text:
            others = [(kind, float(typed)) for typed, kind in typed_wrongly(text)] + others
        for kind, wrong in others:
            fits = feature.low <= wrong <= feature.high
            whole = not feature.step or abs(wrong / feature.step - round(wrong / feature.step)) < 1e-6
            if fits and whole and wrong not in seen:
                seen.add(wrong)
                yield EntryError(row, number, kind, wrong, feature.price * abs(wrong - value))
