"""Arguments for a model factory, from text."""

import ast
import warnings
from collections.abc import Sequence

from signstep.errors import InputError
from signstep.messages import Arg


def parse_args(pairs: Sequence[str]) -> dict[str, object]:
    """Read ``["width=32", "norm=batch", "bias=false"]`` into ``{"width": 32, "norm": "batch", "bias": False}``.

    A value is a Python literal (number, quoted text, tuple, ...), true, false or none in any case, or else plain text.

    Raises:
        InputError: If a pair has no "=", its name is no Python name, or a name comes twice.
    """
    args: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise InputError(Arg("model_args", pair), "is not NAME=VALUE", remedy="write width=32, say")
        if name in args:
            raise InputError(
                Arg("model_args", name), f"is given twice: {args[name]!r} and {value!r}", remedy="keep one"
            )
        args[name] = _value(value.strip())
    return args


def _value(text: str) -> object:
    words: dict[str, object] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "3or" is text here, not a literal with a typing slip
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
