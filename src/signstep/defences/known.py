"""The table of defences."""

from signstep.defences.row import SPELLING, Defence, row_of
from signstep.defences.transformations import ROWS
from signstep.registry import Registry

DEFENCES: Registry[Defence] = Registry(
    "signstep.defences", SPELLING, row_of, {row.name: row for row in ROWS}, argument="defence"
)
