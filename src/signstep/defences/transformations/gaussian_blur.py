"""A Gaussian blur.

Source: local smoothing, Xu, Evans & Qi 2018 (arXiv:1704.01155), section II-B.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from signstep.defences.row import Defence
from signstep.defences.step import Ends, Step
from signstep.engine.images import blurring, both_ways
from signstep.engine.keys import RowDraws


@dataclass(frozen=True)
class GaussianBlur(Step):
    """Images (R, C, H, W) smoothed by a Gaussian of ``sigma`` pixels; what lies beyond the border does not count."""

    called: ClassVar[str] = "gaussian-blur"

    sigma: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.sigma < 1e3:
            raise self.refuse("sigma", "pass a width in pixels above 0")

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """Along both axes, weights that sum to 1."""
        self.images(u)
        sigma = u.new_full((len(u),), self.sigma)
        return both_ways(u, blurring(u.shape[2], sigma), blurring(u.shape[3], sigma))


ROW = Defence(
    "gaussian-blur",
    GaussianBlur,
    "a Gaussian blur",
    "its own gradient",
    "local smoothing: Xu, Evans & Qi 2018 (arXiv:1704.01155)",
    "differentiable: an attack by gradients passes it as one more layer",
)
