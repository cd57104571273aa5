"""The table of detectors, open to rows from outside: a file and a row each."""

from signstep.detectors import (
    confidence,
    energy,
    image_statistics,
    learned,
    lid,
    mahalanobis,
    neighbours,
    second_model,
    squeeze,
)
from signstep.detectors.rule import DetectorRow
from signstep.errors import InputError
from signstep.importing import Spelling
from signstep.registry import Brought, Registry

_SPELLING = Spelling("the detector", "row", "my_detectors:ROW")


def _checked(brought: Brought) -> DetectorRow:
    row = brought.thing
    if not isinstance(row, DetectorRow):
        raise InputError(
            f"it is a {type(row).__name__}", remedy="name a signstep.detectors.DetectorRow, or pass the object to fit()"
        )
    for word in ("title", "source", "broken"):
        if not getattr(row, word):
            raise InputError(f"the row has no {word}", remedy="say it: nobody should use a detector without knowing")
    return row


_ROWS = (
    confidence.ROW,
    energy.ROW,
    squeeze.ROW,
    mahalanobis.ROW,
    neighbours.ROW,
    lid.ROW,
    image_statistics.ROW,
    second_model.ROW,
    learned.ROW,
)

DETECTORS: Registry[DetectorRow] = Registry(
    "signstep.detectors",
    _SPELLING,
    _checked,
    {row.name: row for row in _ROWS},
    argument="detector",
)
