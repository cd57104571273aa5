"""The thresholds that fitted trees compare features with, in the features' own units."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from signstep.domains.tabular.encode import Layout

# Kinds by module and name: scikit-learn need not be there.
_SINGLE = ("DecisionTreeClassifier", "ExtraTreeClassifier")
_MANY = ("RandomForestClassifier", "ExtraTreesClassifier", "GradientBoostingClassifier")
_BINNED = ("HistGradientBoostingClassifier",)


def thresholds_of(estimator: Any, layout: Layout) -> list[Tensor] | None:
    """For each number of the schema all thresholds of a fitted scikit-learn tree or ensemble of them, sorted.

    None where the estimator is something else, or takes something else than one column for each number: then it can
    only be asked. Categories need no thresholds.
    """
    kind = type(estimator)
    if estimator is None or not kind.__module__.startswith("sklearn.") or layout.schema.form not in _COLUMNS:
        return None
    pairs = _cuts(estimator)
    if pairs is None:
        return None
    columns = _COLUMNS[layout.schema.form](layout)
    place = {column: number for number, column in enumerate(columns.tolist())}
    centre, spread = (part[layout.numeric_columns] for part in layout.scale)
    found: list[list[NDArray[np.float64]]] = [[] for _ in columns]
    for features, values in pairs:
        for column in np.unique(features):
            number = place.get(int(column))
            if number is not None:
                found[number].append(values[features == column])
    cuts = [torch.from_numpy(np.unique(np.concatenate(parts)) if parts else np.empty(0)) for parts in found]
    if layout.schema.form == "encoded":
        cuts = [part * spread[number] + centre[number] for number, part in enumerate(cuts)]
    return cuts


_COLUMNS = {
    "encoded": lambda layout: layout.numeric_columns,
    "wide": lambda layout: layout.numeric_columns,
    "codes": lambda layout: layout.numeric,
}

_Cuts = tuple[NDArray[np.int64], NDArray[np.float64]]


def _cuts(estimator: Any) -> Iterator[_Cuts] | None:
    """(features, thresholds) of each tree; None where a tree splits otherwise."""
    kind = type(estimator).__name__
    if kind in _SINGLE:
        return iter([_of_tree(estimator)])
    if kind in _MANY:
        # Gradient boosting may start from another model than a constant.
        if getattr(estimator, "init", None) not in (None, "zero"):
            return None
        return (_of_tree(tree) for tree in np.ravel(np.asarray(estimator.estimators_, dtype=object)))
    if kind in _BINNED:
        # Private to scikit-learn: where another version lacks them, the model is asked.
        nodes = [tree.nodes for stage in getattr(estimator, "_predictors", ()) for tree in stage]
        plain = getattr(estimator, "_preprocessor", True) is None
        if not nodes or not plain or any(bool(part["is_categorical"].any()) for part in nodes):
            return None
        return (
            (inner["feature_idx"].astype(np.int64), inner["num_threshold"].astype(np.float64))
            for inner in (part[part["is_leaf"] == 0] for part in nodes)
        )
    return None


def _of_tree(tree: Any) -> _Cuts:
    inner = tree.tree_.children_left >= 0
    return tree.tree_.feature[inner].astype(np.int64), tree.tree_.threshold[inner].astype(np.float64)
