"""Changes and decisions as sentences."""

from collections.abc import Sequence

from torch import Tensor

from signstep.domains.tabular.schema import Feature, Schema

_COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def change_words(schema: Schema, before: Tensor, after: Tensor) -> list[str]:
    """What differs between two decoded records (F,), a phrase for each feature.

    >>> from signstep.domains.tabular.schema import Feature, Schema, Target
    >>> import torch
    >>> debt = Feature("debt", "integer", 0, 9000, unit="EUR")
    >>> cards = Feature("cards", "integer", 0, 9, falls="{by} credit line{s} {are} closed")
    >>> schema = Schema((debt, cards), Target("y", ("0", "1"), "1"))
    >>> change_words(schema, torch.tensor([4000.0, 3.0]), torch.tensor([2760.0, 2.0]))
    ['debt falls by 1,240 EUR (4,000 to 2,760)', 'one credit line is closed']
    """
    return [
        _phrase(feature, float(before[number]), float(after[number]))
        for number, feature in enumerate(schema.features)
        if float(before[number]) != float(after[number])
    ]


def decision_words(schema: Schema, before: Tensor, after: Tensor, *, granted: bool) -> str:
    """What would turn the decision: "granted if debt falls by 1,240 EUR (4,000 to 2,760)"."""
    said = schema.target.denied if granted else schema.target.granted
    return f"{said} if {listing(change_words(schema, before, after))}"


def change_cells(schema: Schema, before: Tensor, after: Tensor) -> list[tuple[str, str]]:
    """What differs between two decoded records (F,): for each feature its name, and "4,000 → 2,760 EUR"."""
    pairs = ((feature, float(before[place]), float(after[place])) for place, feature in enumerate(schema.features))
    return [
        (feature.called, f"{value_words(feature, was)} → {value_words(feature, now)} {feature.unit}".rstrip())
        for feature, was, now in pairs
        if was != now
    ]


def listing(parts: Sequence[str]) -> str:
    """Phrases joined by commas and a final "and"."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def value_words(feature: Feature, value: float) -> str:
    """A value as it would be written in the file, numbers with thousands separated."""
    return feature.levels[round(value)] if feature.named else _amount(value)


def _phrase(feature: Feature, before: float, after: float) -> str:
    was, now = value_words(feature, before), value_words(feature, after)
    template = feature.rises if after > before else feature.falls
    by = after - before if after > before else before - after
    if template:
        whole = float(by).is_integer() and by <= 12 and (feature.step >= 1 or feature.named)
        return template.format(
            by=_COUNTS[int(by)] if whole else _amount(by),
            before=was,
            after=now,
            label=feature.called,
            s="" if by == 1 else "s",
            are="is" if by == 1 else "are",
        )
    if feature.kind in ("categorical", "binary"):
        return f"{feature.called} is {now} instead of {was}"
    if feature.kind == "ordinal":
        return f"{feature.called} {'rises' if after > before else 'falls'} from {was} to {now}"
    return (
        f"{feature.called} {'rises' if after > before else 'falls'} by {_measured(by, feature.unit)} ({was} to {now})"
    )


def _measured(value: float, unit: str) -> str:
    """An amount with its unit: "1,240 EUR", "1 month", "3 months"."""
    one = value == 1 and unit.endswith("s") and len(unit) > 3
    return f"{_amount(value)} {unit[:-1] if one else unit}".rstrip()


def _amount(value: float) -> str:
    if abs(value - round(value)) < 1e-9 * max(1.0, abs(value)):
        return f"{round(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.2f}"
    return f"{value:.4g}"
