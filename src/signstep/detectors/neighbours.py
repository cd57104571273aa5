"""k nearest neighbours among the penultimate features of clean rows.

s(x) = |f - f_(k)|, the distance to the k-th nearest of the fit rows of the class that the model answers (of all rows,
"pooled"), with features scaled to unit length.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.detectors.rule import DetectorRow, Fitting, by_class, whole
from signstep.detectors.seen import Reader, Seen
from signstep.errors import InputError

_NAME = "neighbours"


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Features (n, F) of unit length and their classes (n,); all of class 0 where they are pooled."""

    rows: Tensor
    labels: Tensor
    k: int
    pooled: bool
    passes: int = 0

    @property
    def state(self) -> Mapping[str, Tensor]:
        """The rows' features and classes."""
        return {"rows": self.rows, "labels": self.labels}

    def scores(self, seen: Seen) -> Tensor:
        """The distance (R,) to the k-th nearest; of a class that no fit row had, infinite."""
        features = unit(seen.features)
        rows, labels = self.rows.to(features), self.labels.to(features.device)
        far = distances(features, rows)
        if not self.pooled:
            far = torch.where(labels == seen.classes.unsqueeze(1), far, torch.inf)
        found: Tensor = far.kthvalue(self.k, dim=1).values
        return found

    def surrogate(self, seen: Seen) -> Tensor:
        """The same; finite, so that a class without rows can be left."""
        return torch.nan_to_num(self.scores(seen), posinf=4.0)


def unit(features: Tensor) -> Tensor:
    """Rows scaled to unit length."""
    length: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / length.clamp_min(1e-12)


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean distances (R, n), with a gradient everywhere."""
    squared = one.square().sum(1, keepdim=True) + other.square().sum(1) - 2 * one @ other.T
    return squared.clamp_min(1e-12).sqrt()


def fit(fitting: Fitting, *, k: int = 10, pooled: bool = False) -> Neighbours:
    """Keep the features of the fit half.

    Raises:
        InputError: a class has fewer than k rows.
    """
    whole("k", k, 1, _NAME)
    features = unit(fitting.over(lambda seen: seen.features))
    if pooled:
        if len(features) < k:
            raise InputError(
                f"there are {len(features)} fit rows for k={k} neighbours", remedy="pass more rows", where=_NAME
            )
        return Neighbours(features, torch.zeros(len(features), dtype=torch.int64, device="cpu"), k, pooled)
    groups = by_class(fitting, features, k, _NAME)
    labels = [torch.full((len(group),), label, dtype=torch.int64, device="cpu") for label, group in enumerate(groups)]
    return Neighbours(torch.cat(groups), torch.cat(labels), k, pooled)


def restore(state: Mapping[str, Tensor], other: Reader | None, *, k: int = 10, pooled: bool = False) -> Neighbours:  # noqa: ARG001
    """From its rows."""
    rows, labels = state["rows"], state["labels"]
    if rows.ndim != 2 or labels.shape != rows.shape[:1] or labels.dtype != torch.int64 or len(rows) < k:
        raise ValueError("rows and labels do not fit each other")
    return Neighbours(rows, labels, whole("k", k, 1, _NAME), pooled)


ROW = DetectorRow(
    _NAME,
    fit,
    restore,
    "distance to the k-th nearest clean row of the answered class, in penultimate features",
    "Papernot & McDaniel 2018 (arXiv:1803.04765), last layer; Sun, Ming, Zhu & Li 2022 (arXiv:2204.06507)",
    "Sitawarin & Wagner 2019 (arXiv:1903.08333)",
    "features",
)
