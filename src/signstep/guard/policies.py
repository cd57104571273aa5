"""What the guard asks of a policy; `signstep.Policy` answers so, and anything else that does will do."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


class Decisions(Protocol):
    """What a policy says of inputs (R, ...)."""

    @property
    def action(self) -> Any:
        """(R,): 0 accept, 1 review, 2 reject."""

    @property
    def p_value(self) -> Any:
        """(R,): of all detectors together."""

    @property
    def by(self) -> Any:
        """(R,): the detector that gave it, by its place."""

    @property
    def answers(self) -> Any:
        """(R, K): the scores of the model, from the same passes."""


@runtime_checkable
class Policy(Protocol):
    """Decides about inputs."""

    @property
    def reject(self) -> float:
        """The rate at which clean inputs are rejected."""

    @property
    def review(self) -> float:
        """The rate at which they are sent to a person."""

    @property
    def detectors(self) -> Sequence[Any]:
        """Those that it asks."""

    def decide(self, x: Tensor) -> Decisions:
        """About inputs (R, ...)."""
