"""From what a person names to a model of wide rows: a torch module, or a fitted scikit-learn estimator."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from signstep.domains.bare import bare_model
from signstep.domains.case import Request
from signstep.domains.tabular.forms import TabularNet, estimator_model
from signstep.domains.tabular.schema import Schema
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Callee
from signstep.model.victims.estimator import EstimatorVictim


@dataclass(frozen=True, eq=False)
class Given:
    """A model of wide rows.

    Attributes:
        model: the model.
        description: one line.
        notes: what was assumed.
        gradients: whether gradients pass.
        hashes: SHA-256 of "weights" and "code", where known.
    """

    model: Callee
    description: str
    notes: tuple[str, ...]
    gradients: bool
    hashes: dict[str, str]


def given_model(request: Request, schema: Schema) -> Given:
    """The model that a request names: a module, or a fitted classifier of scikit-learn.

    Raises:
        InputError: it names none, or something else.
        LoadError: it cannot be loaded.
    """
    if request.model is None:
        raise InputError(
            "no model is named",
            remedy=("pass", Arg("model", "package.module:factory"), ", or a .joblib file with", Arg("trust", True)),
        )
    model = bare_model(request)
    hashes = dict(model.hashes)
    if isinstance(model.network, EstimatorVictim):
        return _estimator(model.network.estimator, model.title, schema, hashes)
    if not isinstance(model.network, nn.Module):
        raise InputError(
            f"{request.model} is a {type(model.network).__name__}", remedy="name a torch module or a fitted classifier"
        )
    return Given(TabularNet(model.network, schema).eval(), model.title, tuple(model.notes), True, hashes)


def _estimator(estimator: Any, title: str, schema: Schema, hashes: dict[str, str]) -> Given:
    note = "the model gives no gradients: attacks ask for scores alone, and the true robustness may be lower"
    return Given(estimator_model(estimator, schema), title, (note,), False, hashes)
