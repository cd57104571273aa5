"""From a name or a file to a model that can be asked: rows of a table, one file each."""

from signstep.model.opening.arguments import parse_args
from signstep.model.opening.opener import Opener, Wanted
from signstep.model.opening.spelling import Spelled, spelled
from signstep.model.opening.table import OPENERS, is_address, open_model, opener_of, path_of

__all__ = [
    "OPENERS",
    "Opener",
    "Spelled",
    "Wanted",
    "is_address",
    "open_model",
    "opener_of",
    "parse_args",
    "path_of",
    "spelled",
]
