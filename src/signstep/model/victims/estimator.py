"""A fitted scikit-learn estimator as a model."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.victims.arrays import Array, ArrayVictim, checked_batch

Answer = Literal["auto", "probabilities", "decision", "labels"]
_METHODS = {"probabilities": "predict_proba", "decision": "decision_function", "labels": "predict"}


@dataclass(frozen=True, eq=False)
class EstimatorVictim(ArrayVictim):
    """An estimator that is asked for one of its answers.

    Attributes:
        estimator: the estimator itself.
    """

    estimator: Any = None


def from_sklearn(estimator: Any, *, answer: Answer = "auto", batch: int | None = None) -> EstimatorVictim:
    """A model from a fitted classifier; classes are positions in ``estimator.classes_``, and so must be the labels y.

    Inputs (R, ...) are flattened to (R, features). What comes back:

    - "probabilities": log(predict_proba), which are logits whose softmax are the probabilities (R, classes);
    - "decision": decision_function, (R, classes), or (R,) for two classes;
    - "labels": predict, (R,) int64, for attacks that need labels alone;
    - "auto": the first of these that the estimator has.

    The verdict follows what comes back: an estimator whose probabilities are calibrated apart from its decision
    (``SVC(probability=True)``) can be judged by its own word with answer="labels".

    Args:
        estimator: a fitted classifier, or a pipeline that ends in one.
        answer: what to ask it for.
        batch: rows of a call at most, or None for all at once.

    Raises:
        InputError: the estimator has no such method, or has not been fitted; called with inputs of another size than
            it was fitted with, too.
    """
    if answer not in ("auto", *_METHODS):
        raise InputError(Arg("answer", answer), remedy=f"pass 'auto', {', '.join(map(repr, _METHODS))}")
    kinds = list(_METHODS) if answer == "auto" else [answer]
    # Some estimators raise instead of lacking the method (SVC without probability); hasattr sees both.
    kind = next((kind for kind in kinds if hasattr(estimator, _METHODS[kind])), None)
    if kind is None:
        raise InputError(
            f"the {type(estimator).__name__} has none of {', '.join(_METHODS[kind] for kind in kinds)}",
            remedy=("pass a classifier, or another", Arg("answer")),
        )
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise InputError(f"the {type(estimator).__name__} has no classes_", remedy="fit it first, or use from_numpy")
    checked_batch(batch)
    return EstimatorVictim(_asked(estimator, kind, np.asarray(classes)), batch, estimator=estimator)


def _asked(estimator: Any, kind: str, classes: Array) -> Callable[[Array], Array]:
    method: Callable[[Array], Any] = getattr(estimator, _METHODS[kind])
    wide = getattr(estimator, "n_features_in_", None)

    def ask(x: Array) -> Array:
        rows = x.reshape(len(x), -1)
        if isinstance(wide, int) and rows.shape[1] != wide:
            raise InputError(
                f"the {type(estimator).__name__} was fitted with {wide} features, an input of shape "
                f"{x.shape[1:]} has {rows.shape[1]}",
                remedy="pass data of that size",
            )
        with warnings.catch_warnings():
            # An estimator that was fitted with a table is given arrays here, in the order of its columns.
            warnings.filterwarnings("ignore", message=".* does not have valid feature names")
            answer = np.asarray(method(rows))
        if kind == "labels":
            return np.searchsorted(classes, answer)
        if kind == "probabilities":
            logarithms: Array = np.log(np.maximum(answer, np.finfo(np.float64).tiny))
            return logarithms
        return answer

    return ask
