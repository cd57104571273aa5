"""Threat models whose allowed set is not a ball in a box: whole numbers, categories, words, rates of change.

Such a threat makes its own region, which the one attack loop then moves in, and has its own checker. The two must share
no code: the checker looks at the two inputs alone.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from signstep.engine.region import Region
from signstep.engine.threat import ThreatModel
from signstep.engine.verify import Verification


class ShapedThreat(ThreatModel, ABC):
    """A threat model with a set of its own. Subclasses are frozen dataclasses with what describes the set.

    ``eps`` scales the whole set (1 is the declared budget) and ``norm`` names the length that is reported; box, mask
    and grid stay empty unless the set has them beside its own rules.
    """

    @property
    @abstractmethod
    def kind(self) -> str:
        """The name of the set in records; what `signstep verify` finds its checker by."""

    @abstractmethod
    def around(self, x: Tensor) -> Region:
        """The region around a batch x (R, ...).

        Raises:
            ThreatError: it does not fit the batch.
        """

    @abstractmethod
    def checked(self, x: Tensor, point: Tensor) -> Verification:
        """What a checker that shares no code with the region says of ``point`` (R, ...)."""
