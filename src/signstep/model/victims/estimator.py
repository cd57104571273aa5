"""A fitted scikit-learn estimator as a model."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from signstep.errors import InputError
from signstep.model.victims.arrays import Array, ArrayVictim, from_numpy

Answer = Literal["auto", "probabilities", "decision", "labels"]
_METHODS = {"probabilities": "predict_proba", "decision": "decision_function", "labels": "predict"}


def from_sklearn(estimator: Any, *, answer: Answer = "auto", batch: int | None = None) -> ArrayVictim:
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
        InputError: the estimator has no such method, or has not been fitted.
    """
    if answer not in ("auto", *_METHODS):
        raise InputError(f"answer={answer!r}; pass 'auto', {', '.join(map(repr, _METHODS))}")
    kinds = list(_METHODS) if answer == "auto" else [answer]
    # Some estimators raise instead of lacking the method (SVC without probability); hasattr sees both.
    kind = next((kind for kind in kinds if hasattr(estimator, _METHODS[kind])), None)
    if kind is None:
        raise InputError(
            f"the {type(estimator).__name__} has none of {', '.join(_METHODS[kind] for kind in kinds)}; pass a "
            "classifier, or another answer="
        )
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise InputError(f"the {type(estimator).__name__} has no classes_: fit it first, or use from_numpy")
    return from_numpy(_asked(getattr(estimator, _METHODS[kind]), kind, np.asarray(classes)), batch=batch)


def _asked(method: Callable[[Array], Any], kind: str, classes: Array) -> Callable[[Array], Array]:
    def ask(x: Array) -> Array:
        answer = np.asarray(method(x.reshape(len(x), -1)))
        if kind == "labels":
            return np.searchsorted(classes, answer)
        if kind == "probabilities":
            logarithms: Array = np.log(np.maximum(answer, np.finfo(np.float64).tiny))
            return logarithms
        return answer

    return ask
