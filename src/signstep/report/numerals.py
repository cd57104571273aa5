"""How numbers are written in a report: counts with their denominators, shares, intervals, sizes."""

import math

from signstep.engine.statistics import wilson

NONE = "\u2013"
_SPACE = "\u00a0"  # keeps a number and its unit on one line


def share(count: int, whole: int) -> float:
    """A proportion; NaN where there is nothing to divide by."""
    return count / whole if whole else math.nan


def percent(value: float) -> str:
    r"""A share in per cent with one decimal; never rounded to none or to all.

    >>> percent(0.719), percent(0.0001), percent(0.9999), percent(0.0)
    ('71.9\xa0%', '<\xa00.1\xa0%', '>\xa099.9\xa0%', '0.0\xa0%')
    """
    if math.isnan(value):
        return NONE
    if 0 < value < 0.0005:
        return f"<{_SPACE}0.1{_SPACE}%"
    if 0.9995 < value < 1:
        return f">{_SPACE}99.9{_SPACE}%"
    return f"{100 * value:.1f}{_SPACE}%"


def fraction(count: int, whole: int) -> str:
    r"""A count with its denominator.

    >>> fraction(63, 100)
    '63\xa0of\xa0100'
    """
    return f"{count}{_SPACE}of{_SPACE}{whole}"


def interval(count: int, whole: int) -> str:
    r"""The 95 % Wilson interval of a proportion.

    >>> interval(719, 1000)
    '69.0\xa0%\xa0to\xa074.6\xa0%'
    """
    if not whole:
        return NONE
    low, high = wilson(count, whole)
    return f"{100 * low:.1f}{_SPACE}%{_SPACE}to{_SPACE}{100 * high:.1f}{_SPACE}%"


def number(value: float | None) -> str:
    """A measured number with four significant digits."""
    return NONE if value is None or math.isnan(value) else f"{value:.4g}"


def seconds(value: float) -> str:
    r"""A duration.

    >>> seconds(35.896), seconds(0.004), seconds(600.0)
    ('35.9\xa0s', '4\xa0ms', '10.0\xa0min')
    """
    if value < 0.9995:
        return f"{1000 * value:.3g}{_SPACE}ms"
    return f"{value:.1f}{_SPACE}s" if value < 120 else f"{value / 60:.1f}{_SPACE}min"


def unit(label: object) -> float:
    """In what sizes are counted: 1/255 if eps was written so, else 1."""
    return 1 / 255 if str(label).endswith("/255") else 1.0


def size(value: float, label: object) -> str:
    """A size of the change, in the way in which eps was written: as a fraction of 255 if that was one.

    >>> size(4 / 255, "8/255"), size(0.15, "0.3")
    ('4/255', '0.15')
    """
    return f"{value / unit(label):.4g}" + ("" if unit(label) == 1 else "/255")
