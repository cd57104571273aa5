"""The methods of proof, from the cheapest to the dearest, and the letters of what they have proved."""

import sys
from importlib.util import find_spec

from signstep.errors import InputError, MissingExtraError
from signstep.messages import Arg

# By method the letter of an example that it has proved.
LETTERS = {"interval": "i", "crown-ibp": "b", "crown": "c", "alpha": "a", "exact": "e", "auto-lirpa": "l"}
TITLES = {
    "interval": "intervals",
    "crown-ibp": "CROWN-IBP",
    "crown": "CROWN",
    "alpha": "alpha-CROWN",
    "exact": "exact",
    "auto-lirpa": "auto_LiRPA",
}
METHODS = tuple(LETTERS)

OPEN = "-"
"""The letter of an example that nothing is proved of."""

SECONDS = 60.0
"""Of exact search for each example."""


def method_of(name: str, argument: str = "method") -> str:
    """The method by its name.

    Raises:
        InputError: there is none of that name, or auto_LiRPA cannot be imported.
        MissingExtraError: exact search needs SciPy.
    """
    if name not in LETTERS:
        raise InputError(Arg(argument, name), f"is not one of {', '.join(METHODS)}", remedy="pass one of these")
    if name == "exact" and find_spec("scipy") is None:
        raise MissingExtraError("scipy", "exact")
    if name == "auto-lirpa" and "auto_LiRPA" not in sys.modules and find_spec("auto_LiRPA") is None:
        raise InputError(
            Arg(argument, name),
            "needs auto_LiRPA, which cannot be imported here",
            remedy="install it from its own repository, or pass crown, which needs nothing",
        )
    return name
