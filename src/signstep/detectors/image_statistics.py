"""Statistics of the image alone: how unusual its noise, edges, brightness and ends of the scale are.

Six numbers of each image: mean, log of the variance, log of the energy of differences between neighbours, log of the
energy of the second difference, and the shares of pixels near either end. s(x) is their squared Mahalanobis distance
from the fit half. The model is not asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.detectors.rule import DetectorRow, Fitting
from signstep.detectors.seen import Reader, Seen
from signstep.errors import InputError

_NAME = "image-statistics"
_TINY, _EDGE = 1e-8, 50.0


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean (6,) and whitening factor (6, 6) of the statistics; ``ends`` (2,) of the scale of the fit half."""

    mean: Tensor
    whitening: Tensor
    ends: Tensor
    passes: int = 0

    @property
    def state(self) -> Mapping[str, Tensor]:
        """All three."""
        return {"mean": self.mean, "whitening": self.whitening, "ends": self.ends}

    def scores(self, seen: Seen) -> Tensor:
        """The squared distance (R,), in float64."""
        said = described(seen.raw, self.ends.to(seen.raw.device))
        return ((said - self.mean.to(said)) @ self.whitening.to(said)).square().sum(1)

    def surrogate(self, seen: Seen) -> Tensor:
        """The same."""
        return self.scores(seen)


def described(raw: Tensor, ends: Tensor) -> Tensor:
    """Six statistics (R, 6) of images (R, C, H, W), float64 and smooth.

    Raises:
        InputError: these are no images of at least 3 pixels either way.
    """
    if raw.ndim != 4 or min(raw.shape[2:]) < 3:
        raise InputError(
            f"inputs of shape {tuple(raw.shape[1:])} are no images (channels, height, width) of 3 pixels or more",
            remedy="pass another detector",
            where=_NAME,
        )
    low, high = ends.double()
    x = (raw.double() - low) / (high - low).clamp_min(1e-12)
    across, down = x.diff(dim=3), x.diff(dim=2)
    curve = across.diff(dim=3).square().flatten(1).mean(1) + down.diff(dim=2).square().flatten(1).mean(1)
    edge = across.square().flatten(1).mean(1) + down.square().flatten(1).mean(1)
    flat = x.flatten(1)
    return torch.stack(
        [
            flat.mean(1),
            (flat.var(1) + _TINY).log(),
            (edge + _TINY).log(),
            (curve + _TINY).log(),
            torch.exp(-_EDGE * flat.clamp_min(0)).mean(1),
            torch.exp(-_EDGE * (1 - flat).clamp_min(0)).mean(1),
        ],
        1,
    )


def fit(fitting: Fitting) -> Statistics:
    """Mean and covariance of the statistics of the fit half.

    Raises:
        InputError: these are no images, or fewer than 20.
    """
    raw = fitting.raw
    if len(raw) < 20:
        raise InputError(f"{len(raw)} fit rows are too few", remedy="pass 20 or more in each half", where=_NAME)
    ends = torch.stack([raw.min(), raw.max()]).double()
    said = described(raw, ends)
    centred = said - said.mean(0)
    covariance = centred.T @ centred / len(centred)
    own = covariance.diagonal().clamp_min(1e-10)
    inverse = torch.linalg.inv(covariance + (1e-3 * own).diag())
    return Statistics(said.mean(0), torch.linalg.cholesky(inverse).contiguous(), ends)


def restore(state: Mapping[str, Tensor], other: Reader | None) -> Statistics:  # noqa: ARG001
    """From its three parts."""
    mean, whitening, ends = state["mean"], state["whitening"], state["ends"]
    if mean.shape != (6,) or whitening.shape != (6, 6) or ends.shape != (2,):
        raise ValueError("its parts do not fit each other")
    return Statistics(mean, whitening, ends)


ROW = DetectorRow(
    _NAME,
    fit,
    restore,
    "unusual noise, edges and ends of the scale in the image itself",
    "Li & Li 2017 (arXiv:1612.07767) and Hendrycks & Gimpel 2017 (arXiv:1608.00530) for the idea; six statistics",
    "Carlini & Wagner 2017 (arXiv:1705.07263)",
    "inputs",
)
