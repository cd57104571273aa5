"""Class-conditional Mahalanobis distance of the penultimate features.

s(x) = min_c (f - m_c)^T S^-1 (f - m_c), with the mean m_c of each class and one covariance S of all of them, shrunk
towards its diagonal: S = (1 - r) S_0 + r diag(S_0) + tiny. In float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.detectors.rule import DetectorRow, Fitting, by_class
from signstep.detectors.seen import Reader, Seen
from signstep.errors import InputError
from signstep.messages import Arg

_NAME = "mahalanobis"


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """Means (C, F) and the factor (F, F) that whitens: |(f - m) W|^2 is the squared distance."""

    means: Tensor
    whitening: Tensor
    passes: int = 0

    @property
    def state(self) -> Mapping[str, Tensor]:
        """Both."""
        return {"means": self.means, "whitening": self.whitening}

    def scores(self, seen: Seen) -> Tensor:
        """The squared distance (R,) to the nearest mean."""
        features = seen.features.double()
        whitening, means = self.whitening.to(features), self.means.to(features)
        ahead = (features @ whitening).unsqueeze(1) - (means @ whitening).unsqueeze(0)
        return ahead.square().sum(2).amin(1)

    def surrogate(self, seen: Seen) -> Tensor:
        """The same."""
        return self.scores(seen)


def fit(fitting: Fitting, *, shrink: float = 0.1, pooled: bool = False) -> Mahalanobis:
    """Means and covariance of the fit half; ``pooled`` takes one mean for all classes.

    Raises:
        InputError: a class has no rows, or there are too few.
    """
    if not 0 <= shrink <= 1:
        raise InputError(Arg("shrink", shrink), remedy="pass a share from 0 to 1", where=_NAME)
    features = fitting.over(lambda seen: seen.features).double()
    groups = [features] if pooled else by_class(fitting, features, 1, _NAME)
    means = torch.stack([group.mean(0) for group in groups])
    centred = torch.cat([group - mean for group, mean in zip(groups, means, strict=True)])
    if len(centred) < 2:
        raise InputError(
            f"{len(centred)} rows are too few for a covariance", remedy="pass more clean rows", where=_NAME
        )
    covariance = centred.T @ centred / len(centred)
    own = covariance.diagonal()
    covariance = (1 - shrink) * covariance + shrink * own.diag()
    tiny = 1e-6 * own.mean().clamp_min(1e-12)
    covariance = covariance + tiny * torch.eye(len(own), dtype=covariance.dtype, device=covariance.device)
    lower = torch.linalg.cholesky(torch.linalg.inv(covariance))
    return Mahalanobis(means, lower.contiguous())


def restore(
    state: Mapping[str, Tensor],
    other: Reader | None,  # noqa: ARG001
    *,
    shrink: float = 0.1,  # noqa: ARG001
    pooled: bool = False,  # noqa: ARG001
) -> Mahalanobis:
    """From its means and its factor."""
    means, whitening = state["means"], state["whitening"]
    if means.ndim != 2 or whitening.shape != (means.shape[1], means.shape[1]):
        raise ValueError("means and factor do not fit each other")
    return Mahalanobis(means, whitening)


ROW = DetectorRow(
    _NAME,
    fit,
    restore,
    "distance of penultimate features to the nearest class mean, by their covariance",
    "Lee, Lee, Lee & Shin 2018 (arXiv:1807.03888), one layer, without input noise",
    "Bryniarski et al. 2021 (arXiv:2106.15023) for detectors of features; a feature match to a clean input is unseen",
    "features",
)
