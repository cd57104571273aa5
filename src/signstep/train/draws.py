"""Random numbers of a training step: one generator for the batch, which is what a bare loop pays for them.

Audits key every draw by the example. Training draws by the step: what a step draws is a function of the seed and the
number of the step alone, so that a run that goes on from a checkpoint draws what it would have drawn.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.train.async_copies import sent


@dataclass(frozen=True)
class BatchDraws:
    """Numbers for ``rows`` rows; the `Draws` that norms ask for, whose purposes follow one another here.

    Attributes:
        rows: R.
        device: where they are needed.
        generator: where they come from; None for torch's own, in somebody else's loop.
        part: of the rows that are wanted; the numbers are drawn for all, so that they do not depend on the part.
    """

    rows: int
    device: torch.device
    generator: torch.Generator | None = None
    part: slice | None = None

    def uniform(self, purpose: str, shape: tuple[int, ...]) -> Tensor:  # noqa: ARG002
        """Uniform on [0, 1), (R, *shape) float32, R rows of the part."""
        return self._taken(
            torch.rand((self.rows, *shape), generator=self.generator, device=self._where(), dtype=torch.float32)
        )

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:  # noqa: ARG002
        """Standard normal, (R, *shape) float32."""
        return self._taken(
            torch.randn((self.rows, *shape), generator=self.generator, device=self._where(), dtype=torch.float32)
        )

    def between(self, shape: tuple[int, ...], radius: float) -> Tensor:
        """Uniform on [-radius, radius), (R, *shape) float32: one pass over memory."""
        out = torch.empty((self.rows, *shape), device=self._where(), dtype=torch.float32)
        return self._taken(out.uniform_(-radius, radius, generator=self.generator))

    def _taken(self, drawn: Tensor) -> Tensor:
        return sent(drawn if self.part is None else drawn[self.part], self.device)

    def _where(self) -> torch.device:
        return self.device if self.generator is None else self.generator.device
