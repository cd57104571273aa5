"""Local intrinsic dimensionality of the penultimate features, among clean rows.

s(x) = -(1 / (k - 1) sum_{i < k} log(r_i / r_k))^-1, r_1 <= ... <= r_k the distances to the k nearest fit rows (the
maximum likelihood estimate of Amsaleg et al. 2015). The paper's detector learns weights of all layers from attacked
rows; this one is the estimate of the last layer alone, and learns nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from signstep.detectors.neighbours import distances
from signstep.detectors.rule import DetectorRow, Fitting, whole
from signstep.detectors.seen import Reader, Seen
from signstep.errors import InputError

_NAME = "lid"


@dataclass(frozen=True, eq=False)
class Dimension:
    """Features (n, F) of the fit rows."""

    rows: Tensor
    k: int
    passes: int = 0

    @property
    def state(self) -> Mapping[str, Tensor]:
        """The rows."""
        return {"rows": self.rows}

    def scores(self, seen: Seen) -> Tensor:
        """The estimate (R,), in float64; a row of the fit half itself, at distance 0, counts with a tiny one."""
        features = seen.features.double()
        near = distances(features, self.rows.to(features)).topk(self.k, dim=1, largest=False).values
        mean = (near[:, :-1] / near[:, -1:]).log().sum(1) / (self.k - 1)
        return -1 / mean.clamp(max=-1e-12)

    def surrogate(self, seen: Seen) -> Tensor:
        """The same."""
        return self.scores(seen)


def fit(fitting: Fitting, *, k: int = 20) -> Dimension:
    """Keep the features of the fit half.

    Raises:
        InputError: fewer than k rows.
    """
    whole("k", k, 2, _NAME)
    rows = fitting.over(lambda seen: seen.features)
    if len(rows) < k:
        raise InputError(f"there are {len(rows)} fit rows for k={k} neighbours", remedy="pass more rows", where=_NAME)
    return Dimension(rows, k)


def restore(state: Mapping[str, Tensor], other: Reader | None, *, k: int = 20) -> Dimension:  # noqa: ARG001
    """From its rows."""
    if state["rows"].ndim != 2 or len(state["rows"]) < k:
        raise ValueError("its rows are too few")
    return Dimension(state["rows"], whole("k", k, 2, _NAME))


ROW = DetectorRow(
    _NAME,
    fit,
    restore,
    "local intrinsic dimensionality of penultimate features",
    "Ma et al. 2018 (arXiv:1801.02613), last layer, nothing learned",
    "Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 5.2",
    "features",
)
