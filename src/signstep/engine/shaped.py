"""Threat models whose allowed set is not a ball in a box: whole numbers, categories, words, rates of change.

Such a threat makes its own region, which the one attack loop then moves in, and has its own checker. The two must share
no code: the checker looks at the two inputs alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from signstep.engine.norms import CheckedNorm
from signstep.engine.region import Region
from signstep.engine.threat import Threat, ThreatModel
from signstep.engine.verify import Verification
from signstep.errors import ThreatError


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


def need_check(threat: Threat) -> None:
    """See that what is found under a threat can be checked without trusting the search.

    Raises:
        ThreatError: a ball is measured by a norm without a check of its own.
    """
    for part in threat.values() if isinstance(threat, Mapping) else (threat,):
        ball = isinstance(part, ThreatModel) and not isinstance(part, ShapedThreat)
        if ball and not isinstance(part.norm, CheckedNorm):
            raise ThreatError(
                f"norm {part.norm.name!r} has no check(before, after), without which no verdict can be given",
                remedy="write one that shares no code with its search, or call fgsm, which gives none",
            )
