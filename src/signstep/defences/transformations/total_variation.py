"""Total-variation denoising.

Source: Rudin, Osher & Fatemi 1992; the dual iteration is that of Chambolle 2004 ("An algorithm for total variation
minimization and applications", section 3). As a defence: Guo et al. 2018 (arXiv:1711.00117), section 4.2.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from signstep.defences.row import Defence
from signstep.defences.step import Ends, Step, scaled, unscaled
from signstep.engine.keys import RowDraws
from signstep.engine.tree import search_dtype

_STEP = 0.249  # below 1/4, at which the iteration is seen to converge; proved up to 1/8
_TINY = 1e-12  # below the root: its slope at 0 is infinite


@dataclass(frozen=True)
class TotalVariation(Step):
    """y = argmin_y |y - u|^2 / (2 weight) + TV(y) for each channel of images (R, C, H, W) in [0, 1], nearly.

    TV(y) sums the lengths of the forward differences of all pixels. ``steps`` of the iteration are taken.
    """

    called: ClassVar[str] = "total-variation"
    hides: ClassVar[bool] = True

    weight: float = 0.05
    steps: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1e3:
            raise self.refuse("weight", "pass a weight above 0")
        if not 1 <= self.steps <= 10_000:
            raise self.refuse("steps", "pass a number of steps from 1 to 10000")

    def forward(self, u: Tensor, draws: RowDraws, ends: Ends) -> Tensor:  # noqa: ARG002
        """u - weight * div p after so many steps p <- (p + t g) / (1 + t |g|), g = grad(div p - u / weight)."""
        self.images(u)
        v = scaled(u.to(search_dtype(u.dtype)), ends)
        across, down = torch.zeros_like(v), torch.zeros_like(v)
        for _ in range(self.steps):
            inner = _divergence(across, down) - v / self.weight
            gx, gy = _differences(inner)
            length = 1 + _STEP * (gx.square() + gy.square() + _TINY).sqrt()
            across, down = (across + _STEP * gx) / length, (down + _STEP * gy) / length
        # Its minimiser has no value that the image has not; before that an iterate may.
        return unscaled((v - self.weight * _divergence(across, down)).clamp(0, 1), ends).to(u.dtype)


def _differences(v: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences along both axes, 0 at the last pixel."""
    return pad(v[..., 1:] - v[..., :-1], (0, 1)), pad(v[..., 1:, :] - v[..., :-1, :], (0, 0, 0, 1))


def _divergence(across: Tensor, down: Tensor) -> Tensor:
    """Minus the adjoint of `_differences`."""
    x, y = across[..., :-1], down[..., :-1, :]
    return pad(x, (0, 1)) - pad(x, (1, 0)) + pad(y, (0, 0, 0, 1)) - pad(y, (0, 0, 1, 0))


ROW = Defence(
    "total-variation",
    TotalVariation,
    "total-variation denoising",
    "its own gradient through the iteration, and the identity",
    "Guo et al. 2018 (arXiv:1711.00117)",
    "Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 5.2.2: 0 % left",
    "medium: an iteration for each input",
)
